import type { Hasher } from '../hasher.ts';
import { webCryptoHasher } from '../webcrypto-hasher.ts';
import { binaryBytes, encodeUtf8, equalsConstantTime, fromBinary } from './bytes.ts';
import { canonicalValue, decodeFormPart, type QueryPair, splitQuery, splitTarget } from './canonical.ts';
import {
  type AccessKey,
  collectHeaders,
  findKey,
  type KeyLookup,
  type RawRequest,
  refuseRepeatedHeaders,
  rejectionAsValue,
  type SignatureFailure,
  SignatureRejection,
} from './raw-request.ts';

/**
 * Presigned URLs of version 2, which boto3 and the AWS CLI v1 still make by default for S3. The version is weaker
 * than SigV4 by design: query parameters outside the list below (`prefix`, `list-type`) are not signed.
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/RESTAuthentication.html
 */
export interface VerifySigV2Options {
  /** Epoch milliseconds. */
  now: number;
  /** Must offer `hmacSha1`. @default webCryptoHasher */
  hasher?: Hasher;
  /** Bucket named by the Host header, when the request is virtual-host style. */
  virtualBucket?: string;
}

export interface VerifiedSigV2<K extends AccessKey = AccessKey> {
  ok: true;
  key: K;
  accessKeyId: string;
  query: readonly (readonly [name: string, value: string])[];
}

/** Parameters that name what is acted on, or that change the answer: part of the signed resource. */
const SIGNED_PARAMETERS = new Set(
  (
    'accelerate acl analytics cors defaultObjectAcl delete inventory lifecycle location logging metrics notification ' +
    'object-lock partNumber policy replication requestPayment response-cache-control response-content-disposition ' +
    'response-content-encoding response-content-language response-content-type response-expires restore select ' +
    'select-type storageClass tagging torrent uploadId uploads versionId versioning versions website'
  ).split(' '),
);

/** True for a query with any part of a presigned SigV2 URL. */
export const isSigV2Query = (target: string): boolean =>
  splitQuery(splitTarget(target).rawQuery).some(
    ([name]) => name === 'AWSAccessKeyId' || name === 'Signature',
  );

/** Verifies a presigned SigV2 URL (S3 only). Failures are values as in {@link verifySignature}. */
export function verifySigV2Query<K extends AccessKey>(
  request: RawRequest,
  lookup: KeyLookup<K>,
  options: VerifySigV2Options,
): Promise<VerifiedSigV2<K> | SignatureFailure> {
  return rejectionAsValue(async () => {
    const { hasher = webCryptoHasher, now } = options;
    if (!hasher.hmacSha1) throw new TypeError('verifySigV2Query needs a Hasher with hmacSha1');
    const { path, rawQuery } = splitTarget(request.target);
    const query = splitQuery(rawQuery);
    const headers = collectHeaders(request.rawHeaders);
    refuseRepeatedHeaders(headers);
    if (headers.has('authorization') || query.some(([name]) => name.startsWith('X-Amz-'))) {
      throw new SignatureRejection(
        'ambiguous',
        'A SigV2 query was sent together with another authentication',
      );
    }
    const accessKeyId = single(query, 'AWSAccessKeyId');
    const signature = single(query, 'Signature');
    const expires = single(query, 'Expires');
    if (!/^\d{1,12}$/.test(expires)) throw malformed(`Expires is '${expires}'; it must be epoch seconds`);
    if (now >= Number(expires) * 1000) {
      throw new SignatureRejection('expired', 'Request has expired', {
        expiresAt: Number(expires) * 1000,
        now,
      });
    }

    const amz = amzValues(headers, query);
    const key = await findKey(accessKeyId, amz.get('x-amz-security-token'), lookup, now, equalsConstantTime);
    const textFor = (resource: string) =>
      [
        request.method,
        headers.get('content-md5')?.[0] ?? optional(query, 'content-md5') ?? '',
        headers.get('content-type')?.[0] ?? optional(query, 'content-type') ?? '',
        expires,
        ...[...amz.keys()].sort().map((name) => `${name}:${amz.get(name)}`),
        resource + signedParameters(rawQuery),
      ].join('\n');
    const resource = (options.virtualBucket === undefined ? '' : `/${options.virtualBucket}`) + path;
    // boto3 asks for `/bucket` and signs `/bucket/`; both name the bucket.
    const resources = /^\/[^/]+$/.test(resource) ? [resource, `${resource}/`] : [resource];
    const secret = encodeUtf8(key.secretAccessKey);
    let matches = false;
    for (const candidate of resources) {
      const mac = await hasher.hmacSha1(secret, binaryBytes(textFor(candidate)));
      if (equalsConstantTime(btoa(String.fromCharCode(...mac)), signature)) matches = true;
    }
    if (!matches) {
      throw new SignatureRejection(
        'bad_signature',
        `The signature does not match the request. Check the secret key of '${accessKeyId}', the method and the headers.`,
        { accessKeyId, stringToSign: textFor(resource) },
      );
    }
    return {
      ok: true,
      key,
      accessKeyId,
      query: query.map(([name, value]) => [fromBinary(name), fromBinary(value)] as const),
    };
  });
}

const malformed = (message: string) => new SignatureRejection('malformed', message);

function optional(query: readonly QueryPair[], name: string): string | undefined {
  const found = query.filter(([key]) => key === name);
  if (found.length > 1) throw malformed(`Query parameter ${name} is there ${found.length} times`);
  return found[0]?.[1];
}

function single(query: readonly QueryPair[], name: string): string {
  const value = optional(query, name);
  if (value === undefined) throw malformed(`Query parameter ${name} is missing`);
  return value;
}

/** boto3 moves `x-amz-*` headers into the query when it presigns; either place counts, and both when they agree. */
function amzValues(
  headers: ReadonlyMap<string, readonly string[]>,
  query: readonly QueryPair[],
): Map<string, string> {
  const values = new Map<string, string>();
  for (const [name, lines] of headers) {
    if (name.startsWith('x-amz-')) values.set(name, lines.map(canonicalValue).join(','));
  }
  for (const [name, value] of query) {
    if (!name.startsWith('x-amz-')) continue;
    if ((values.get(name) ?? value) !== value) throw malformed(`${name} differs between header and query`);
    values.set(name, value);
  }
  return values;
}

/** Values are signed decoded, so that one holding `&` could pass for two parameters: refused. */
function signedParameters(rawQuery: string): string {
  const signed = rawQuery
    .split('&')
    .map((part) => part.split(/=(.*)/s, 2).map(decodeFormPart))
    .filter(([name]) => SIGNED_PARAMETERS.has(name!))
    .sort(([a], [b]) => (a! < b! ? -1 : a! > b! ? 1 : 0))
    .map(([name, value]) => {
      if (value?.includes('&')) {
        throw new SignatureRejection(
          'unsupported',
          `${name} holds '&', which SigV2 cannot sign safely; use SigV4`,
        );
      }
      return value === undefined ? name : `${name}=${value}`;
    });
  return signed.length > 0 ? `?${signed.join('&')}` : '';
}
