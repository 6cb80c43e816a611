import type { SQLInputValue, StatementSync } from 'node:sqlite';
import type { Database } from '../store/database.ts';
import type { ChecksumAlgorithm, ChecksumType, ObjectChecksum } from './checksums.ts';
import { ObjectStoreError, withDiskFull } from './errors.ts';
import type { BucketInfo, ObjectInfo, StorageUsage, WriteCondition } from './object-store.ts';

/** A blob as part of an object. */
export interface IndexedBlob {
  blob: string;
  sizeBytes: number;
  checksum: string | null;
}

export interface IndexedObject extends ObjectInfo {
  uploadId: string | null;
}

interface ObjectRow {
  id: number;
  bucket: string;
  key: string;
  size_bytes: number;
  etag: string;
  modified_at: number;
  metadata: string;
  checksum_algorithm: ChecksumAlgorithm | null;
  checksum_type: ChecksumType | null;
  checksum_value: string | null;
  part_count: number | null;
  upload_id: string | null;
}

const OBJECT_COLUMNS =
  'id, bucket, key, size_bytes, etag, modified_at, metadata, checksum_algorithm, checksum_type, checksum_value, part_count, upload_id';

/** Rows of buckets and objects. Every change is one transaction; nothing here touches files. */
export class ObjectIndex {
  readonly #database: Database;
  readonly #statements = new Map<string, StatementSync>();

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws InsufficientStorage when the disk has no room for the change; nothing has changed then */
  transaction<T>(work: () => T): T {
    try {
      return this.#database.transaction(work);
    } catch (error) {
      throw withDiskFull(error);
    }
  }

  /** A prepared statement, made once per text. */
  sql(text: string): StatementSync {
    let statement = this.#statements.get(text);
    if (statement === undefined) {
      statement = this.#database.sql.prepare(text);
      this.#statements.set(text, statement);
    }
    return statement;
  }

  rows<Row>(text: string, ...values: SQLInputValue[]): Row[] {
    return this.sql(text).all(...values) as Row[];
  }

  row<Row>(text: string, ...values: SQLInputValue[]): Row | undefined {
    return this.sql(text).get(...values) as Row | undefined;
  }

  bucket(name: string): BucketInfo | undefined {
    return this.row<BucketInfo>(
      'SELECT name, region, created_at AS createdAt FROM buckets WHERE name = ?',
      name,
    );
  }

  requireBucket(name: string): BucketInfo {
    const bucket = this.bucket(name);
    if (bucket) return bucket;
    throw new ObjectStoreError('NoSuchBucket', `The bucket ${name} does not exist. Create it first.`, {
      BucketName: name,
    });
  }

  buckets(prefix: string, after: string, limit: number): BucketInfo[] {
    return this.rows<BucketInfo>(
      'SELECT name, region, created_at AS createdAt FROM buckets WHERE name > ? AND substr(name, 1, length(?)) = ? ORDER BY name LIMIT ?',
      after,
      prefix,
      prefix,
      limit,
    );
  }

  object(bucket: string, key: string): IndexedObject | undefined {
    const row = this.#objectRow(bucket, key);
    return row && toObject(row);
  }

  objectOfUpload(uploadId: string): IndexedObject | undefined {
    const row = this.row<ObjectRow>(`SELECT ${OBJECT_COLUMNS} FROM objects WHERE upload_id = ?`, uploadId);
    return row && toObject(row);
  }

  /** Objects with keys from `from` on, in key order; stop iterating as soon as you have enough. */
  *objectsFrom(bucket: string, from: string, limit: number): Generator<ObjectInfo> {
    const statement = this.sql(
      `SELECT ${OBJECT_COLUMNS} FROM objects WHERE bucket = ? AND key >= ? ORDER BY key LIMIT ?`,
    );
    for (const row of statement.iterate(bucket, from, limit)) yield toObject(row as unknown as ObjectRow);
  }

  blobs(bucket: string, key: string): IndexedBlob[] {
    const row = this.#objectRow(bucket, key);
    return row ? this.#blobsOf(row.id) : [];
  }

