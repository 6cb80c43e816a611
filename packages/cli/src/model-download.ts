import { createWriteStream } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { isServiceError, parseS3Uri, type S3Client } from '@trainyard/api';
import type { TrainingJob } from '@trainyard/sdk';
import { EXIT_CODE } from './exit-code.ts';
import { UserError } from './user-error.ts';

export interface DownloadedFile {
  path: string;
  sizeBytes: number;
}

/**
 * Brings a job's artifacts into a folder: `model.tar.gz` and, when the job wrote any, `output.tar.gz`; of a job with
 * uncompressed output its files. A file appears under its name once it is complete.
 * @returns the files, the model's first
 * @throws UserError when the job has no model (yet)
 */
export async function downloadArtifacts(job: TrainingJob, folder: string): Promise<DownloadedFile[]> {
  const modelUri = await job.modelData();
  const { s3 } = await job.session.connect();
  if (modelUri.endsWith('/')) return await downloadPrefix(s3, modelUri, join(resolve(folder), 'model'), job);
  const { bucket, key } = parseS3Uri(modelUri);
  const model = await fetchObject(s3, { bucket, key }, join(resolve(folder), 'model.tar.gz'));
  if (model === null) throw await withoutModel(job, modelUri);
  const outputKey = key.replace(/model\.tar\.gz$/, 'output.tar.gz');
  const output = await fetchObject(s3, { bucket, key: outputKey }, join(resolve(folder), 'output.tar.gz'));
  return output === null ? [model] : [model, output];
}

async function downloadPrefix(
  s3: S3Client,
  uri: string,
  folder: string,
  job: TrainingJob,
): Promise<DownloadedFile[]> {
  const { bucket, key: prefix } = parseS3Uri(uri);
  const files: DownloadedFile[] = [];
  for await (const entry of s3.listObjects({ bucket, prefix })) {
    if (entry.kind !== 'object' || entry.key.endsWith('/')) continue;
    const path = resolve(folder, entry.key.slice(prefix.length));
    // Keys are text that a job chose; none may lead out of the folder.
    if (relative(folder, path).startsWith('..'))
      throw new UserError(`${entry.key} would be written outside ${folder}.`);
    const file = await fetchObject(s3, { bucket, key: entry.key }, path);
    if (file) files.push(file);
  }
  if (files.length === 0) throw await withoutModel(job, uri);
  return files;
}

/** Null when there is no such object. */
async function fetchObject(
  s3: S3Client,
  address: { bucket: string; key: string },
  path: string,
): Promise<DownloadedFile | null> {
  const object = await s3.getObject(address).catch((error: unknown) => {
    if (isServiceError(error, 'NoSuchKey', 'NoSuchBucket')) return null;
    throw error;
  });
  if (object === null) return null;
  await mkdir(dirname(path), { recursive: true });
  const draft = `${path}.${process.pid}.tmp`;
  try {
    await pipeline(Readable.fromWeb(object.body as NodeReadableStream<Uint8Array>), createWriteStream(draft));
    await rename(draft, path);
  } finally {
    await rm(draft, { force: true });
  }
  return { path, sizeBytes: object.sizeBytes };
}

async function withoutModel(job: TrainingJob, uri: string): Promise<UserError> {
  const { TrainingJobStatus: status } = await job.describe();
  const why =
    status === 'InProgress' || status === 'Stopping'
      ? `it is ${status}; the model comes at its end`
      : `it ended ${status}`;
  return new UserError(`${job.name} has no model at ${uri}: ${why}.`, EXIT_CODE.failed);
}
