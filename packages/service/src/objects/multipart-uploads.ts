import { randomBytes } from 'node:crypto';
import type { BlobDirectory } from './blobs.ts';
import type { ChecksumAlgorithm, ChecksumType } from './checksums.ts';
import {
  assertExpected,
  type CompleteUploadInput,
  chooseParts,
  joinParts,
  MAX_PART_NUMBER,
  type PartRow,
  type UploadInfo,
} from './complete-parts.ts';
import { ObjectStoreError } from './errors.ts';
import { assertKey } from './names.ts';
import type { ObjectIndex } from './object-index.ts';
import type { BodyInput, ObjectInfo } from './object-store.ts';
import { commitBlobs, storeBody } from './store-body.ts';

export interface PartInfo {
  partNumber: number;
  sizeBytes: number;
  etag: string;
  /** Base64, by the algorithm of the upload. */
  checksum: string | null;
  modifiedAt: number;
}

export interface CreateUploadInput {
  bucket: string;
  key: string;
  metadata: Readonly<Record<string, string>>;
  checksum: { algorithm: ChecksumAlgorithm; type: ChecksumType } | null;
}

export interface PutPartInput extends BodyInput {
  bucket: string;
  key: string;
  uploadId: string;
  partNumber: number;
}

/** Uploads in parts. The parts become the object's blobs as they are: completing moves no bytes. */
export class MultipartUploads {
  readonly #blobs: BlobDirectory;
  readonly #index: ObjectIndex;
  readonly #now: () => number;

  constructor(blobs: BlobDirectory, index: ObjectIndex, now: () => number) {
    this.#blobs = blobs;
    this.#index = index;
    this.#now = now;
  }

