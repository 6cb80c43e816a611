import type { Database } from '../store/database.ts';
import type { EventSource, LogEventRow } from './merge.ts';
import type { LogStreamRow } from './streams.ts';

export interface NewEvent {
  at: number;
  source: string;
  rank: number | null;
  message: string;
}

/** What CloudWatch counts per event besides the bytes of its message. */
export const EVENT_OVERHEAD_BYTES = 26;
/** CloudWatch's limits of one page. */
export const MAX_PAGE_EVENTS = 10_000;
export const MAX_PAGE_BYTES = 1_048_576;

export interface PageWindow {
  /** Epoch milliseconds, inclusive. */
  startAt: number;
  /** Epoch milliseconds, exclusive. */
  endAt: number;
  limit: number;
}

/** Every time there is; SQLite has no infinity for its integers. */
export const ALWAYS = { startAt: Number.MIN_SAFE_INTEGER, endAt: Number.MAX_SAFE_INTEGER } as const;

export interface EventPage {
  /** In the order of the stream. */
  events: LogEventRow[];
  /** Reading forward goes on at this number, reading backward below {@link EventPage.fromSeq}. */
  toSeq: number;
  fromSeq: number;
}

const COLUMNS = 'stream AS streamId, seq, at, ingested_at AS ingestedAt, source, rank, message';

export const eventBytes = (message: string): number => Buffer.byteLength(message) + EVENT_OVERHEAD_BYTES;

