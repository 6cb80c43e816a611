import { openAsBlob } from 'node:fs';
import { stat } from 'node:fs/promises';
import type { S3Client } from '@trainyard/api';

export type Uploader = Pick<S3Client, 'putObject' | 'uploadMultipart'>;

const SINGLE_PUT_BYTES = 64 * 2 ** 20;
const MIN_PART_BYTES = 16 * 2 ** 20;
const MAX_PARTS = 10_000;

/** One file as one object. @returns the object's ETag */
export async function uploadFile(
  s3: Uploader,
  target: { bucket: string; key: string; signal?: AbortSignal },
  path: string,
): Promise<string> {
  const { size } = await stat(path);
  const blob = await openAsBlob(path);
  if (size <= SINGLE_PUT_BYTES) return (await s3.putObject({ ...target, body: blob })).etag;
  const partBytes = Math.max(MIN_PART_BYTES, Math.ceil(size / MAX_PARTS));
  return (await s3.uploadMultipart({ ...target, parts: slices(blob, partBytes) })).etag;
}

async function* slices(blob: Blob, partBytes: number): AsyncGenerator<Blob> {
  for (let start = 0; start < blob.size; start += partBytes) yield blob.slice(start, start + partBytes);
}

/** A stream of unknown length as one object: a single put when it is small, else in parts as it comes. */
export async function uploadStream(
  s3: Uploader,
  target: { bucket: string; key: string; signal?: AbortSignal },
  source: AsyncIterable<Uint8Array>,
): Promise<{ sizeBytes: number }> {
  const parts = gather(source, MIN_PART_BYTES)[Symbol.asyncIterator]();
  const first = await parts.next();
  const second = first.done ? first : await parts.next();
  if (second.done) {
    const body = first.done ? new Uint8Array() : first.value;
    await s3.putObject({ ...target, body });
    return { sizeBytes: body.length };
  }
  async function* all(): AsyncGenerator<Uint8Array> {
    yield first.value as Uint8Array;
    yield second.value as Uint8Array;
    for (let next = await parts.next(); !next.done; next = await parts.next()) yield next.value;
  }
  return s3.uploadMultipart({ ...target, parts: all() });
}

/** Chunks of at least `partBytes`, but for the last. */
async function* gather(source: AsyncIterable<Uint8Array>, partBytes: number): AsyncGenerator<Uint8Array> {
  let held: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of source) {
    held.push(chunk);
    sizeBytes += chunk.length;
    if (sizeBytes >= partBytes) {
      yield Buffer.concat(held);
      held = [];
      sizeBytes = 0;
    }
  }
  if (sizeBytes > 0) yield Buffer.concat(held);
}
