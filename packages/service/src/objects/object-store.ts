import type { Readable } from 'node:stream';
import type { ChecksumAlgorithm, ObjectChecksum } from './checksums.ts';

/**
 * Buckets and objects for users inside this process. Every method throws ObjectStoreError for a refusal; what was
 * answered has happened and survives a power cut.
 */
export interface ObjectStore {
  bucketExists(bucket: string): Promise<boolean>;
  /** Creates the bucket unless it exists. */
  ensureBucket(bucket: string): Promise<void>;
  listObjects(input: ListObjectsInput): Promise<ObjectPage>;
  /** Undefined when there is no such object. @throws NoSuchBucket */
  headObject(bucket: string, key: string): Promise<ObjectInfo | undefined>;
  /** Close what it returns. @throws NoSuchBucket, NoSuchKey */
  openObject(bucket: string, key: string): Promise<OpenObject>;
  putObject(input: PutObjectInput): Promise<ObjectInfo>;
  /** Succeeds also when there is no such object. @throws NoSuchBucket */
  deleteObject(bucket: string, key: string, condition?: WriteCondition): Promise<void>;
  usage(): Promise<StorageUsage>;
}

export interface BucketInfo {
  name: string;
  region: string;
  createdAt: number;
}

export interface ObjectInfo {
  bucket: string;
  key: string;
  sizeBytes: number;
  /** Without quotes: the MD5 of the content, or `<md5 of the part md5s>-<parts>`. */
  etag: string;
  /** Epoch milliseconds. */
  modifiedAt: number;
  /** What the putter attached, by lower-case name (`content-type`, `x-amz-meta-…`); opaque to the store. */
  metadata: Readonly<Record<string, string>>;
  checksum: ObjectChecksum | null;
  /** Null for an object that was put in one piece. */
  partCount: number | null;
}

/** Bytes from `start` up to and excluding `end`. */
export interface ByteRange {
  start: number;
  end: number;
}

/** One version of an object, readable until closed even if it is overwritten or deleted meanwhile. */
export interface OpenObject {
  info: ObjectInfo;
  /** Where its parts lie, in order; one for an object that was put in one piece. */
  parts: readonly (ByteRange & { checksum: string | null })[];
  /** @default range the whole object. The stream must be consumed or destroyed. */
  read(range?: ByteRange): Promise<Readable>;
  close(): Promise<void>;
}

/** What must hold when a write becomes visible; otherwise PreconditionFailed, or NoSuchKey for `ifMatch` on nothing. */
export interface WriteCondition {
  /** There must be no such object. */
  ifAbsent?: boolean;
  /** Its etag must be one of these; `*` matches any object. */
  ifMatch?: readonly string[];
}

/** A checksum to compute, to store and, where a value is expected, to compare before anything is stored. */
export interface RequestedChecksum {
  algorithm: ChecksumAlgorithm;
  /** Base64. Called after the last byte: a trailer brings it only then. */
  expected?: () => string | undefined;
}

/** A body and what it must turn out to be. */
export interface BodyInput {
  body: AsyncIterable<Uint8Array>;
  checksum?: RequestedChecksum | undefined;
  /** Expected MD5, base64. */
  contentMd5?: string | undefined;
}

export interface PutObjectInput extends BodyInput {
  bucket: string;
  key: string;
  metadata?: Readonly<Record<string, string>>;
  condition?: WriteCondition | undefined;
}

export interface ListObjectsInput {
  bucket: string;
  /** @default '' */
  prefix?: string;
  /** Keys with this text after the prefix are rolled up into common prefixes. @default '' (none) */
  delimiter?: string;
  /** Lists only what comes after this key, or after the page whose `next` this is. @default '' */
  after?: string;
  /** At most 1000. @default 1000 */
  limit?: number;
}

export interface ObjectPage {
  objects: ObjectInfo[];
  commonPrefixes: string[];
  /** Pass as `after` to go on; null on the last page. */
  next: string | null;
}

export interface StorageUsage {
  bucketCount: number;
  objectCount: number;
  objectBytes: number;
  /** Parts of multipart uploads that are neither completed nor aborted. */
  pendingUploadBytes: number;
  /** What the file system still has for us. */
  freeBytes: number;
}