/** The lines themselves. A stream's order is its numbering: the order in which its lines arrived. */
export function createLogEvents({ sql }: Database) {
  const insert = sql.prepare(
    'INSERT INTO log_events (stream, seq, at, ingested_at, source, rank, message) VALUES (?, ?, ?, ?, ?, ?, ?)',
  );
  const advance = sql.prepare(
    `UPDATE log_streams SET next_seq = next_seq + ?1, first_at = min(coalesce(first_at, ?2), ?2),
       last_at = max(coalesce(last_at, ?3), ?3), last_ingested_at = ?4, stored_bytes = stored_bytes + ?5 WHERE id = ?6`,
  );
  // A plus sign keeps SQLite on the primary key, whose order is wanted.
  const forward = sql.prepare(
    `SELECT ${COLUMNS} FROM log_events WHERE stream = ? AND seq >= ? AND seq < ? AND +at >= ? AND +at < ?
     ORDER BY seq LIMIT ?`,
  );
  const backward = sql.prepare(
    `SELECT ${COLUMNS} FROM log_events WHERE stream = ? AND seq >= ? AND seq < ? AND +at >= ? AND +at < ?
     ORDER BY seq DESC LIMIT ?`,
  );
  const firstSince = sql.prepare('SELECT min(seq) AS seq FROM log_events WHERE stream = ? AND at >= ?');
  const lastBefore = sql.prepare('SELECT max(seq) AS seq FROM log_events WHERE stream = ? AND at < ?');
  const byTime = sql.prepare(
    `SELECT ${COLUMNS} FROM log_events WHERE stream = ? AND (at, seq) > (?, ?) AND at < ?
     ORDER BY at, seq LIMIT ?`,
  );
  const byTimeDescending = sql.prepare(
    `SELECT ${COLUMNS} FROM log_events WHERE stream = ? AND (at, seq) < (?, ?) AND at >= ?
     ORDER BY at DESC, seq DESC LIMIT ?`,
  );

  /** Numbers between which all events of the window lie; found by time only where it can save a walk. */
  function seqRange(stream: LogStreamRow, window: PageWindow): { low: number; high: number } {
    const seqOf = (row: unknown): number | null => (row as { seq: number | null }).seq;
    const low =
      stream.firstAt !== null && window.startAt > stream.firstAt
        ? (seqOf(firstSince.get(stream.id, window.startAt)) ?? stream.nextSeq)
        : 0;
    const high =
      stream.lastAt !== null && window.endAt <= stream.lastAt
        ? (seqOf(lastBefore.get(stream.id, window.endAt)) ?? -1) + 1
        : stream.nextSeq;
    return { low, high };
  }

  function takePage(rows: Iterable<unknown>): { events: LogEventRow[]; isCut: boolean } {
    const events: LogEventRow[] = [];
    let bytes = 0;
    for (const row of rows as Iterable<LogEventRow>) {
      bytes += eventBytes(row.message);
      if (bytes > MAX_PAGE_BYTES && events.length > 0) return { events, isCut: true };
      events.push({ ...row });
    }
    return { events, isCut: false };
  }

  /** Reads in pieces of this many rows, so that no statement stays open between two reads. */
  function* inChunks(read: (last: LogEventRow | null) => unknown[], size: number): Generator<LogEventRow> {
    for (let last: LogEventRow | null = null; ; ) {
      const rows = read(last) as LogEventRow[];
      yield* rows;
      if (rows.length < size) return;
      last = rows.at(-1) as LogEventRow;
    }
  }

  return {
    /** Appends at the stream's end; the caller holds the transaction. */
    append(stream: LogStreamRow, events: readonly NewEvent[], ingestedAt: number): void {
      if (events.length === 0) return;
      let [bytes, first, last, seq] = [0, Infinity, -Infinity, stream.nextSeq];
      for (const { at, source, rank, message } of events) {
        insert.run(stream.id, seq++, at, ingestedAt, source, rank, message);
        bytes += eventBytes(message);
        first = Math.min(first, at);
        last = Math.max(last, at);
      }
      advance.run(events.length, first, last, ingestedAt, bytes, stream.id);
    },

    /** The page that starts at number `fromSeq`. */
    readForward(stream: LogStreamRow, fromSeq: number, window: PageWindow): EventPage {
      const { low, high } = seqRange(stream, window);
      const rows = forward.iterate(
        stream.id,
        Math.max(fromSeq, low),
        high,
        window.startAt,
        window.endAt,
        window.limit,
      );
      const { events, isCut } = takePage(rows);
      const isEnd = !isCut && events.length < window.limit;
      const lastSeq = events.at(-1)?.seq ?? fromSeq - 1;
      // Lines behind the end of the window were passed over only if the window is open to what comes.
      const toSeq = isEnd && high === stream.nextSeq ? Math.max(fromSeq, stream.nextSeq) : lastSeq + 1;
      return { events, fromSeq: events[0]?.seq ?? fromSeq, toSeq };
    },

    /** The page that ends before number `toSeq`. */
    readBackward(stream: LogStreamRow, toSeq: number, window: PageWindow): EventPage {
      const { low, high } = seqRange(stream, window);
      const rows = backward.iterate(
        stream.id,
        low,
        Math.min(toSeq, high),
        window.startAt,
        window.endAt,
        window.limit,
      );
      const events = takePage(rows).events.reverse();
      return { events, fromSeq: events[0]?.seq ?? toSeq, toSeq: (events.at(-1)?.seq ?? toSeq - 1) + 1 };
    },

    /** The events of one stream in the window by time, after (or, descending, before) a place. */
    sourceByTime(
      stream: LogStreamRow,
      window: { startAt: number; endAt: number },
      from: { at: number; seq: number } | null,
      options: { isDescending: boolean; chunkSize: number },
    ): EventSource {
      const { chunkSize, isDescending } = options;
      const { startAt, endAt } = window;
      const rows = isDescending
        ? () => {
            const place = from ?? { at: endAt, seq: -1 };
            return inChunks((last) => {
              const { at, seq } = last ?? place;
              return byTimeDescending.all(stream.id, at, seq, startAt, chunkSize);
            }, chunkSize);
          }
        : () => {
            const place = from ?? { at: startAt, seq: -1 };
            return inChunks((last) => {
              const { at, seq } = last ?? place;
              return byTime.all(stream.id, at, seq, endAt, chunkSize);
            }, chunkSize);
          };
      const boundAt = isDescending
        ? Math.min(stream.lastAt ?? endAt, endAt)
        : Math.max(stream.firstAt ?? startAt, startAt);
      return { streamId: stream.id, boundAt, rows };
    },

    /** The events of one stream from a number on, in the order of the stream. */
    sourceByNumber(stream: LogStreamRow, fromSeq: number, chunkSize: number): EventSource {
      const rows = () =>
        inChunks((last) => {
          const seq = last === null ? fromSeq : last.seq + 1;
          return forward.all(stream.id, seq, stream.nextSeq, ALWAYS.startAt, ALWAYS.endAt, chunkSize);
        }, chunkSize);
      return { streamId: stream.id, boundAt: ALWAYS.startAt, rows };
    },
  };
}

export type LogEvents = ReturnType<typeof createLogEvents>;
