import { DatabaseSync } from 'node:sqlite';
import type { Migration } from './migrations/index.ts';
import { MIGRATIONS } from './migrations/index.ts';

/** One SQLite file per service, written by one process. Rows committed here survive a power cut. */
export interface Database {
  readonly sql: DatabaseSync;
  /** Runs `work` in one immediate transaction; an exception rolls back. Nested calls join the outer one. */
  transaction<T>(work: () => T): T;
  close(): void;
}

/**
 * Opens (and creates) the database and brings its schema up to date.
 *
 * @param path file, or `:memory:` in tests
 * @throws Error when the file was written by a newer version of the service
 */
export function openDatabase(path: string, migrations: readonly Migration[] = MIGRATIONS): Database {
  const sql = new DatabaseSync(path);
  sql.exec('PRAGMA journal_mode = WAL');
  // FULL: a commit is on disk before it is answered; NORMAL would lose the last commits on power loss in WAL.
  sql.exec('PRAGMA synchronous = FULL');
  sql.exec('PRAGMA foreign_keys = ON');
  sql.exec('PRAGMA busy_timeout = 5000');
  let depth = 0;
  const transaction = <T>(work: () => T): T => {
    if (depth > 0) return work();
    sql.exec('BEGIN IMMEDIATE');
    depth++;
    try {
      const result = work();
      sql.exec('COMMIT');
      return result;
    } catch (error) {
      // A full disk makes SQLite roll back by itself.
      if (sql.isTransaction) sql.exec('ROLLBACK');
      throw error;
    } finally {
      depth--;
    }
  };
  migrate(sql, transaction, migrations);
  return { sql, transaction, close: () => sql.close() };
}

function migrate(
  sql: DatabaseSync,
  transaction: (work: () => void) => void,
  migrations: readonly Migration[],
): void {
  sql.exec(
    'CREATE TABLE IF NOT EXISTS schema_migrations (id INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL)',
  );
  const applied = new Set(
    (sql.prepare('SELECT id FROM schema_migrations').all() as { id: number }[]).map((row) => row.id),
  );
  const newest = Math.max(0, ...migrations.map((migration) => migration.id));
  const unknown = [...applied].filter((id) => id > newest);
  if (unknown.length > 0) {
    throw new Error(
      `The data directory was written by a newer Trainyard (schema ${Math.max(...unknown)}; this version knows ${newest}). Use that version or another --data directory.`,
    );
  }
  for (const migration of [...migrations].sort((a, b) => a.id - b.id)) {
    if (applied.has(migration.id)) continue;
    transaction(() => {
      sql.exec(migration.sql);
      sql
        .prepare('INSERT INTO schema_migrations (id, name, applied_at) VALUES (?, ?, ?)')
        .run(migration.id, migration.name, Date.now());
    });
  }
}
