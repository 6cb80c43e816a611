import { MAX_PART_NUMBER } from '../../objects/complete-parts.ts';
import { type ChecksumAlgorithm, isChecksumAlgorithm } from '../../objects/checksums.ts';
import { openBody, readDocument } from './body.ts';
import {
  checksumElements,
  checksumOfBody,
  contentMd5,
  expectedObjectChecksum,
  requestedAlgorithm,
} from './checksum-headers.ts';
import { parseEtag, writeCondition } from './conditions.ts';
import type { S3Context } from './context.ts';
import { S3Error } from './errors.ts';
import { assertHonoured, encryptionHeaders, metadataOf } from './metadata.ts';
import { parsePartNumber } from './objects.ts';
import { childrenOf, readXml, textOf, type XmlElement } from './xml-reader.ts';
import { encodeKey, isoTime } from './xml-writer.ts';

const MAX_PAGE_SIZE = 1000;

export async function createMultipartUpload(context: S3Context): Promise<void> {
  assertHonoured(context);
  const { bucket, key } = context;
  const metadata = metadataOf(context);
  const checksum = requestedAlgorithm(context);
  const upload = context.store.uploads.create({ bucket, key, metadata, checksum });
  const headers: Record<string, string> = checksum
    ? { 'x-amz-checksum-algorithm': checksum.algorithm, 'x-amz-checksum-type': checksum.type }
    : {};
  context.sendXml(
    'InitiateMultipartUploadResult',
    { Bucket: bucket, Key: key, UploadId: upload.id },
    { ...headers, ...encryptionHeaders(metadata) },
  );
}

export async function uploadPart(context: S3Context): Promise<void> {
  assertHonoured(context);
  const { bucket, key, query } = context;
  const partNumber = parsePartNumber(query.get('partNumber'));
  const body = openBody(context);
  const checksum = checksumOfBody(context, body);
  const uploadId = query.get('uploadId') ?? '';
  const part = await context.store.uploads.putPart({
    bucket,
    key,
    uploadId,
    partNumber,
    body: body.bytes,
    checksum,
    contentMd5: contentMd5(context),
  });
  const headers: Record<string, string> = { etag: `"${part.etag}"`, 'content-length': '0' };
  if (checksum && part.checksum !== null)
    headers[`x-amz-checksum-${checksum.algorithm.toLowerCase()}`] = part.checksum;
  context.send(200, headers);
}

export async function completeMultipartUpload(context: S3Context): Promise<void> {
  const { bucket, key, query } = context;
  // The checksum headers of this request are of the object, not of the document.
  const { document } = await readDocument(context);
  const parts = childrenOf(readXml(document, 'CompleteMultipartUpload'), 'Part').map(partOf);
  if (parts.length === 0 || parts.length > MAX_PART_NUMBER) {
    throw new S3Error(
      'MalformedXML',
      `CompleteMultipartUpload lists ${parts.length} parts; it must list 1 to ${MAX_PART_NUMBER}.`,
    );
  }
  const size = context.header('x-amz-mp-object-size');
  const info = await context.store.uploads.complete({
    bucket,
    key,
    uploadId: query.get('uploadId') ?? '',
    parts,
    expectedChecksum: expectedObjectChecksum(context),
    expectedBytes: size === undefined ? undefined : Number(size),
    condition: writeCondition(context),
  });
  const host = context.header('host');
  context.sendXml(
    'CompleteMultipartUploadResult',
    {
      Location: `http://${host}/${encodeKey(bucket)}/${encodeKey(key)}`,
      Bucket: bucket,
      Key: key,
      ETag: `"${info.etag}"`,
      ...checksumElements(info.checksum),
    },
    encryptionHeaders(info.metadata),
  );
}

export async function abortMultipartUpload(context: S3Context): Promise<void> {
  await context.store.uploads.abort(context.bucket, context.key, context.query.get('uploadId') ?? '');
  context.send(204);
}