  /** Puts an object in place of the one it overwrites. @returns the blobs that nothing refers to any more. */
  replaceObject(
    object: IndexedObject,
    blobs: readonly IndexedBlob[],
    condition: WriteCondition = {},
  ): string[] {
    return this.transaction(() => {
      this.requireBucket(object.bucket);
      const removed = this.#removeObject(object.bucket, object.key, condition);
      const { checksum } = object;
      const { lastInsertRowid } = this.sql(
        'INSERT INTO objects (bucket, key, size_bytes, etag, modified_at, metadata, checksum_algorithm, checksum_type, checksum_value, part_count, upload_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
      ).run(
        object.bucket,
        object.key,
        object.sizeBytes,
        object.etag,
        object.modifiedAt,
        JSON.stringify(object.metadata),
        checksum?.algorithm ?? null,
        checksum?.type ?? null,
        checksum?.value ?? null,
        object.partCount,
        object.uploadId,
      );
      const insert = this.sql(
        'INSERT INTO object_blobs (object, position, blob, size_bytes, checksum) VALUES (?, ?, ?, ?, ?)',
      );
      blobs.forEach((part, position) => {
        insert.run(lastInsertRowid, position, part.blob, part.sizeBytes, part.checksum);
      });
      return removed;
    });
  }

  /** @returns the blobs that nothing refers to any more. */
  deleteObject(bucket: string, key: string, condition: WriteCondition = {}): string[] {
    return this.transaction(() => {
      this.requireBucket(bucket);
      return this.#removeObject(bucket, key, condition);
    });
  }

  /** @throws NoSuchKey or PreconditionFailed */
  assertCondition(bucket: string, key: string, condition: WriteCondition): void {
    if (!condition.ifAbsent && !condition.ifMatch) return;
    const current = this.#objectRow(bucket, key);
    if (condition.ifAbsent && current) {
      throw new ObjectStoreError(
        'PreconditionFailed',
        'If-None-Match: * was asked for, but the object exists.',
        {
          Condition: 'If-None-Match',
        },
      );
    }
    if (!condition.ifMatch) return;
    if (!current) {
      throw new ObjectStoreError('NoSuchKey', 'If-Match was asked for, but there is no such object.', {
        Key: key,
      });
    }
    if (!condition.ifMatch.includes('*') && !condition.ifMatch.includes(current.etag)) {
      throw new ObjectStoreError(
        'PreconditionFailed',
        `If-Match asked for ${condition.ifMatch.join(', ')}, but the object has the etag ${current.etag}.`,
        { Condition: 'If-Match' },
      );
    }
  }

  /** Blob names in use that begin with two hexadecimal digits. */
  referencedBlobs(shard: string): Set<string> {
    const upper = `${shard}g`; // greater than every name with this beginning
    const rows = this.rows<{ blob: string }>(
      'SELECT blob FROM object_blobs WHERE blob >= ? AND blob < ? UNION ALL SELECT blob FROM multipart_parts WHERE blob >= ? AND blob < ?',
      shard,
      upper,
      shard,
      upper,
    );
    return new Set(rows.map((row) => row.blob));
  }

  usage(): Omit<StorageUsage, 'freeBytes'> {
    return this.row<Omit<StorageUsage, 'freeBytes'>>(
      `SELECT (SELECT count(*) FROM buckets) AS bucketCount,
              (SELECT count(*) FROM objects) AS objectCount,
              (SELECT coalesce(sum(size_bytes), 0) FROM objects) AS objectBytes,
              (SELECT coalesce(sum(size_bytes), 0) FROM multipart_parts) AS pendingUploadBytes`,
    )!;
  }

  #objectRow(bucket: string, key: string): ObjectRow | undefined {
    return this.row<ObjectRow>(
      `SELECT ${OBJECT_COLUMNS} FROM objects WHERE bucket = ? AND key = ?`,
      bucket,
      key,
    );
  }

  #blobsOf(object: number): IndexedBlob[] {
    return this.rows<IndexedBlob>(
      'SELECT blob, size_bytes AS sizeBytes, checksum FROM object_blobs WHERE object = ? ORDER BY position',
      object,
    );
  }

  #removeObject(bucket: string, key: string, condition: WriteCondition): string[] {
    this.assertCondition(bucket, key, condition);
    const current = this.#objectRow(bucket, key);
    if (!current) return [];
    const removed = this.#blobsOf(current.id).map((part) => part.blob);
    this.sql('DELETE FROM objects WHERE id = ?').run(current.id);
    return removed;
  }
}

export function toChecksum(row: {
  checksum_algorithm: ChecksumAlgorithm | null;
  checksum_type: ChecksumType | null;
  checksum_value: string | null;
}): ObjectChecksum | null {
  const { checksum_algorithm: algorithm, checksum_type: type, checksum_value: value } = row;
  return algorithm && type && value !== null ? { algorithm, type, value } : null;
}

function toObject(row: ObjectRow): IndexedObject {
  return {
    bucket: row.bucket,
    key: row.key,
    sizeBytes: row.size_bytes,
    etag: row.etag,
    modifiedAt: row.modified_at,
    metadata: JSON.parse(row.metadata),
    checksum: toChecksum(row),
    partCount: row.part_count,
    uploadId: row.upload_id,
  };
}
