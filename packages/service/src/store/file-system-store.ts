import { randomBytes } from 'node:crypto';
import type { Database } from './database.ts';

/** Folders of this machine that jobs may use in place as FileSystemDataSource. */
export class FileSystemStore {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  /** The id of a folder; the same folder keeps its id. */
  register(path: string): string {
    const known = this.#db.sql.prepare('SELECT id FROM file_systems WHERE path = ?').get(path) as
      | { id: string }
      | undefined;
    if (known) return known.id;
    const id = `fs-${randomBytes(8).toString('hex')}0`;
    this.#db.sql
      .prepare('INSERT INTO file_systems (id, path, created_at) VALUES (?, ?, ?)')
      .run(id, path, Date.now());
    return id;
  }

  path(id: string): string | null {
    const row = this.#db.sql.prepare('SELECT path FROM file_systems WHERE id = ?').get(id) as
      | { path: string }
      | undefined;
    return row?.path ?? null;
  }
}
