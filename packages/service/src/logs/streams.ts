import type { StatementSync } from 'node:sqlite';
import type { Database } from '../store/database.ts';

export interface LogGroupRow {
  name: string;
  createdAt: number;
  storedBytes: number;
}

export interface LogStreamRow {
  id: number;
  group: string;
  name: string;
  /** Job, attempt and host are null for streams that clients write. */
  jobName: string | null;
  attempt: number | null;
  host: string | null;
  createdAt: number;
  nextSeq: number;
  firstAt: number | null;
  lastAt: number | null;
  lastIngestedAt: number | null;
  storedBytes: number;
}

/** The host whose agent writes a stream. */
export interface StreamOrigin {
  jobName: string;
  attempt: number;
  host: string;
}

export interface ListStreamsInput {
  group: string;
  prefix: string;
  orderBy: 'LogStreamName' | 'LastEventTime';
  isDescending: boolean;
  after: { sortKey: number; name: string } | null;
  limit: number;
}

/** Larger than every name that starts with the prefix. */
const afterPrefix = (prefix: string): string => `${prefix}\u{10ffff}`;

const COLUMNS = `id, group_name AS "group", name, job AS jobName, attempt, host, created_at AS createdAt,
  next_seq AS nextSeq, first_at AS firstAt, last_at AS lastAt, last_ingested_at AS lastIngestedAt,
  stored_bytes AS storedBytes`;

