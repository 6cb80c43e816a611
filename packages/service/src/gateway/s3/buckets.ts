import { verifyDocument } from './checksum-headers.ts';
import { readDocument } from './body.ts';
import type { S3Context } from './context.ts';
import { S3Error } from './errors.ts';
import { decodeToken, encodeToken } from './listings.ts';
import { readXml, textOf } from './xml-reader.ts';
import { encodeKey, isoTime } from './xml-writer.ts';

const MAX_BUCKETS = 10_000;

export async function listBuckets(context: S3Context): Promise<void> {
  const prefix = context.query.get('prefix') ?? '';
  const limit = context.count('max-buckets', MAX_BUCKETS, MAX_BUCKETS);
  const after = decodeToken(context.query.get('continuation-token'));
  const buckets = await context.store.listBuckets({ prefix, after, limit: limit + 1 });
  const page = buckets.slice(0, limit);
  context.sendXml('ListAllMyBucketsResult', {
    Owner: { ID: context.request.principal.accountId },
    Buckets: {
      Bucket: page.map((bucket) => ({
        Name: bucket.name,
        CreationDate: isoTime(bucket.createdAt),
        BucketRegion: bucket.region,
      })),
    },
    Prefix: prefix || null,
    ContinuationToken: buckets.length > limit ? encodeToken(page.at(-1)?.name ?? '') : null,
  });
}

export async function headBucket(context: S3Context): Promise<void> {
  const { region } = await context.store.headBucket(context.bucket);
  context.send(200, { 'x-amz-bucket-region': region });
}

export async function createBucket(context: S3Context): Promise<void> {
  const { document, body } = await readDocument(context);
  verifyDocument(context, document, body);
  const configuration = document.length > 0 ? readXml(document, 'CreateBucketConfiguration') : null;
  const unknown = configuration?.children.find((child) => child.name !== 'LocationConstraint');
  if (unknown)
    throw new S3Error('NotImplemented', `CreateBucketConfiguration.${unknown.name} is not implemented.`);
  const region = configuration ? textOf(configuration, 'LocationConstraint') : undefined;
  await context.store.createBucket(context.bucket, region || context.deps.region);
  context.send(200, { location: `/${encodeKey(context.bucket)}`, 'content-length': '0' });
}

export async function deleteBucket(context: S3Context): Promise<void> {
  await context.store.deleteBucket(context.bucket);
  context.send(204);
}

export async function getBucketLocation(context: S3Context): Promise<void> {
  const { region } = await context.store.headBucket(context.bucket);
  context.sendXml('LocationConstraint', region === 'us-east-1' ? '' : region);
}

/** Objects have no versions: the answer of a bucket that never had them. */
export async function getBucketVersioning(context: S3Context): Promise<void> {
  await context.store.headBucket(context.bucket);
  context.sendXml('VersioningConfiguration', '');
}