export async function listParts(context: S3Context): Promise<void> {
  const { bucket, key, query } = context;
  const { uploads } = context.store;
  const upload = uploads.require(bucket, key, query.get('uploadId') ?? '');
  const after = context.count('part-number-marker', 0, MAX_PART_NUMBER);
  const limit = context.count('max-parts', MAX_PAGE_SIZE, MAX_PAGE_SIZE);
  const found = uploads.parts(upload.id, after, limit + 1);
  const page = found.slice(0, limit);
  const algorithm = upload.checksumAlgorithm;
  context.sendXml('ListPartsResult', {
    Bucket: bucket,
    Key: context.wantsUrlEncoding() ? encodeKey(key) : key,
    UploadId: upload.id,
    PartNumberMarker: after,
    NextPartNumberMarker: page.at(-1)?.partNumber ?? 0,
    MaxParts: limit,
    IsTruncated: found.length > limit,
    Part: page.map((part) => ({
      PartNumber: part.partNumber,
      LastModified: isoTime(part.modifiedAt),
      ETag: `"${part.etag}"`,
      Size: part.sizeBytes,
      ...(algorithm ? { [`Checksum${algorithm}`]: part.checksum } : {}),
    })),
    ...ownersOf(context),
    ChecksumAlgorithm: algorithm,
    ChecksumType: upload.checksumType,
  });
}

export async function listMultipartUploads(context: S3Context): Promise<void> {
  const { bucket, query } = context;
  if (query.get('delimiter')) {
    throw new S3Error('NotImplemented', 'delimiter is not implemented for multipart uploads; leave it out.');
  }
  const isUrl = context.wantsUrlEncoding();
  const encode = isUrl ? encodeKey : (text: string) => text;
  const prefix = query.get('prefix') ?? '';
  const keyMarker = query.get('key-marker') ?? '';
  // Without its second half the marker stands behind all uploads of that key; ids are ASCII.
  const idMarker = keyMarker === '' ? '' : query.get('upload-id-marker') || '\u{10ffff}';
  const limit = context.count('max-uploads', MAX_PAGE_SIZE, MAX_PAGE_SIZE);
  const found = context.store.uploads.list(bucket, prefix, { key: keyMarker, id: idMarker }, limit + 1);
  const page = found.slice(0, limit);
  const isTruncated = found.length > limit;
  const last = isTruncated ? page.at(-1) : undefined;
  context.sendXml('ListMultipartUploadsResult', {
    Bucket: bucket,
    KeyMarker: encode(keyMarker),
    UploadIdMarker: query.get('upload-id-marker') ?? '',
    NextKeyMarker: last ? encode(last.key) : null,
    NextUploadIdMarker: last?.id,
    Prefix: prefix ? encode(prefix) : null,
    EncodingType: isUrl ? 'url' : null,
    MaxUploads: limit,
    IsTruncated: isTruncated,
    Upload: page.map((upload) => ({
      Key: encode(upload.key),
      UploadId: upload.id,
      ...ownersOf(context),
      Initiated: isoTime(upload.initiatedAt),
      ChecksumAlgorithm: upload.checksumAlgorithm,
      ChecksumType: upload.checksumType,
    })),
  });
}

function ownersOf(context: S3Context) {
  const owner = { ID: context.request.principal.accountId };
  return { Initiator: owner, Owner: owner, StorageClass: 'STANDARD' };
}

function partOf(element: XmlElement): { partNumber: number; etag: string; checksum: string | undefined } {
  const number = textOf(element, 'PartNumber');
  const etag = textOf(element, 'ETag');
  if (number === undefined || !etag)
    throw new S3Error('MalformedXML', 'A Part needs a PartNumber and an ETag.');
  const checksums = element.children.filter(({ name }) => algorithmOfElement(name) !== null);
  if (checksums.length > 1) throw new S3Error('InvalidRequest', `Part ${number} has more than one checksum.`);
  return { partNumber: parsePartNumber(number.trim()), etag: parseEtag(etag), checksum: checksums[0]?.text };
}

function algorithmOfElement(name: string): ChecksumAlgorithm | null {
  const algorithm = name.startsWith('Checksum') ? name.slice('Checksum'.length) : '';
  return isChecksumAlgorithm(algorithm) ? algorithm : null;
}
