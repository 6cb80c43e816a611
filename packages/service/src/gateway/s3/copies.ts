import { parseCopySource } from './address.ts';
import { checksumElements, requestedAlgorithm } from './checksum-headers.ts';
import { assertReadable, writeCondition } from './conditions.ts';
import type { S3Context } from './context.ts';
import { S3Error } from './errors.ts';
import { assertHonoured, encryptionHeaders, metadataOf } from './metadata.ts';
import { parsePartNumber } from './objects.ts';
import { parseCopyRange } from './range.ts';
import { isoTime } from './xml-writer.ts';

export async function copyObject(context: S3Context): Promise<void> {
  assertHonoured(context);
  const { bucket, key } = context;
  const source = sourceOf(context);
  const directive = context.header('x-amz-metadata-directive') ?? 'COPY';
  if (directive !== 'COPY' && directive !== 'REPLACE') {
    throw new S3Error(
      'InvalidArgument',
      `x-amz-metadata-directive is ${directive}; it must be COPY or REPLACE.`,
    );
  }
  const metadata = directive === 'REPLACE' ? metadataOf(context) : undefined;
  const algorithm = requestedAlgorithm(context)?.algorithm;
  if (source.bucket === bucket && source.key === key && !metadata && algorithm === undefined) {
    throw new S3Error(
      'InvalidRequest',
      "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.",
    );
  }
  const info = await context.store.copyObject({
    source,
    bucket,
    key,
    acceptSource: (found) => assertReadable(context, found, 'x-amz-copy-source-'),
    checksumAlgorithm: algorithm,
    condition: writeCondition(context),
    ...(metadata ? { metadata } : {}),
  });
  context.sendXml(
    'CopyObjectResult',
    { ETag: `"${info.etag}"`, LastModified: isoTime(info.modifiedAt), ...checksumElements(info.checksum) },
    encryptionHeaders(info.metadata),
  );
}

export async function uploadPartCopy(context: S3Context): Promise<void> {
  assertHonoured(context);
  const { bucket, key, query } = context;
  const { uploads } = context.store;
  const upload = uploads.require(bucket, key, query.get('uploadId') ?? '');
  const source = sourceOf(context);
  const opened = await context.store.openObject(source.bucket, source.key);
  try {
    assertReadable(context, opened.info, 'x-amz-copy-source-');
    const range = parseCopyRange(context.header('x-amz-copy-source-range'), opened.info.sizeBytes);
    const part = await uploads.putPart({
      bucket,
      key,
      uploadId: upload.id,
      partNumber: parsePartNumber(query.get('partNumber')),
      body: await opened.read(range),
    });
    context.sendXml('CopyPartResult', {
      ETag: `"${part.etag}"`,
      LastModified: isoTime(part.modifiedAt),
      ...(upload.checksumAlgorithm ? { [`Checksum${upload.checksumAlgorithm}`]: part.checksum } : {}),
    });
  } finally {
    await opened.close();
  }
}

function sourceOf(context: S3Context): { bucket: string; key: string } {
  const source = parseCopySource(context.header('x-amz-copy-source') ?? '');
  const owner = context.header('x-amz-source-expected-bucket-owner');
  if (owner !== undefined && owner !== context.request.principal.accountId) {
    throw new S3Error(
      'AccessDenied',
      `The source bucket belongs to ${context.request.principal.accountId}, not to ${owner}.`,
    );
  }
  context.assertAllowed({ action: 'read', ...source });
  return source;
}
