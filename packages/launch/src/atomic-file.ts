import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * A reader sees the old content or the new one, never a part, whatever process is killed when. Mode 0600: state of
 * the agent is nobody else's.
 */
export async function replaceFile(path: string, content: string): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, 'w', 0o600);
  try {
    await file.writeFile(content);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}

/**
 * Makes a file survive a power cut too. Nobody waits for it: after a power cut the ranks are gone, so only what is
 * left of the host's own end could need the file.
 */
export async function syncFile(path: string): Promise<void> {
  for (const target of [path, dirname(path)]) {
    const handle = await open(target, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }
}