/** Groups and streams by name. Times come from the caller. */
export function createLogStreams(database: Database) {
  const { sql } = database;
  const insertGroup = sql.prepare(
    'INSERT INTO log_groups (name, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING',
  );
  const deleteGroupRow = sql.prepare('DELETE FROM log_groups WHERE name = ?');
  const selectGroups = sql.prepare(
    `SELECT name, created_at AS createdAt,
       (SELECT coalesce(sum(stored_bytes), 0) FROM log_streams WHERE group_name = log_groups.name) AS storedBytes
     FROM log_groups WHERE name > ? AND name >= ? AND name < ? AND instr(name, ?) ORDER BY name LIMIT ?`,
  );
  const selectGroup = sql.prepare('SELECT 1 FROM log_groups WHERE name = ?');
  const insertStream = sql.prepare(
    `INSERT INTO log_streams (group_name, name, job, attempt, host, created_at) VALUES (?, ?, ?, ?, ?, ?)
     ON CONFLICT (group_name, name) DO UPDATE SET is_deleted = 0, created_at = excluded.created_at,
       job = excluded.job, attempt = excluded.attempt, host = excluded.host WHERE is_deleted`,
  );
  const selectStream = sql.prepare(
    `SELECT ${COLUMNS} FROM log_streams WHERE group_name = ? AND name = ? AND NOT is_deleted`,
  );
  const selectAny = sql.prepare('SELECT 1 FROM log_streams WHERE group_name = ? AND name = ?');
  const selectOfJob = sql.prepare(
    `SELECT ${COLUMNS} FROM log_streams WHERE job = ? AND NOT is_deleted ORDER BY id`,
  );
  const selectInWindow = sql.prepare(
    `SELECT ${COLUMNS} FROM log_streams WHERE group_name = ? AND name >= ? AND name < ?
       AND last_at >= ? AND first_at < ? AND NOT is_deleted`,
  );
  const clearStreams = sql.prepare(
    `UPDATE log_streams SET is_deleted = 1, stored_bytes = 0, first_at = NULL, last_at = NULL,
       last_ingested_at = NULL WHERE group_name = ? AND name >= ? AND name <= ? AND NOT is_deleted RETURNING id`,
  );
  const deleteEvents = sql.prepare('DELETE FROM log_events WHERE stream = ?');
  const detachJob = sql.prepare(
    'UPDATE log_streams SET job = NULL, attempt = NULL, host = NULL WHERE job = ?',
  );
  // One statement per order and direction: the sort key and the way of comparing are part of the text.
  const listStatements = new Map(
    (['LogStreamName', 'LastEventTime'] as const).flatMap((orderBy) =>
      [false, true].map((isDescending) => {
        const keys = orderBy === 'LogStreamName' ? ['name'] : ['coalesce(last_at, 0)', 'name'];
        const places = orderBy === 'LogStreamName' ? '(?5)' : '(?4, ?5)';
        const [than, order] = isDescending ? ['<', 'DESC'] : ['>', 'ASC'];
        const text = `SELECT ${COLUMNS} FROM log_streams WHERE group_name = ?1 AND name >= ?2 AND name < ?3
          AND NOT is_deleted AND (?4 IS NULL OR (${keys.join()}) ${than} ${places})
          ORDER BY ${keys.map((key) => `${key} ${order}`).join()} LIMIT ?6`;
        return [`${orderBy} ${isDescending}`, sql.prepare(text)] as const;
      }),
    ),
  );

  const find = (group: string, name: string): LogStreamRow | undefined =>
    selectStream.get(group, name) as unknown as LogStreamRow | undefined;

  const clear = (group: string, first: string, last: string): number =>
    database.transaction(() => {
      const rows = clearStreams.all(group, first, last) as { id: number }[];
      for (const { id } of rows) deleteEvents.run(id);
      return rows.length;
    });

  return {
    hasGroup: (name: string): boolean => selectGroup.get(name) !== undefined,
    /** @returns false when it was there. */
    createGroup: (name: string, at: number): boolean => insertGroup.run(name, at).changes === 1,
    /** By name, at most `limit`, those after `after` with this prefix and this text somewhere in the name. */
    listGroups: (input: { prefix: string; part: string; after: string; limit: number }): LogGroupRow[] =>
      selectGroups.all(
        input.after,
        input.prefix,
        afterPrefix(input.prefix),
        input.part,
        input.limit,
      ) as unknown as LogGroupRow[],
    /** With every stream in it. @returns false when there is none. */
    deleteGroup: (name: string): boolean =>
      database.transaction(() => {
        clear(name, '', afterPrefix(''));
        return deleteGroupRow.run(name).changes === 1;
      }),
    find,
    /** Also true for a deleted stream, whose numbers go on. */
    isTaken: (group: string, name: string): boolean => selectAny.get(group, name) !== undefined,
    /** @returns false when a stream of that name was there. */
    create(group: string, name: string, at: number, origin: StreamOrigin | null = null): boolean {
      const owner = [origin?.jobName ?? null, origin?.attempt ?? null, origin?.host ?? null];
      return insertStream.run(group, name, ...owner, at).changes === 1;
    },
    list({ group, prefix, orderBy, isDescending, after, limit }: ListStreamsInput): LogStreamRow[] {
      const statement = listStatements.get(`${orderBy} ${isDescending}`) as StatementSync;
      const place = [after?.sortKey ?? null, after?.name ?? null];
      return statement.all(group, prefix, afterPrefix(prefix), ...place, limit) as unknown as LogStreamRow[];
    },
    /** Streams of a group with events in [startAt, endAt), in no order. */
    inWindow: (group: string, prefix: string, startAt: number, endAt: number): LogStreamRow[] =>
      selectInWindow.all(group, prefix, afterPrefix(prefix), startAt, endAt) as unknown as LogStreamRow[],
    ofJob: (jobName: string): LogStreamRow[] => selectOfJob.all(jobName) as unknown as LogStreamRow[],
    /** Removes the stream's events and hides it; its numbering goes on. @returns false when there is none. */
    delete: (group: string, name: string): boolean => clear(group, name, name) === 1,
    /** The streams stay readable by name but are no longer the job's. */
    detachJob: (jobName: string): void => void detachJob.run(jobName),
  };
}

export type LogStreams = ReturnType<typeof createLogStreams>;
