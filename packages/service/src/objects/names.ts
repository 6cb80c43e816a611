import { ObjectStoreError } from './errors.ts';

export const MAX_KEY_BYTES = 1024;

const RESERVED_PREFIXES = ['xn--', 'sthree-', 'amzn-s3-demo-'];
const RESERVED_SUFFIXES = ['-s3alias', '--ol-s3', '.mrap', '--x-s3', '--table-s3'];

/**
 * The rule that a bucket name breaks, or null.
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
 */
export function bucketNameProblem(name: string): string | null {
  if (name.length < 3 || name.length > 63) return `has ${name.length} characters; 3 to 63 are allowed`;
  if (!/^[a-z0-9][a-z0-9.-]*[a-z0-9]$/.test(name)) {
    return 'must consist of lower-case letters, digits, dots and hyphens and begin and end with a letter or digit';
  }
  if (name.includes('..')) return 'must not have two dots in a row';
  if (/^\d+\.\d+\.\d+\.\d+$/.test(name)) return 'must not look like an IP address';
  const reserved =
    RESERVED_PREFIXES.find((prefix) => name.startsWith(prefix)) ??
    RESERVED_SUFFIXES.find((suffix) => name.endsWith(suffix));
  return reserved === undefined ? null : `must not begin or end with ${reserved}, which S3 reserves`;
}

export function assertBucketName(name: string): void {
  const problem = bucketNameProblem(name);
  if (problem === null) return;
  throw new ObjectStoreError('InvalidBucketName', `The bucket name ${JSON.stringify(name)} ${problem}.`, {
    BucketName: name,
  });
}

/** Keys are data, never paths: any well-formed text of 1 to 1024 UTF-8 bytes is one. */
export function assertKey(key: string): void {
  if (key === '' || !key.isWellFormed()) {
    throw new ObjectStoreError(
      'InvalidArgument',
      'An object key must be well-formed text of at least one character.',
    );
  }
  const size = Buffer.byteLength(key);
  if (size > MAX_KEY_BYTES) {
    throw new ObjectStoreError(
      'KeyTooLongError',
      `The key has ${size} bytes; at most ${MAX_KEY_BYTES} are allowed.`,
      {
        Size: size,
        MaxSizeAllowed: MAX_KEY_BYTES,
      },
    );
  }
}

/** Orders text by its UTF-8 bytes, as S3 and SQLite do; JavaScript compares UTF-16 units. */
export function compareKeys(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/**
 * The least text that is greater than every text beginning with `prefix`, or null when there is none.
 * UTF-8 bytes order as code points do, so the last code point is advanced.
 */
export function afterPrefix(prefix: string): string | null {
  const points = Array.from(prefix); // code points, not UTF-16 units
  while (points.length > 0) {
    const point = points.pop()!.codePointAt(0)!;
    if (point === 0x10ffff) continue;
    const next = point === 0xd7ff ? 0xe000 : point + 1; // surrogates are no characters
    return points.join('') + String.fromCodePoint(next);
  }
  return null;
}
