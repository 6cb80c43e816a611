import { S3Error } from './errors.ts';

/** What a request names. */
export interface S3Address {
  /** Null for the service itself. */
  bucket: string | null;
  /** Null for a bucket or the service. */
  key: string | null;
  query: ReadonlyMap<string, string>;
}

/**
 * Reads path and query as sent: S3 keys may contain `..`, `//` and a trailing `/`, so nothing is normalised. The
 * bucket is the part of the host before a base domain, else the first segment of the path.
 *
 * @throws S3Error InvalidURI when the percent-encoding is broken or not UTF-8
 */
export function parseAddress(rawTarget: string, host: string, baseDomains: readonly string[]): S3Address {
  const at = rawTarget.indexOf('?');
  const path = at < 0 ? rawTarget : rawTarget.slice(0, at);
  const query = parseQuery(at < 0 ? '' : rawTarget.slice(at + 1));
  const virtualBucket = bucketOfHost(host, baseDomains);
  if (virtualBucket !== null) return { bucket: virtualBucket, key: decode(path.slice(1)) || null, query };
  const slash = path.indexOf('/', 1);
  const bucket = decode(slash < 0 ? path.slice(1) : path.slice(1, slash));
  const key = slash < 0 ? '' : decode(path.slice(slash + 1));
  if (bucket === '' && key !== '') {
    throw new S3Error('InvalidBucketName', 'The path names no bucket: it begins with two slashes.');
  }
  return { bucket: bucket || null, key: key || null, query };
}

/** `data.sets` of `data.sets.localhost:9400`; null when the host is a base domain itself or none of ours. */
export function bucketOfHost(host: string, baseDomains: readonly string[]): string | null {
  const name = host.replace(/:\d+$/, '').toLowerCase();
  const base = baseDomains.find((domain) => name.endsWith(`.${domain.toLowerCase()}`));
  return base === undefined ? null : name.slice(0, -base.length - 1) || null;
}

/** The first value of each name; a name without `=` has the value ''. */
function parseQuery(query: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    const at = pair.indexOf('=');
    const name = decode((at < 0 ? pair : pair.slice(0, at)).replaceAll('+', ' '));
    if (!values.has(name)) values.set(name, at < 0 ? '' : decode(pair.slice(at + 1).replaceAll('+', ' ')));
  }
  return values;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new S3Error(
      'InvalidURI',
      `The percent-encoding of ${JSON.stringify(text.slice(0, 100))} is broken or not UTF-8.`,
    );
  }
}

/** `x-amz-copy-source`: bucket and key, percent-encoded, with or without a leading slash. */
export function parseCopySource(header: string): { bucket: string; key: string } {
  const [path = '', version] = header.replace(/^\//, '').split('?versionId=', 2);
  if (version !== undefined && version !== 'null') {
    throw new S3Error(
      'NotImplemented',
      'x-amz-copy-source names a version; versions of objects are not kept.',
    );
  }
  const slash = path.indexOf('/');
  if (slash <= 0 || slash === path.length - 1) {
    throw new S3Error(
      'InvalidArgument',
      `x-amz-copy-source is ${JSON.stringify(header)}; it must be bucket/key.`,
    );
  }
  return { bucket: decode(path.slice(0, slash)), key: decode(path.slice(slash + 1)) };
}
