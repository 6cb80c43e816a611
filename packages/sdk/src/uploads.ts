import { openAsBlob } from 'node:fs';
import type { S3Client } from '@trainyard/api';
import { InvalidOption } from './errors.ts';
import type { TreeEntry } from './file-tree.ts';
import { fileTree, nameMatcher, UnreadableTree } from './file-tree.ts';
import type { PlannedUpload } from './job-plan.ts';
import type { WarningHandler } from './problem.ts';
import { withGitSource } from './source/git-source.ts';
import { packSource } from './source/source-archive.ts';

/** Files above this go up in parts. */
const SINGLE_PUT_BYTES = 64 * 2 ** 20;
const PART_BYTES = 16 * 2 ** 20;
const MAX_PARTS = 10_000;
const FILES_AT_ONCE = 8;

type Uploader = Pick<S3Client, 'putObject' | 'uploadMultipart'>;

export interface PreparedUpload {
  bucket: string;
  /** May be called again after a failure. `headers` go with the code archive: encryption on AWS. */
  send(s3: Uploader, headers: Readonly<Record<string, string>>): Promise<void>;
}

/**
 * Reads what an upload needs of this machine, so that every mistake is found before the first byte is sent.
 * @throws InvalidOption when a local file is missing or a directory is empty.
 */
export async function prepareUpload(
  upload: PlannedUpload,
  onWarning: WarningHandler,
): Promise<PreparedUpload> {
  const { bucket, key } = upload;
  if (upload.kind === 'source') {
    const { git, selection } = upload;
    const { body, warnings } = await (git
      ? withGitSource(git, selection, packSource)
      : packSource(selection));
    for (const warning of warnings) onWarning(warning);
    return { bucket, send: async (s3, headers) => void (await s3.putObject({ bucket, key, body, headers })) };
  }
  const headers = encryption(upload.kmsKeyId);
  if (upload.kind === 'text') {
    return {
      bucket,
      send: async (s3) => void (await s3.putObject({ bucket, key, body: upload.body, headers })),
    };
  }
  if (upload.kind === 'file') {
    return { bucket, send: (s3) => putFile({ bucket, key, path: upload.path, headers }, s3) };
  }
  const files = await listFiles(upload);
  return { bucket, send: (s3) => putFiles(files, { bucket, prefix: key, headers }, s3) };
}

function encryption(kmsKeyId: string | undefined): Record<string, string> {
  return kmsKeyId === undefined
    ? {}
    : {
        'x-amz-server-side-encryption': 'aws:kms',
        'x-amz-server-side-encryption-aws-kms-key-id': kmsKeyId,
      };
}

async function listFiles(upload: Extract<PlannedUpload, { kind: 'directory' }>): Promise<TreeEntry[]> {
  const invalid = (rule: string, nextStep: string): InvalidOption =>
    new InvalidOption([
      { id: 'E-FILE-INPUT', field: `inputs.${upload.channel}`, value: upload.path, rule, nextStep },
    ]);
  const files: TreeEntry[] = [];
  try {
    const isIgnored = nameMatcher(upload.ignoredNames ?? []);
    for await (const entry of fileTree(upload.path, '', isIgnored))
      if (entry.stats.isFile()) files.push(entry);
  } catch (error) {
    if (error instanceof UnreadableTree) throw invalid(error.message, 'Remove or repair it.');
    throw error;
  }
  if (files.length > 0) return files;
  throw invalid('The directory holds no file.', 'Put the data there, or leave the channel out.');
}

async function putFiles(
  files: readonly TreeEntry[],
  { bucket, prefix, headers }: { bucket: string; prefix: string; headers: Record<string, string> },
  s3: Uploader,
): Promise<void> {
  const queue = files.values();
  const worker = async (): Promise<void> => {
    for (const file of queue)
      await putFile({ bucket, key: prefix + file.name, path: file.path, headers }, s3);
  };
  await Promise.all(Array.from({ length: Math.min(FILES_AT_ONCE, files.length) }, worker));
}

async function putFile(
  {
    bucket,
    key,
    path,
    headers,
  }: { bucket: string; key: string; path: string; headers: Record<string, string> },
  s3: Uploader,
): Promise<void> {
  const body = await openAsBlob(path);
  if (body.size <= SINGLE_PUT_BYTES) await s3.putObject({ bucket, key, body, headers });
  else await s3.uploadMultipart({ bucket, key, parts: partsOf(body), headers });
}

async function* partsOf(body: Blob): AsyncGenerator<Blob> {
  const partBytes = Math.max(PART_BYTES, Math.ceil(body.size / MAX_PARTS));
  for (let start = 0; start < body.size; start += partBytes) yield body.slice(start, start + partBytes);
}
