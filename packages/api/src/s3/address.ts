import { s3Error } from '../errors.ts';
import { percentEncode, toBinary } from '../sigv4/bytes.ts';

/**
 * Path-style URL of a bucket or object below an endpoint. Every byte of the key outside RFC 3986's unreserved
 * characters is encoded, `/` stays.
 *
 * @throws ServiceError InvalidArgument for a key with a segment `.` or `..`: URLs resolve those, so that `fetch`
 * would ask for another object. It is a refusal like the store's own: asking again does not help.
 */
export function objectUrl(
  endpoint: string,
  bucket: string,
  key?: string,
  query: readonly QueryItem[] = [],
): string {
  const base = endpoint.endsWith('/') ? endpoint.slice(0, -1) : endpoint;
  const path = [bucket, ...(key === undefined ? [] : key.split('/'))].map((segment) => {
    if (segment === '.' || segment === '..') {
      throw s3Error('InvalidArgument', {
        message: `key '${key}' has the segment '${segment}', which a URL cannot carry; rename the object`,
      });
    }
    return encodePart(segment);
  });
  const search = query
    .map(([name, value]) => (value === '' ? name : `${name}=${encodePart(value)}`))
    .join('&');
  return `${base}/${path.join('/')}${search === '' ? '' : `?${search}`}`;
}

export type QueryItem = readonly [name: string, value: string];

const encodePart = (text: string) => percentEncode(toBinary(text));
