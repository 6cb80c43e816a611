import type { ConnectionOptions } from './signed-fetch.ts';

export interface S3ClientOptions extends ConnectionOptions {
  /** Base URL; buckets are addressed path-style below it. */
  endpoint: string;
}

export interface BucketInfo {
  name: string;
  createdAt: Date | null;
}

export interface ObjectInfo {
  key: string;
  sizeBytes: number;
  /** With its quotes. */
  etag: string;
  lastModified: Date;
}

export type ListEntry = ({ kind: 'object' } & ObjectInfo) | { kind: 'prefix'; prefix: string };

export interface ObjectHead {
  sizeBytes: number;
  etag: string;
  lastModified: Date;
  contentType: string | null;
  /** `x-amz-meta-*` without the prefix. */
  metadata: Record<string, string>;
}

export interface ObjectBody extends ObjectHead {
  /** Bytes of the range, or of all; resumes by Range when the connection breaks and fails when the object changed. */
  body: ReadableStream<Uint8Array>;
}

export interface ObjectAddress {
  bucket: string;
  key: string;
}

export interface ByteRange {
  /** First byte, from 0. */
  start: number;
  /** Last byte, included; open when absent. */
  end?: number;
}

export interface PutObjectInput extends ObjectAddress {
  body: Blob | Uint8Array | string;
  headers?: Readonly<Record<string, string>>;
  signal?: AbortSignal;
}

export interface UploadMultipartInput extends ObjectAddress {
  /** Each becomes one part: at least 5 MiB except the last, at most 10 000. Held in memory one at a time. */
  parts: AsyncIterable<Uint8Array | Blob>;
  headers?: Readonly<Record<string, string>>;
  signal?: AbortSignal;
}

/** Errors are ServiceError with S3's codes; a HEAD answer has no body, so its 404 is `NoSuchKey` or `NoSuchBucket`. */
export interface S3Client {
  listBuckets(): Promise<BucketInfo[]>;
  /** @returns false when the bucket does not exist; throws `AccessDenied` when it is another's. */
  headBucket(input: { bucket: string }): Promise<boolean>;
  /** Succeeds when the caller owns the bucket already. */
  createBucket(input: { bucket: string }): Promise<void>;
  /** Objects in key order, over all pages. Common prefixes only with a delimiter. */
  listObjects(input: {
    bucket: string;
    prefix?: string;
    delimiter?: string;
    startAfter?: string;
    /** Keys per page, at most 1000. @default 1000 */
    pageSize?: number;
    signal?: AbortSignal;
  }): AsyncIterable<ListEntry>;
  headObject(input: ObjectAddress & { signal?: AbortSignal }): Promise<ObjectHead>;
  getObject(input: ObjectAddress & { range?: ByteRange; signal?: AbortSignal }): Promise<ObjectBody>;
  putObject(input: PutObjectInput): Promise<{ etag: string }>;
  /** Retries each part; aborts the upload on failure so that no parts stay behind. */
  uploadMultipart(input: UploadMultipartInput): Promise<{ etag: string; sizeBytes: number }>;
  deleteObject(input: ObjectAddress & { signal?: AbortSignal }): Promise<void>;
}

export function createS3Client(_options: S3ClientOptions): S3Client {
  throw new Error('follows');
}
