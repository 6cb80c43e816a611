import { randomBytes } from 'node:crypto';
import { chmod, lstat, mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ExecutorError } from './executor-error.ts';
import type { GangRendering } from './gang-rendering.ts';

/** Writes what a rendering says, each file as a whole; may be repeated. @throws ExecutorError */
export async function writeGangFiles(rendering: GangRendering): Promise<void> {
  for (const { host, source, target } of rendering.mounts) {
    const found = await stat(source).catch((error: NodeJS.ErrnoException) => error);
    if (found instanceof Error || !found.isDirectory()) {
      throw new ExecutorError(
        'mounts',
        `${source}, to be mounted at ${target} in ${host}, ${found instanceof Error ? `cannot be used: ${found.message}` : 'is not a directory'}. ` +
          'Make the directory readable for the service, or register another one.',
      );
    }
  }
  try {
    await mkdir(rendering.directory, { recursive: true, mode: 0o700 });
    if (rendering.runRoot !== null) await makePrivateDirectory(rendering.runRoot);
    for (const { path, mode, text } of rendering.files) {
      await mkdir(dirname(path), { recursive: true, mode: 0o755 });
      const temporary = `${path}.${randomBytes(4).toString('hex')}.tmp`;
      await writeFile(temporary, text, { mode });
      await rename(temporary, path);
    }
  } catch (error) {
    if (error instanceof ExecutorError) throw error;
    throw new ExecutorError('files', `cannot prepare ${rendering.directory}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** Removes what an ended attempt leaves outside its artifacts: sockets, scratch space, homes. */
export async function removeScratch(
  directory: string,
  runRoot: string | null,
  hosts: string[],
): Promise<void> {
  const paths = hosts.flatMap((host) =>
    ['root', 'tmp', 'vartmp', 'home'].map((name) => join(directory, 'hosts', host, name)),
  );
  paths.push(join(directory, 'peers'));
  if (runRoot !== null) paths.push(runRoot);
  for (const host of hosts) paths.push(join(directory, 'hosts', host, 'run/init.sock'));
  await Promise.all(paths.map(removeTree));
}

/** Also removes what a job made unwritable for its own user. */
export async function removeTree(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EACCES' && code !== 'EPERM') throw error;
    await makeWritable(path);
    await rm(path, { recursive: true, force: true });
  }
}

async function makeWritable(path: string): Promise<void> {
  const status = await lstat(path).catch(() => null);
  if (status === null || !status.isDirectory()) return;
  await chmod(path, 0o700);
  for (const name of await readdir(path)) await makeWritable(join(path, name));
}

/** Below a directory that everybody can write to, so whoever made it must be us. */
async function makePrivateDirectory(path: string): Promise<void> {
  for (const part of [dirname(path), path]) {
    await mkdir(part, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
    const status = await lstat(part);
    if (!status.isDirectory() || status.uid !== process.getuid?.() || (status.mode & 0o077) !== 0) {
      throw new ExecutorError(
        'files',
        `${part} belongs to someone else or is open to others; remove it, or set TMPDIR to a directory of your own`,
      );
    }
  }
}
