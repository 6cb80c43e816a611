import { createReadStream } from 'node:fs';
import { chmod, cp, mkdir, open, readdir, rename, rm, rmdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import type { S3Client } from '@trainyard/api';
import { isS3Uri, parseS3Uri, ServiceError } from '@trainyard/api';
import type { AgentLog } from './agent-log.ts';
import { formatSeconds, plural } from './clock.ts';
import { isFinal } from './download.ts';
import { HostFailure } from './host-failure.ts';
import type { Layout } from './layout.ts';
import type { EntryKind } from './parameters.ts';
import { entryKind } from './parameters.ts';
import { retryForever } from './retry.ts';
import { readTar } from './tar.ts';

/** Far above any source folder, far below what fills a disk or a directory by mistake. */
const SOURCE_LIMITS = { maxEntries: 100_000, maxTotalBytes: 16 * 2 ** 30 };

export interface CodeDeps {
  layout: Layout;
  s3: Pick<S3Client, 'getObject'>;
  log: AgentLog;
  signal: AbortSignal;
}

/**
 * Brings the source folder to `/opt/ml/code`, only if that is empty: code that is mounted or baked in stays. May be
 * repeated; the folder appears whole or not at all.
 *
 * @param submitDirectory S3 archive, archive or folder of the instance, or null for none
 */
export async function prepareCode(submitDirectory: string | null, deps: CodeDeps): Promise<void> {
  const target = deps.layout.of('code');
  if (submitDirectory === null) return;
  if ((await readdir(target)).length > 0) return;
  const started = performance.now();
  const partial = join(dirname(target), '.code-partial');
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  const count = await bring(submitDirectory, partial, deps);
  if (count === null) return rm(partial, { recursive: true });
  await rmdir(target);
  await rename(partial, target);
  deps.log.say(
    `Unpacked the code: ${plural(count, 'file')} in ${formatSeconds(performance.now() - started)}`,
  );
}

/** @returns number of files; null when the source is the target itself */
async function bring(source: string, partial: string, deps: CodeDeps): Promise<number | null> {
  const { layout, s3, signal } = deps;
  if (isS3Uri(source)) {
    const at = parseS3Uri(source);
    return retryForever(
      async () => {
        await rm(partial, { recursive: true, force: true });
        await mkdir(partial, { recursive: true });
        const { body } = await s3.getObject({ ...at, signal });
        return unpack(Readable.fromWeb(body as never), source, partial);
      },
      { signal, isFinal: (error) => isFinal(error) || error instanceof HostFailure },
    ).catch((error: unknown) => {
      if (!(error instanceof ServiceError)) throw error;
      const message = `Failed to download the code ${source}: ${error.code}: ${error.message}`;
      throw new HostFailure('ClientError', message, error);
    });
  }
  const path = layout.localise(source.replace(/^file:\/\//, ''));
  if (path === layout.of('code')) return null;
  const found = await stat(path).catch(() => null);
  if (!found) {
    throw new HostFailure(
      'ClientError',
      `sagemaker_submit_directory is ${source}, but there is nothing at this path. Give the archive as a channel named code, or as s3://….`,
    );
  }
  if (found.isFile()) return unpack(createReadStream(path), source, partial);
  await cp(path, partial, { recursive: true });
  return (await readdir(partial, { recursive: true })).length;
}

/** @throws HostFailure for an archive that is damaged or would reach outside the folder */
async function unpack(packed: Readable, name: string, folder: string): Promise<number> {
  const source = packed.pipe(createGunzip());
  packed.on('error', (error) => source.destroy(error));
  let files = 0;
  try {
    for await (const entry of readTar(source, name, SOURCE_LIMITS)) {
      const path = join(folder, entry.path);
      if (entry.kind === 'directory') {
        await mkdir(path, { recursive: true });
        continue;
      }
      await mkdir(dirname(path), { recursive: true });
      const file = await open(path, 'w', entry.mode | 0o600);
      try {
        for await (const part of entry.content) await file.writeFile(part);
      } finally {
        await file.close();
      }
      files += 1;
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code?.startsWith('Z_')) {
      throw new HostFailure(
        'ClientError',
        `The archive ${name} is not gzip or is damaged: ${(error as Error).message}.`,
        error,
      );
    }
    throw error;
  }
  return files;
}

/** The script in the code directory, ready to be started. @throws HostFailure that lists what is there instead */
export async function findEntry(
  program: string,
  layout: Layout,
): Promise<{ kind: EntryKind; program: string }> {
  const code = layout.of('code');
  const path = join(code, program);
  const [entry, setup] = await Promise.all(
    [path, join(code, 'setup.py')].map((file) => stat(file).catch(() => null)),
  );
  const kind = entryKind(program, setup?.isFile() ?? false);
  // A package may be named by its module, which need not be a file of that name.
  if (!entry?.isFile() && kind !== 'package') {
    const names = (await readdir(code)).sort();
    const shown = names.length > 10 ? [...names.slice(0, 10), `and ${names.length - 10} more`] : names;
    throw new HostFailure(
      'ClientError',
      `The entry point ${program} is not in the source folder; it holds ${shown.length === 0 ? 'nothing' : shown.join(', ')}. ` +
        'Name a file relative to the root of the source folder as entry point.',
    );
  }
  if (kind === 'command') await chmod(path, 0o777);
  return { kind, program };
}

/** `requirements.txt` and `setup.py` of the code directory. */
export async function installables(
  layout: Layout,
  kind: EntryKind,
): Promise<{ requirements: boolean; package: boolean }> {
  const names = new Set(await readdir(layout.of('code')));
  return { requirements: kind !== 'command' && names.has('requirements.txt'), package: kind === 'package' };
}
