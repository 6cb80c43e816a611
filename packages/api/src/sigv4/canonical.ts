import { type BinaryString, fromBinary, percentDecode, percentEncode } from './bytes.ts';

/**
 * The canonical request of SigV4: one text per meaning, made alike by signer and verifier.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 */
export interface CanonicalInput {
  method: string;
  path: BinaryString;
  /** Without the question mark. */
  rawQuery: BinaryString;
  /** Lower-case names in the order of `signedHeaders`. */
  headers: readonly (readonly [name: string, values: readonly BinaryString[]])[];
  payloadHash: string;
  service: string;
}

export type QueryPair = readonly [name: BinaryString, value: BinaryString];

export function canonicalRequest(input: CanonicalInput): BinaryString {
  return [
    input.method,
    canonicalPath(input.path, input.service),
    canonicalQuery(splitQuery(input.rawQuery)),
    ...input.headers.map(([name, values]) => `${name}:${values.map(canonicalValue).join(',')}`),
    '',
    input.headers.map(([name]) => name).join(';'),
    input.payloadHash,
  ].join('\n');
}

/** S3 keys are signed as they stand on the request line; other services resolve dots and encode once more. */
export function canonicalPath(path: BinaryString, service: string): string {
  if (service === 's3') return path || '/';
  const segments: string[] = [];
  for (const segment of path.split('/')) {
    if (segment === '..') segments.pop();
    else if (segment !== '' && segment !== '.') segments.push(percentEncode(segment));
  }
  return `/${segments.join('/')}${segments.length > 0 && path.endsWith('/') ? '/' : ''}`;
}

/** In the order sent; `+` and `%20` are both a space, and a name without `=` has an empty value. */
export function splitQuery(rawQuery: BinaryString): QueryPair[] {
  return rawQuery
    .split('&')
    .filter((part) => part !== '')
    .map((part) => {
      const at = part.indexOf('=');
      const [name, value] = at < 0 ? [part, ''] : [part.slice(0, at), part.slice(at + 1)];
      return [decodeFormPart(name), decodeFormPart(value)] as const;
    });
}

export const decodeFormPart = (part: string) => percentDecode(part.replaceAll('+', ' '));

export function canonicalQuery(pairs: readonly QueryPair[]): string {
  return pairs
    .filter(([name]) => name !== 'X-Amz-Signature')
    .map(([name, value]) => [percentEncode(name), percentEncode(value)] as const)
    .sort(([a, x], [b, y]) => (a === b ? compare(x, y) : compare(a, b)))
    .map(([name, value]) => `${name}=${value}`)
    .join('&');
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

export const canonicalValue = (value: BinaryString): string =>
  value.replace(/[ \t]+/g, ' ').replace(/^ | $/g, '');

export function splitTarget(target: string): { path: BinaryString; rawQuery: BinaryString } {
  const at = target.indexOf('?');
  return at < 0
    ? { path: target, rawQuery: '' }
    : { path: target.slice(0, at), rawQuery: target.slice(at + 1) };
}

/**
 * The query of a request target as the signature understands it: percent-encoding and `+` decoded, in the order
 * sent, repeated names kept. Bytes that are not UTF-8 become U+FFFD.
 */
export const parseQuery = (target: string): (readonly [name: string, value: string])[] =>
  splitQuery(splitTarget(target).rawQuery).map(
    ([name, value]) => [fromBinary(name), fromBinary(value)] as const,
  );