  create(input: CreateUploadInput): UploadInfo {
    assertKey(input.key);
    const upload: UploadInfo = {
      id: randomBytes(24).toString('base64url'),
      bucket: input.bucket,
      key: input.key,
      metadata: input.metadata,
      checksumAlgorithm: input.checksum?.algorithm ?? null,
      checksumType: input.checksum?.type ?? null,
      initiatedAt: this.#now(),
    };
    this.#index.transaction(() => {
      this.#index.requireBucket(input.bucket);
      this.#index
        .sql(
          'INSERT INTO multipart_uploads (id, bucket, key, metadata, checksum_algorithm, checksum_type, initiated_at) VALUES (?, ?, ?, ?, ?, ?, ?)',
        )
        .run(
          upload.id,
          upload.bucket,
          upload.key,
          JSON.stringify(upload.metadata),
          upload.checksumAlgorithm,
          upload.checksumType,
          upload.initiatedAt,
        );
    });
    return upload;
  }

  /** @throws NoSuchUpload */
  require(bucket: string, key: string, uploadId: string): UploadInfo {
    this.#index.requireBucket(bucket);
    const row = this.#index.row<UploadRow>(
      `SELECT ${UPLOAD_COLUMNS} FROM multipart_uploads WHERE id = ? AND bucket = ? AND key = ?`,
      uploadId,
      bucket,
      key,
    );
    if (row) return toUpload(row);
    throw new ObjectStoreError(
      'NoSuchUpload',
      'There is no such multipart upload for this key: the upload id is wrong, or it was completed or aborted.',
      { UploadId: uploadId },
    );
  }

  /** Stores one part; an earlier part of the same number is replaced. */
  async putPart(input: PutPartInput): Promise<PartInfo> {
    const { bucket, key, uploadId, partNumber } = input;
    const upload = this.require(bucket, key, uploadId);
    const algorithm = upload.checksumAlgorithm;
    const sent = input.checksum?.algorithm;
    if (algorithm !== null && sent !== undefined && sent !== algorithm) {
      throw new ObjectStoreError(
        'InvalidRequest',
        `Checksum Type mismatch occurred, expected checksum Type: ${algorithm.toLowerCase()}, actual checksum Type: ${sent.toLowerCase()}`,
      );
    }
    const checksum = input.checksum ?? (algorithm ? { algorithm } : undefined);
    return storeBody(this.#blobs, { ...input, checksum }, (body) => {
      const part: PartInfo = {
        partNumber,
        sizeBytes: body.sizeBytes,
        etag: body.etag,
        checksum: algorithm === null ? null : body.checksum,
        modifiedAt: this.#now(),
      };
      return { result: part, removed: this.#replacePart(input, part, body.blob) };
    });
  }

  /** Parts after a number, in order. */
  parts(uploadId: string, after = 0, limit = MAX_PART_NUMBER): PartInfo[] {
    return this.#index.rows<PartInfo>(
      'SELECT part_number AS partNumber, size_bytes AS sizeBytes, etag, checksum, modified_at AS modifiedAt FROM multipart_parts WHERE upload = ? AND part_number > ? ORDER BY part_number LIMIT ?',
      uploadId,
      after,
      limit,
    );
  }

  /** Uploads of a bucket in the order of key, then id, after a given pair. */
  list(bucket: string, prefix: string, after: { key: string; id: string }, limit: number): UploadInfo[] {
    this.#index.requireBucket(bucket);
    const rows = this.#index.rows<UploadRow>(
      `SELECT ${UPLOAD_COLUMNS} FROM multipart_uploads WHERE bucket = ? AND (key, id) > (?, ?) AND substr(key, 1, length(?)) = ? ORDER BY key, id LIMIT ?`,
      bucket,
      after.key,
      after.id,
      prefix,
      prefix,
      limit,
    );
    return rows.map(toUpload);
  }

  /** Makes the object of the listed parts. Repeating it succeeds as long as that object is the current one. */
  async complete(input: CompleteUploadInput): Promise<ObjectInfo> {
    const { bucket, key, uploadId } = input;
    const done = this.#index.objectOfUpload(uploadId);
    if (done && done.bucket === bucket && done.key === key) return done;
    return commitBlobs(this.#blobs, [], () =>
      this.#index.transaction(() => {
        const upload = this.require(bucket, key, uploadId);
        const stored = new Map(
          this.#index
            .rows<PartRow>(
              'SELECT part_number, blob, size_bytes, etag, checksum FROM multipart_parts WHERE upload = ?',
              uploadId,
            )
            .map((row) => [row.part_number, row]),
        );
        const chosen = chooseParts(input, stored);
        const object = joinParts(upload, chosen, this.#now());
        assertExpected(input, object);
        const replaced = this.#index.replaceObject(
          object,
          chosen.map((row) => ({ blob: row.blob, sizeBytes: row.size_bytes, checksum: row.checksum })),
          input.condition,
        );
        const kept = new Set(chosen);
        const unused = [...stored.values()].filter((row) => !kept.has(row)).map((row) => row.blob);
        this.#index.sql('DELETE FROM multipart_uploads WHERE id = ?').run(uploadId);
        return { result: object, removed: [...replaced, ...unused] };
      }),
    );
  }

  /** @throws NoSuchUpload */
  async abort(bucket: string, key: string, uploadId: string): Promise<void> {
    const removed = this.#index.transaction(() => {
      this.require(bucket, key, uploadId);
      return this.#remove(uploadId);
    });
    await this.#blobs.remove(removed);
  }

  /** Aborts uploads of which nothing has arrived since `before` (epoch milliseconds). @returns how many. */
  async abortIdleSince(before: number): Promise<number> {
    const { idle, removed } = this.#index.transaction(() => {
      const idle = this.#index.rows<{ id: string }>(
        'SELECT id FROM multipart_uploads WHERE initiated_at < ? AND NOT EXISTS (SELECT 1 FROM multipart_parts WHERE upload = id AND modified_at >= ?)',
        before,
        before,
      );
      return { idle, removed: idle.flatMap((upload) => this.#remove(upload.id)) };
    });
    await this.#blobs.remove(removed);
    return idle.length;
  }

  #replacePart(input: PutPartInput, part: PartInfo, blob: string): string[] {
    const { bucket, key, uploadId } = input;
    return this.#index.transaction(() => {
      this.require(bucket, key, uploadId); // it may have ended while the body was on its way
      const replaced = this.#index.rows<{ blob: string }>(
        'SELECT blob FROM multipart_parts WHERE upload = ? AND part_number = ?',
        uploadId,
        part.partNumber,
      );
      this.#index
        .sql(
          'INSERT OR REPLACE INTO multipart_parts (upload, part_number, blob, size_bytes, etag, checksum, modified_at) VALUES (?, ?, ?, ?, ?, ?, ?)',
        )
        .run(uploadId, part.partNumber, blob, part.sizeBytes, part.etag, part.checksum, part.modifiedAt);
      return replaced.map((row) => row.blob);
    });
  }

  #remove(uploadId: string): string[] {
    const parts = this.#index.rows<{ blob: string }>(
      'SELECT blob FROM multipart_parts WHERE upload = ?',
      uploadId,
    );
    this.#index.sql('DELETE FROM multipart_uploads WHERE id = ?').run(uploadId);
    return parts.map((part) => part.blob);
  }
}

interface UploadRow {
  id: string;
  bucket: string;
  key: string;
  metadata: string;
  checksum_algorithm: ChecksumAlgorithm | null;
  checksum_type: ChecksumType | null;
  initiated_at: number;
}

const UPLOAD_COLUMNS = 'id, bucket, key, metadata, checksum_algorithm, checksum_type, initiated_at';

function toUpload(row: UploadRow): UploadInfo {
  return {
    id: row.id,
    bucket: row.bucket,
    key: row.key,
    metadata: JSON.parse(row.metadata),
    checksumAlgorithm: row.checksum_algorithm,
    checksumType: row.checksum_type,
    initiatedAt: row.initiated_at,
  };
}
