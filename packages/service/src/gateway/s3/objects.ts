import { pipeline } from 'node:stream/promises';
import { noSuchKey } from '../../objects/disk-object-store.ts';
import type { ByteRange, ObjectInfo, OpenObject } from '../../objects/object-store.ts';
import { openBody, readDocument } from './body.ts';
import { checksumHeaders, checksumOfBody, contentMd5, verifyDocument } from './checksum-headers.ts';
import { assertReadable, httpDate, isSameForRange, writeCondition } from './conditions.ts';
import type { S3Context } from './context.ts';
import { S3Error } from './errors.ts';
import { assertHonoured, encryptionHeaders, metadataOf, overridesOf } from './metadata.ts';
import { contentRange, parseRange } from './range.ts';
import { childrenOf, readXml, textOf, type XmlElement } from './xml-reader.ts';
import { MAX_KEY_BYTES } from '../../objects/names.ts';

/** Of one DeleteObjects. */
const MAX_DELETED_KEYS = 1000;

export async function putObject(context: S3Context): Promise<void> {
  assertHonoured(context);
  if (context.query.has('partNumber')) {
    throw new S3Error('InvalidRequest', 'partNumber was sent without uploadId; a part needs both.');
  }
  const { bucket, key } = context;
  const metadata = metadataOf(context);
  const body = openBody(context);
  const info = await context.store.putObject({
    bucket,
    key,
    metadata,
    body: body.bytes,
    checksum: checksumOfBody(context, body),
    contentMd5: contentMd5(context),
    condition: writeCondition(context),
  });
  context.send(200, {
    etag: `"${info.etag}"`,
    'content-length': '0',
    ...checksumHeaders(info.checksum),
    ...encryptionHeaders(metadata),
  });
}

export async function getObject(context: S3Context): Promise<void> {
  assertHonoured(context);
  const opened = await context.store.openObject(context.bucket, context.key);
  try {
    const { status, headers, range } = describeRead(context, opened);
    const body = await opened.read(range);
    const { res } = context.request;
    res.writeHead(status, headers);
    await pipeline(body, res).catch((error: NodeJS.ErrnoException) => {
      // A client that hangs up has seen enough; anything else cuts the connection, so that it notices.
      if (
        error.code !== 'ERR_STREAM_PREMATURE_CLOSE' &&
        error.code !== 'EPIPE' &&
        error.code !== 'ECONNRESET'
      )
        throw error;
    });
  } finally {
    await opened.close();
  }
}

export async function headObject(context: S3Context): Promise<void> {
  assertHonoured(context);
  const opened = await context.store.openObject(context.bucket, context.key);
  try {
    const { status, headers } = describeRead(context, opened);
    context.send(status, headers);
  } finally {
    await opened.close();
  }
}

export async function deleteObject(context: S3Context): Promise<void> {
  const { bucket, key } = context;
  const condition = writeCondition(context);
  await context.store.deleteObject(bucket, key, condition);
  context.send(204);
}

/** Up to 1000 keys in one commit; keys that may not be deleted are reported one by one. */
export async function deleteObjects(context: S3Context): Promise<void> {
  const { document, body } = await readDocument(context);
  if (!verifyDocument(context, document, body)) {
    throw new S3Error(
      'InvalidRequest',
      'Missing required header for this request: Content-MD5 OR x-amz-checksum-*',
    );
  }
  const root = readXml(document, 'Delete');
  const keys = childrenOf(root, 'Object').map(keyOf);
  if (keys.length === 0 || keys.length > MAX_DELETED_KEYS) {
    throw new S3Error(
      'MalformedXML',
      `Delete lists ${keys.length} objects; it must list 1 to ${MAX_DELETED_KEYS}.`,
    );
  }
  const { bucket } = context;
  const allowed = keys.filter((key) => context.isAllowed({ action: 'delete', bucket, key }));
  await context.store.deleteObjects(bucket, allowed);
  const deleted = new Set(allowed);
  context.sendXml('DeleteResult', {
    Deleted: textOf(root, 'Quiet') === 'true' ? null : allowed.map((key) => ({ Key: key })),
    Error: keys
      .filter((key) => !deleted.has(key))
      .map((key) => ({
        Key: key,
        Code: 'AccessDenied',
        Message: 'Access Denied: this access key may not delete it.',
      })),
  });
}

