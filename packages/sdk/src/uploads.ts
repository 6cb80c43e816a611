import { openAsBlob } from 'node:fs';
import type { S3Client } from '@trainyard/api';
import { InvalidOption } from './errors.ts';
import type { TreeEntry } from './file-tree.ts';
import { fileTree, UnreadableTree } from './file-tree.ts';
import type { PlannedUpload } from './job-plan.ts';
import type { WarningHandler } from './problem.ts';
import { packSource } from './source/source-archive.ts';

/** Files above this go up in parts. */
const SINGLE_PUT_BYTES = 64 * 2 ** 20;
const PART_BYTES = 16 * 2 ** 20;
const MAX_PARTS = 10_000;
const FILES_AT_ONCE = 8;

export interface UploadContext {
  s3: Pick<S3Client, 'putObject' | 'uploadMultipart'>;
  /** Headers for the code archive: encryption on AWS. */
  sourceHeaders: Readonly<Record<string, string>>;
  onWarning: WarningHandler;
}

/** Carries out one planned upload. @throws InvalidOption when a local file is missing or a directory is empty. */
export async function carryOut(upload: PlannedUpload, context: UploadContext): Promise<void> {
  const { bucket, key } = upload;
  if (upload.kind === 'source') {
    const archive = await packSource(upload.selection);
    for (const warning of archive.warnings) context.onWarning(warning);
    await context.s3.putObject({ bucket, key, body: archive.body, headers: context.sourceHeaders });
  } else if (upload.kind === 'file') {
    await putFile({ bucket, key, path: upload.path }, context.s3);
  } else {
    await putDirectory(upload, context.s3);
  }
}

async function putDirectory(
  upload: Extract<PlannedUpload, { kind: 'directory' }>,
  s3: UploadContext['s3'],
): Promise<void> {
  const invalid = (rule: string, nextStep: string): InvalidOption =>
    new InvalidOption([
      { id: 'E-FILE-INPUT', field: `inputs.${upload.channel}`, value: upload.path, rule, nextStep },
    ]);
  const files: TreeEntry[] = [];
  try {
    for await (const entry of fileTree(upload.path, '')) if (entry.stats.isFile()) files.push(entry);
  } catch (error) {
    if (error instanceof UnreadableTree) throw invalid(error.message, 'Remove or repair it.');
    throw error;
  }
  if (files.length === 0) {
    throw invalid('The directory holds no file.', 'Put the data there, or leave the channel out.');
  }
  const queue = files.values();
  const worker = async (): Promise<void> => {
    for (const file of queue) {
      await putFile({ bucket: upload.bucket, key: upload.key + file.name, path: file.path }, s3);
    }
  };
  await Promise.all(Array.from({ length: Math.min(FILES_AT_ONCE, files.length) }, worker));
}

async function putFile(
  { bucket, key, path }: { bucket: string; key: string; path: string },
  s3: UploadContext['s3'],
): Promise<void> {
  const body = await openAsBlob(path);
  if (body.size <= SINGLE_PUT_BYTES) await s3.putObject({ bucket, key, body });
  else await s3.uploadMultipart({ bucket, key, parts: partsOf(body) });
}

async function* partsOf(body: Blob): AsyncGenerator<Blob> {
  const partBytes = Math.max(PART_BYTES, Math.ceil(body.size / MAX_PARTS));
  for (let start = 0; start < body.size; start += partBytes) yield body.slice(start, start + partBytes);
}
