import type { ObjectInfo, ObjectPage } from '../../objects/object-store.ts';
import { MAX_PAGE_SIZE } from '../../objects/listing.ts';
import type { S3Context } from './context.ts';
import { S3Error } from './errors.ts';
import { encodeKey, isoTime, type XmlTree } from './xml-writer.ts';

/** Where a listing goes on; opaque to clients. */
export function encodeToken(after: string): string {
  return Buffer.from(after).toString('base64url');
}

export function decodeToken(token: string | undefined): string {
  if (token === undefined || token === '') return '';
  const after = Buffer.from(token, 'base64url');
  if (
    after.length > 0 &&
    after.toString('base64url') === token &&
    Buffer.from(after.toString()).equals(after)
  ) {
    return after.toString();
  }
  throw new S3Error('InvalidArgument', 'The continuation token provided is incorrect', {
    ArgumentName: 'continuation-token',
  });
}

export async function listObjectsV2(context: S3Context): Promise<void> {
  const { query } = context;
  const token = query.get('continuation-token');
  const startAfter = query.get('start-after') ?? '';
  const listing = await listPage(context, token === undefined ? startAfter : decodeToken(token));
  const { page, encode } = listing;
  const withOwner = query.get('fetch-owner') === 'true';
  context.sendXml('ListBucketResult', {
    ...listing.head,
    KeyCount: page.objects.length + page.commonPrefixes.length,
    ContinuationToken: token,
    NextContinuationToken: page.next === null ? null : encodeToken(page.next),
    StartAfter: startAfter ? encode(startAfter) : null,
    ...contentsOf(context, page, encode, withOwner),
  });
}

/** The first version of the listing, which boto3's `bucket.objects` still uses. */
export async function listObjects(context: S3Context): Promise<void> {
  const marker = context.query.get('marker') ?? '';
  const { page, encode, head } = await listPage(context, marker);
  context.sendXml('ListBucketResult', {
    ...head,
    Marker: encode(marker),
    // Without a delimiter clients go on after the last key.
    NextMarker: page.next !== null && head.Delimiter !== null ? encode(page.next) : null,
    ...contentsOf(context, page, encode, true),
  });
}

async function listPage(
  context: S3Context,
  after: string,
): Promise<{ page: ObjectPage; encode: (key: string) => string; head: XmlTree }> {
  const { bucket, query } = context;
  const prefix = query.get('prefix') ?? '';
  const delimiter = query.get('delimiter') ?? '';
  const limit = context.count('max-keys', MAX_PAGE_SIZE, MAX_PAGE_SIZE);
  const isUrl = context.wantsUrlEncoding();
  const encode = isUrl ? encodeKey : (key: string) => key;
  const page = await context.store.listObjects({ bucket, prefix, delimiter, after, limit });
  return {
    page,
    encode,
    head: {
      Name: bucket,
      Prefix: encode(prefix),
      Delimiter: delimiter ? encode(delimiter) : null,
      MaxKeys: limit,
      EncodingType: isUrl ? 'url' : null,
      IsTruncated: page.next !== null,
    },
  };
}

function contentsOf(
  context: S3Context,
  page: ObjectPage,
  encode: (key: string) => string,
  withOwner: boolean,
): XmlTree {
  const owner = withOwner ? { ID: context.request.principal.accountId } : null;
  return {
    Contents: page.objects.map((object: ObjectInfo) => ({
      Key: encode(object.key),
      LastModified: isoTime(object.modifiedAt),
      ETag: `"${object.etag}"`,
      ChecksumAlgorithm: object.checksum?.algorithm,
      ChecksumType: object.checksum?.type,
      Size: object.sizeBytes,
      StorageClass: 'STANDARD',
      Owner: owner,
    })),
    CommonPrefixes: page.commonPrefixes.map((prefix) => ({ Prefix: encode(prefix) })),
  };
}