/** Objects have no tags; the CLI asks before it copies. */
export async function getObjectTagging(context: S3Context): Promise<void> {
  const { bucket, key } = context;
  if (!(await context.store.headObject(bucket, key))) throw noSuchKey(key);
  context.sendXml('Tagging', { TagSet: '' });
}

function describeRead(
  context: S3Context,
  { info, parts }: OpenObject,
): { status: number; headers: Record<string, string>; range: ByteRange } {
  assertReadable(context, info);
  const partNumber = partNumberOf(context);
  const part = partNumber === null ? undefined : partOf(parts, partNumber, info);
  const range =
    part ?? (isSameForRange(context, info) ? parseRange(context.header('range'), info.sizeBytes) : undefined);
  const { start, end } = range ?? { start: 0, end: info.sizeBytes };
  const headers: Record<string, string> = {
    ...info.metadata,
    ...overridesOf(context),
    // Whatever a job stored, a browser must not run it with the rights of this address.
    'content-security-policy': 'sandbox',
    'x-content-type-options': 'nosniff',
    'accept-ranges': 'bytes',
    'content-length': String(end - start),
    etag: `"${info.etag}"`,
    'last-modified': httpDate(info.modifiedAt),
  };
  if (range) headers['content-range'] = contentRange(range, info.sizeBytes);
  if (part && info.partCount !== null) headers['x-amz-mp-parts-count'] = String(info.partCount);
  if (context.header('x-amz-checksum-mode')?.toUpperCase() === 'ENABLED') {
    Object.assign(headers, checksumOfRead(info, range, part));
  }
  return { status: range ? 206 : 200, headers, range: { start, end } };
}

/** Only a checksum of exactly what is sent: clients verify what they get. */
function checksumOfRead(
  info: ObjectInfo,
  range: ByteRange | undefined,
  part: { checksum: string | null } | undefined,
): Record<string, string> {
  const { checksum } = info;
  if (!range || (part && info.partCount === null)) return checksumHeaders(checksum);
  if (!part || !checksum || part.checksum === null) return {};
  return checksumHeaders({ ...checksum, value: part.checksum });
}

function partNumberOf(context: S3Context): number | null {
  const text = context.query.get('partNumber');
  if (text === undefined) return null;
  if (context.header('range') !== undefined) {
    throw new S3Error('InvalidRequest', 'Cannot specify both Range header and partNumber query parameter');
  }
  return parsePartNumber(text);
}

/** @throws S3Error InvalidArgument */
export function parsePartNumber(text: string | undefined): number {
  const number = /^\d{1,5}$/.test(text ?? '') ? Number(text) : 0;
  if (number >= 1 && number <= 10_000) return number;
  throw new S3Error('InvalidArgument', 'Part number must be an integer between 1 and 10000, inclusive', {
    ArgumentName: 'partNumber',
    ArgumentValue: text ?? '',
  });
}

function partOf(
  parts: OpenObject['parts'],
  number: number,
  info: ObjectInfo,
): OpenObject['parts'][number] | undefined {
  const part = parts[number - 1];
  if (!part) {
    throw new S3Error('InvalidPartNumber', undefined, {
      ActualPartCount: info.partCount ?? 1,
      PartNumberRequested: number,
    });
  }
  return part.start < part.end ? part : undefined; // an empty range cannot be written
}

function keyOf(element: XmlElement): string {
  const key = textOf(element, 'Key');
  if (!key) throw new S3Error('MalformedXML', 'An Object in Delete has no Key.');
  const version = textOf(element, 'VersionId');
  if (version !== undefined && version !== 'null') {
    throw new S3Error('NotImplemented', 'Versions of objects are not kept; leave out VersionId.');
  }
  if (textOf(element, 'ETag') !== undefined) {
    throw new S3Error(
      'NotImplemented',
      'Conditions in Delete are not implemented; delete the object by itself with If-Match.',
    );
  }
  if (Buffer.byteLength(key) > MAX_KEY_BYTES) throw new S3Error('KeyTooLongError');
  return key;
}
