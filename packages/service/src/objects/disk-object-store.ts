import { statfs } from 'node:fs/promises';
import type { Database } from '../store/database.ts';
import { BlobDirectory, type BlobSlice } from './blobs.ts';
import type { ChecksumAlgorithm, ObjectChecksum } from './checksums.ts';
import { ObjectStoreError, withDiskFull } from './errors.ts';
import { listPage } from './listing.ts';
import { MultipartUploads } from './multipart-uploads.ts';
import { assertBucketName, assertKey } from './names.ts';
import { type IndexedBlob, ObjectIndex } from './object-index.ts';
import type {
  BucketInfo,
  ByteRange,
  ListObjectsInput,
  ObjectInfo,
  ObjectPage,
  ObjectStore,
  OpenObject,
  PutObjectInput,
  StorageUsage,
  WriteCondition,
} from './object-store.ts';
import { type Committed, commitBlobs, storeBody } from './store-body.ts';

/** Multipart uploads of which nothing arrived for so long are aborted at start: their clients are gone. */
const IDLE_UPLOAD_MS = 7 * 24 * 60 * 60 * 1000;

export interface DiskObjectStoreOptions {
  /** `DATA/objects`; created when missing. */
  directory: string;
  database: Database;
  /** Region of buckets that are created without one. */
  region: string;
  /** Epoch milliseconds. @default Date.now */
  now?: () => number;
}

export interface CopyObjectInput {
  source: { bucket: string; key: string };
  bucket: string;
  key: string;
  /** May refuse the source by throwing. */
  acceptSource?: (info: ObjectInfo) => void;
  /** @default that of the source */
  metadata?: Readonly<Record<string, string>>;
  /** @default that of the source */
  checksumAlgorithm?: ChecksumAlgorithm | undefined;
  condition?: WriteCondition | undefined;
}

/** The embedded object store; DESIGN.md tells how it keeps its promises. */
export class DiskObjectStore implements ObjectStore {
  readonly uploads: MultipartUploads;
  readonly #directory: string;
  readonly #region: string;
  readonly #blobs: BlobDirectory;
  readonly #index: ObjectIndex;
  readonly #now: () => number;

  private constructor(options: DiskObjectStoreOptions, blobs: BlobDirectory) {
    this.#directory = options.directory;
    this.#region = options.region;
    this.#now = options.now ?? Date.now;
    this.#blobs = blobs;
    this.#index = new ObjectIndex(options.database);
    this.uploads = new MultipartUploads(blobs, this.#index, this.#now);
  }

  /** Opens the store and removes what a crash left. One process at a time; time grows with the number of blobs. */
  static async open(options: DiskObjectStoreOptions): Promise<DiskObjectStore> {
    const blobs = await BlobDirectory.open(options.directory);
    const store = new DiskObjectStore(options, blobs);
    await store.uploads.abortIdleSince(store.#now() - IDLE_UPLOAD_MS);
    await blobs.sweep((shard) => store.#index.referencedBlobs(shard));
    return store;
  }

  async bucketExists(bucket: string): Promise<boolean> {
    return this.#index.bucket(bucket) !== undefined;
  }

  async ensureBucket(bucket: string): Promise<void> {
    if (!this.#index.bucket(bucket)) await this.createBucket(bucket);
  }

  /** @throws NoSuchBucket */
  async headBucket(bucket: string): Promise<BucketInfo> {
    return this.#index.requireBucket(bucket);
  }

  /** Buckets in order of name. */
  async listBuckets(
    options: { prefix?: string; after?: string; limit?: number } = {},
  ): Promise<BucketInfo[]> {
    return this.#index.buckets(options.prefix ?? '', options.after ?? '', options.limit ?? -1);
  }

  /** @throws BucketAlreadyOwnedByYou, InvalidBucketName */
  async createBucket(bucket: string, region = this.#region): Promise<void> {
    assertBucketName(bucket);
    this.#index.transaction(() => {
      if (this.#index.bucket(bucket)) {
        throw new ObjectStoreError('BucketAlreadyOwnedByYou', `The bucket ${bucket} exists and you own it.`, {
          BucketName: bucket,
        });
      }
      this.#index
        .sql('INSERT INTO buckets (name, region, created_at) VALUES (?, ?, ?)')
        .run(bucket, region, this.#now());
    });
  }

  /** Deletes an empty bucket, and with it the uploads that were not completed. @throws BucketNotEmpty */
  async deleteBucket(bucket: string): Promise<void> {
    const removed = this.#index.transaction(() => {
      this.#index.requireBucket(bucket);
      if (this.#index.row('SELECT 1 FROM objects WHERE bucket = ? LIMIT 1', bucket)) {
        throw new ObjectStoreError(
          'BucketNotEmpty',
          `The bucket ${bucket} is not empty. Delete its objects first.`,
          {
            BucketName: bucket,
          },
        );
      }
      const parts = this.#index.rows<{ blob: string }>(
        'SELECT blob FROM multipart_parts JOIN multipart_uploads ON upload = id WHERE bucket = ?',
        bucket,
      );
      this.#index.sql('DELETE FROM buckets WHERE name = ?').run(bucket);
      return parts.map((part) => part.blob);
    });
    await this.#blobs.remove(removed);
  }

