import { createHash } from 'node:crypto';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { S3Client } from '@trainyard/api';
import { ServiceError } from '@trainyard/api';
import type { ObjectFile } from './object-paths.ts';
import { mapPool } from './pool.ts';
import { retryForever } from './retry.ts';

export type Downloader = Pick<S3Client, 'getObject'>;

export interface DownloadOptions {
  s3: Downloader;
  bucket: string;
  /** Receives the files; made when absent. */
  directory: string;
  /** On the same file system as `directory`; holds files that are not whole yet. */
  partialDirectory: string;
  signal: AbortSignal;
}

export interface DownloadResult {
  files: number;
  sizeBytes: number;
}

const CONCURRENCY = 8;

/**
 * Brings objects into a directory, several at a time. A file appears under its name only when it is whole, so a
 * download that was cut off goes on where it stood: what has the right size is not fetched again.
 *
 * @throws ServiceError of the object store
 */
export async function downloadFiles(
  files: readonly ObjectFile[],
  options: DownloadOptions,
): Promise<DownloadResult> {
  const folders = new Set(files.map((file) => dirname(join(options.directory, file.path))));
  await Promise.all([...folders, options.partialDirectory].map((path) => mkdir(path, { recursive: true })));
  await mapPool(files, CONCURRENCY, (file, index) => downloadFile(file, index, options));
  await rm(options.partialDirectory, { recursive: true, force: true });
  return { files: files.length, sizeBytes: files.reduce((sum, file) => sum + file.sizeBytes, 0) };
}

async function downloadFile(file: ObjectFile, index: number, options: DownloadOptions): Promise<void> {
  const target = join(options.directory, file.path);
  const have = await stat(target).catch(() => null);
  if (have?.isFile() && have.size === file.sizeBytes) return;
  const partial = join(options.partialDirectory, String(index));
  const fetchOnce = (): Promise<string> =>
    retryForever(() => fetchTo(partial, file, options), { signal: options.signal, isFinal });
  const digest = await fetchOnce();
  // An ETag of other stores need not be an MD5: when two reads agree it is not, when they differ one was damaged.
  if (simpleMd5(file.etag) !== null && simpleMd5(file.etag) !== digest && (await fetchOnce()) !== digest) {
    throw new Error(`two reads of s3://${options.bucket}/${file.key} gave different bytes`);
  }
  await rename(partial, target);
}

/** @returns MD5 of what was written */
async function fetchTo(path: string, file: ObjectFile, options: DownloadOptions): Promise<string> {
  const { s3, bucket, signal } = options;
  const { body, sizeBytes } = await s3.getObject({ bucket, key: file.key, signal });
  const hash = createHash('md5');
  const out = await open(path, 'w');
  let written = 0;
  try {
    for await (const chunk of body) {
      hash.update(chunk);
      for (let start = 0; start < chunk.byteLength; ) {
        start += (await out.write(chunk, start)).bytesWritten;
      }
      written += chunk.byteLength;
    }
  } finally {
    await out.close();
  }
  if (written !== sizeBytes) {
    throw new Error(`s3://${bucket}/${file.key} ended after ${written} of ${sizeBytes} bytes`);
  }
  return hash.digest('hex');
}

/** The MD5 in the ETag of an object that was put in one piece, else null. */
export function simpleMd5(etag: string): string | null {
  return /^"?([0-9a-f]{32})"?$/.exec(etag)?.[1] ?? null;
}

const LOCAL_CODES = new Set(['ENOENT', 'EACCES', 'EPERM', 'EISDIR', 'ENOTDIR', 'ENOSPC', 'EDQUOT', 'EROFS']);

/** An answer of the store will not change by asking again, nor will a full disk; a broken connection may heal. */
export const isFinal = (error: unknown): boolean =>
  error instanceof ServiceError
    ? error.status >= 400 && error.status < 500
    : LOCAL_CODES.has((error as NodeJS.ErrnoException | null)?.code ?? '');

/** The store said no. */
export const isRefusal = (error: unknown): error is ServiceError =>
  error instanceof ServiceError && isFinal(error);
