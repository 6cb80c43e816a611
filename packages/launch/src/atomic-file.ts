import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

export interface ReplaceOptions {
  /**
   * Also survive a power cut. Without it the new content survives any crash of a process, which is all that
   * matters for what is written many times a second: after a power cut the ranks are gone as well.
   */
  durable: boolean;
}

/** A reader sees the old content or the new one, never a part. Mode 0600: state of the agent is nobody else's. */
export async function replaceFile(path: string, content: string, { durable }: ReplaceOptions): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, 'w', 0o600);
  try {
    await file.writeFile(content);
    if (durable) await file.sync();
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  if (durable) await syncDirectory(dirname(path));
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