  async listObjects(input: ListObjectsInput): Promise<ObjectPage> {
    return listPage(this.#index, input);
  }

  async headObject(bucket: string, key: string): Promise<ObjectInfo | undefined> {
    this.#index.requireBucket(bucket);
    return this.#index.object(bucket, key);
  }

  async openObject(bucket: string, key: string): Promise<OpenObject> {
    return this.#open(bucket, key);
  }

  async putObject(input: PutObjectInput): Promise<ObjectInfo> {
    const { bucket, key, condition, checksum } = input;
    assertKey(key);
    this.#index.requireBucket(bucket);
    this.#index.assertCondition(bucket, key, condition ?? {});
    return storeBody(this.#blobs, input, (body) => {
      const object: ObjectInfo = {
        bucket,
        key,
        sizeBytes: body.sizeBytes,
        etag: body.etag,
        modifiedAt: this.#now(),
        metadata: input.metadata ?? {},
        checksum: fullObject(checksum?.algorithm, body.checksum),
        partCount: null,
      };
      return this.#replace(object, [body], condition);
    });
  }

  /** Copies without moving bytes, unless another checksum is asked for. @throws NoSuchKey for the source */
  async copyObject(input: CopyObjectInput): Promise<ObjectInfo> {
    const { bucket, key, condition, checksumAlgorithm } = input;
    assertKey(key);
    this.#index.requireBucket(bucket);
    const source = this.#open(input.source.bucket, input.source.key);
    try {
      input.acceptSource?.(source.info);
      const metadata = input.metadata ?? source.info.metadata;
      if (checksumAlgorithm && checksumAlgorithm !== source.info.checksum?.algorithm) {
        const body = await source.read();
        return await this.putObject({
          bucket,
          key,
          metadata,
          condition,
          body,
          checksum: { algorithm: checksumAlgorithm },
        });
      }
      const copies = await this.#linkAll(source.blobs);
      const object = { ...source.info, bucket, key, metadata, modifiedAt: this.#now() };
      return await commitBlobs(
        this.#blobs,
        copies.map((copy) => copy.blob),
        () => this.#replace(object, copies, condition),
      );
    } finally {
      await source.close();
    }
  }

  async deleteObject(bucket: string, key: string, condition?: WriteCondition): Promise<void> {
    await this.#blobs.remove(this.#index.deleteObject(bucket, key, condition));
  }

  /** Deletes many objects in one commit; keys without an object are passed over. */
  async deleteObjects(bucket: string, keys: readonly string[]): Promise<void> {
    const removed = this.#index.transaction(() =>
      keys.flatMap((key) => this.#index.deleteObject(bucket, key)),
    );
    await this.#blobs.remove(removed);
  }

  async usage(): Promise<StorageUsage> {
    const { bavail, bsize } = await statfs(this.#directory);
    return { ...this.#index.usage(), freeBytes: bavail * bsize };
  }

  /** Synchronous: what the index says is pinned before anything can change it. */
  #open(bucket: string, key: string): OpenObject & { blobs: readonly IndexedBlob[] } {
    this.#index.requireBucket(bucket);
    const info = this.#index.object(bucket, key);
    if (!info) throw noSuchKey(key);
    const blobs = this.#index.blobs(bucket, key);
    const unpin = this.#blobs.pin(blobs.map((part) => part.blob));
    let start = 0;
    const parts = blobs.map((part) => {
      const range = { start, end: start + part.sizeBytes, checksum: part.checksum };
      start = range.end;
      return range;
    });
    return {
      info,
      blobs,
      parts,
      read: (range = { start: 0, end: info.sizeBytes }) => this.#blobs.read(slicesOf(blobs, range)),
      close: unpin,
    };
  }

  async #linkAll(blobs: readonly IndexedBlob[]): Promise<IndexedBlob[]> {
    const copies: IndexedBlob[] = [];
    try {
      for (const part of blobs) copies.push({ ...part, blob: await this.#blobs.link(part.blob) });
      return copies;
    } catch (error) {
      await this.#blobs.remove(copies.map((copy) => copy.blob));
      throw withDiskFull(error);
    }
  }

  #replace(
    object: ObjectInfo,
    blobs: readonly IndexedBlob[],
    condition?: WriteCondition,
  ): Committed<ObjectInfo> {
    const removed = this.#index.replaceObject({ ...object, uploadId: null }, blobs, condition);
    return { result: object, removed };
  }
}

export function noSuchKey(key: string): ObjectStoreError {
  return new ObjectStoreError('NoSuchKey', 'The specified key does not exist.', { Key: key });
}

function fullObject(algorithm: ChecksumAlgorithm | undefined, value: string | null): ObjectChecksum | null {
  return algorithm && value !== null ? { algorithm, type: 'FULL_OBJECT', value } : null;
}

function slicesOf(blobs: readonly IndexedBlob[], range: ByteRange): BlobSlice[] {
  const slices: BlobSlice[] = [];
  let offset = 0;
  for (const { blob, sizeBytes } of blobs) {
    const start = Math.max(range.start - offset, 0);
    const end = Math.min(range.end - offset, sizeBytes);
    if (start < end) slices.push({ name: blob, start, end });
    offset += sizeBytes;
  }
  return slices;
}
