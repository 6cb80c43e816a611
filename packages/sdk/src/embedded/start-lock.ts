import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

/**
 * The right to start a data directory's service, held by one process at a time. It is SQLite's lock on a file of its
 * own: the system frees it when the holder dies, so there is no stale lock to recognise.
 */
export class StartLock {
  readonly #database: DatabaseSync;

  private constructor(database: DatabaseSync) {
    this.#database = database;
  }

  /** @returns null while another process holds it. */
  static tryTake(dataDirectory: string): StartLock | null {
    mkdirSync(dataDirectory, { recursive: true, mode: 0o700 });
    const database = new DatabaseSync(join(dataDirectory, 'start.lock'), { timeout: 0 });
    try {
      database.exec('BEGIN EXCLUSIVE');
      return new StartLock(database);
    } catch (error) {
      database.close();
      if (/locked|busy/.test((error as Error).message)) return null;
      throw error;
    }
  }

  release(): void {
    this.#database.close();
  }
}
