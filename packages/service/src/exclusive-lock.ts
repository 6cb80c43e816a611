import { DatabaseSync } from 'node:sqlite';

/**
 * Takes a data directory for this process until it ends, however it ends: the lock is the operating system's
 * (through SQLite, as Node has no call for it) and goes with the process.
 *
 * @returns null when another service has the directory
 */
export function lockExclusively(path: string): { release(): void } | null {
  const lock = new DatabaseSync(path);
  try {
    lock.exec('PRAGMA busy_timeout = 0; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
  } catch (error) {
    lock.close();
    if ((error as Error).message.includes('locked')) return null;
    throw error;
  }
  return { release: () => lock.close() };
}
