import { createHash } from 'node:crypto';
import {
  CHECKSUM_ALGORITHMS,
  type ChecksumAlgorithm,
  type ChecksumType,
  isChecksumAlgorithm,
  isChecksumValue,
  type ObjectChecksum,
} from '../../objects/checksums.ts';
import type { RequestedChecksum } from '../../objects/object-store.ts';
import type { S3Body } from './body.ts';
import type { S3Context } from './context.ts';
import { S3Error } from './errors.ts';

const PREFIX = 'x-amz-checksum-';
/** Headers with that prefix that are no checksums. */
const NOT_VALUES = new Set([`${PREFIX}algorithm`, `${PREFIX}type`, `${PREFIX}mode`]);

/**
 * The checksum that comes with a body, in a header or in its trailer. Checksums in the query are left alone:
 * presigned URLs of the JavaScript SDK carry that of an empty body.
 *
 * @throws S3Error InvalidRequest when the headers contradict each other or name an unknown algorithm
 */
export function checksumOfBody(context: S3Context, body: S3Body): RequestedChecksum | undefined {
  const inHeader = Object.keys(context.headers).filter(
    (name) => name.startsWith(PREFIX) && !NOT_VALUES.has(name),
  );
  const inTrailer = body.trailerNames.filter((name) => name.startsWith(PREFIX));
  const [name, second] = [...inHeader, ...inTrailer];
  if (second !== undefined) {
    throw new S3Error(
      'InvalidRequest',
      'Expecting a single x-amz-checksum- header. Multiple checksum types are not allowed.',
    );
  }
  const announced = context.header('x-amz-sdk-checksum-algorithm');
  if (name === undefined) {
    if (announced === undefined) return undefined;
    throw new S3Error(
      'InvalidRequest',
      'x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.',
    );
  }
  const algorithm = algorithmOf(name.slice(PREFIX.length), name);
  if (announced !== undefined && announced.toUpperCase() !== algorithm) {
    throw new S3Error(
      'InvalidRequest',
      `Value for x-amz-sdk-checksum-algorithm header is invalid: ${announced} was announced, ${name} was sent.`,
    );
  }
  const checked = (value: string | undefined) => {
    if (value !== undefined && isChecksumValue(algorithm, value)) return value;
    throw new S3Error('InvalidRequest', `Value for ${name} header is invalid.`);
  };
  if (inTrailer.length > 0) return { algorithm, expected: () => checked(body.trailer(name)) };
  const value = checked(context.header(name));
  return { algorithm, expected: () => value };
}

/** `Content-MD5` in base64. @throws S3Error InvalidDigest */
export function contentMd5(context: S3Context): string | undefined {
  const value = context.header('content-md5');
  if (
    value === undefined ||
    (Buffer.from(value, 'base64').toString('base64') === value && Buffer.from(value, 'base64').length === 16)
  ) {
    return value;
  }
  throw new S3Error('InvalidDigest', `The Content-MD5 ${JSON.stringify(value)} is not 16 bytes in base64.`);
}

/** Checks a document that was read as a whole. @returns whether its headers carried any digest of it. */
export function verifyDocument(context: S3Context, document: Buffer, body: S3Body): boolean {
  const md5 = contentMd5(context);
  const checksum = checksumOfBody(context, body);
  if (checksum) {
    const running = CHECKSUM_ALGORITHMS[checksum.algorithm].start();
    running.update(document);
    if (running.digest().toString('base64') !== checksum.expected?.()) {
      throw new S3Error(
        'BadDigest',
        `The ${checksum.algorithm} you specified did not match the calculated checksum.`,
      );
    }
  }
  if (md5 !== undefined && createHash('md5').update(document).digest('base64') !== md5) {
    throw new S3Error('BadDigest', 'The Content-MD5 you specified did not match what we received.');
  }
  return md5 !== undefined || checksum !== undefined;
}

/** What a multipart upload or a copy asks for by `x-amz-checksum-algorithm` and `x-amz-checksum-type`. */
export function requestedAlgorithm(
  context: S3Context,
): { algorithm: ChecksumAlgorithm; type: ChecksumType } | null {
  const name = context.header('x-amz-checksum-algorithm');
  const type = context.header('x-amz-checksum-type');
  if (name === undefined) {
    if (type === undefined) return null;
    throw new S3Error(
      'InvalidRequest',
      'The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.',
    );
  }
  const algorithm = algorithmOf(name, 'x-amz-checksum-algorithm');
  const { multipartTypes } = CHECKSUM_ALGORITHMS[algorithm];
  const chosen =
    type === undefined ? multipartTypes[0] : multipartTypes.find((one) => one === type.toUpperCase());
  if (chosen) return { algorithm, type: chosen };
  throw new S3Error(
    'InvalidRequest',
    `The ${type} checksum type cannot be used with the ${algorithm.toLowerCase()} checksum algorithm; ${multipartTypes.join(' and ')} can.`,
  );
}

/** Expected checksum of a whole object, as CompleteMultipartUpload carries it. */
export function expectedObjectChecksum(
  context: S3Context,
): { algorithm: ChecksumAlgorithm; value: string } | undefined {
  const names = Object.keys(context.headers).filter(
    (name) => name.startsWith(PREFIX) && !NOT_VALUES.has(name),
  );
  const [name, second] = names;
  if (name === undefined) return undefined;
  if (second !== undefined) throw new S3Error('InvalidRequest', 'Expecting a single x-amz-checksum- header.');
  return { algorithm: algorithmOf(name.slice(PREFIX.length), name), value: context.header(name) ?? '' };
}

/** The headers that show a stored checksum. */
export function checksumHeaders(checksum: ObjectChecksum | null): Record<string, string> {
  if (checksum === null) return {};
  return { [PREFIX + checksum.algorithm.toLowerCase()]: checksum.value, [`${PREFIX}type`]: checksum.type };
}

/** The elements that show a stored checksum. */
export function checksumElements(checksum: ObjectChecksum | null): Record<string, string> {
  return checksum === null
    ? {}
    : { [`Checksum${checksum.algorithm}`]: checksum.value, ChecksumType: checksum.type };
}

function algorithmOf(name: string, header: string): ChecksumAlgorithm {
  const algorithm = name.toUpperCase();
  if (isChecksumAlgorithm(algorithm)) return algorithm;
  throw new S3Error(
    'InvalidRequest',
    `Checksum algorithm provided is unsupported. ${header} names ${name}; valid are ${Object.keys(CHECKSUM_ALGORITHMS).join(', ')}.`,
  );
}
