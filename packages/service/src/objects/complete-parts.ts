import { createHash } from 'node:crypto';
import {
  type ChecksumAlgorithm,
  type ChecksumType,
  joinPartChecksums,
  type ObjectChecksum,
} from './checksums.ts';
import { ObjectStoreError } from './errors.ts';
import type { IndexedObject } from './object-index.ts';
import type { ObjectInfo, WriteCondition } from './object-store.ts';

/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html */
export const MAX_PART_NUMBER = 10_000;
export const MIN_PART_BYTES = 5 * 1024 * 1024;

export interface UploadInfo {
  id: string;
  bucket: string;
  key: string;
  metadata: Readonly<Record<string, string>>;
  checksumAlgorithm: ChecksumAlgorithm | null;
  checksumType: ChecksumType | null;
  initiatedAt: number;
}

export interface CompleteUploadInput {
  bucket: string;
  key: string;
  uploadId: string;
  /** `checksum` is compared when given. */
  parts: readonly { partNumber: number; etag: string; checksum?: string | undefined }[];
  /** Expected checksum of the object, base64 or `base64-N`. */
  expectedChecksum?: { algorithm: ChecksumAlgorithm; value: string } | undefined;
  /** Expected size of the object. */
  expectedBytes?: number | undefined;
  condition?: WriteCondition | undefined;
}

/** A stored part. */
export interface PartRow {
  part_number: number;
  blob: string;
  size_bytes: number;
  etag: string;
  checksum: string | null;
}

/** The stored parts that a completion lists. @throws InvalidPartOrder, InvalidPart, EntityTooSmall */
export function chooseParts(input: CompleteUploadInput, stored: ReadonlyMap<number, PartRow>): PartRow[] {
  let last = 0;
  const chosen = input.parts.map((wanted) => {
    if (wanted.partNumber <= last) {
      throw new ObjectStoreError(
        'InvalidPartOrder',
        `Part ${wanted.partNumber} comes after part ${last}; parts must be listed in ascending order, each once.`,
      );
    }
    last = wanted.partNumber;
    const part = stored.get(wanted.partNumber);
    const problem = !part
      ? 'was not uploaded'
      : part.etag !== wanted.etag
        ? `has the etag ${part.etag}, not ${wanted.etag}`
        : wanted.checksum !== undefined && part.checksum !== null && part.checksum !== wanted.checksum
          ? `has the checksum ${part.checksum}, not ${wanted.checksum}`
          : null;
    if (!part || problem !== null) {
      throw new ObjectStoreError('InvalidPart', `Part ${wanted.partNumber} ${problem}.`, {
        PartNumber: wanted.partNumber,
        UploadId: input.uploadId,
      });
    }
    return part;
  });
  const small = chosen.slice(0, -1).find((part) => part.size_bytes < MIN_PART_BYTES);
  if (small) {
    throw new ObjectStoreError(
      'EntityTooSmall',
      `Part ${small.part_number} has ${small.size_bytes} bytes; every part but the last needs at least ${MIN_PART_BYTES}.`,
      { PartNumber: small.part_number, ProposedSize: small.size_bytes, MinSizeAllowed: MIN_PART_BYTES },
    );
  }
  return chosen;
}

/** The object that the parts make. */
export function joinParts(upload: UploadInfo, parts: readonly PartRow[], now: number): IndexedObject {
  const md5 = createHash('md5');
  for (const part of parts) md5.update(part.etag, 'hex');
  return {
    bucket: upload.bucket,
    key: upload.key,
    sizeBytes: parts.reduce((sum, part) => sum + part.size_bytes, 0),
    etag: `${md5.digest('hex')}-${parts.length}`,
    modifiedAt: now,
    metadata: upload.metadata,
    checksum: joinChecksum(upload, parts),
    partCount: parts.length,
    uploadId: upload.id,
  };
}

function joinChecksum(upload: UploadInfo, parts: readonly PartRow[]): ObjectChecksum | null {
  const { checksumAlgorithm: algorithm, checksumType: type } = upload;
  if (algorithm === null || type === null) return null;
  const joinable = parts.map((part) => ({ checksum: part.checksum ?? '', sizeBytes: part.size_bytes }));
  return { algorithm, type, value: joinPartChecksums(algorithm, type, joinable) };
}

/** @throws InvalidRequest or BadDigest when the object is not what the client expects */
export function assertExpected(input: CompleteUploadInput, object: ObjectInfo): void {
  const { expectedBytes, expectedChecksum } = input;
  if (expectedBytes !== undefined && expectedBytes !== object.sizeBytes) {
    throw new ObjectStoreError(
      'InvalidRequest',
      `The parts have ${object.sizeBytes} bytes together, but x-amz-mp-object-size says ${expectedBytes}.`,
    );
  }
  if (!expectedChecksum) return;
  // Clients may send the composite value without the number of parts.
  const computed = object.checksum?.value;
  const matches =
    object.checksum?.algorithm === expectedChecksum.algorithm &&
    (computed === expectedChecksum.value || computed === `${expectedChecksum.value}-${input.parts.length}`);
  if (!matches) {
    throw new ObjectStoreError(
      'BadDigest',
      `The ${expectedChecksum.algorithm} you specified (${expectedChecksum.value}) did not match the calculated one (${computed ?? 'none: the upload was created without it'}).`,
    );
  }
}
