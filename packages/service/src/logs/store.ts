import type { LogLine } from '@trainyard/api';
import type { Database } from '../store/database.ts';
import type { LogEvents, NewEvent } from './events.ts';
import { createLogEvents } from './events.ts';
import type { LogEventRow } from './merge.ts';
import { mergeByTime } from './merge.ts';
import type { MetricDefinition, Metrics } from './metrics.ts';
import { createMetrics } from './metrics.ts';
import { hostStreamName, TRAINING_LOG_GROUP } from './stream-name.ts';
import type { LogStreamRow, LogStreams, StreamOrigin } from './streams.ts';
import { createLogStreams } from './streams.ts';

/** Lines are missing between what is stored and this batch: send again from `expectedSeq`. */
export class LogGapError extends Error {
  readonly stream: string;
  readonly expectedSeq: number;
  readonly firstSeq: number;

  constructor(stream: string, expectedSeq: number, firstSeq: number) {
    super(`Log stream ${stream} continues at line ${expectedSeq}, but the batch starts at line ${firstSeq}.`);
    this.name = 'LogGapError';
    this.stream = stream;
    this.expectedSeq = expectedSeq;
    this.firstSeq = firstSeq;
  }
}

export interface HostStream extends StreamOrigin {
  /** As {@link LogStore.openHostStream} gave it; lives in {@link TRAINING_LOG_GROUP}. */
  name: string;
}

export interface AppendBatch {
  stream: HostStream;
  /** Number of the first line, counted per stream from 0. */
  firstSeq: number;
  lines: readonly LogLine[];
}

/** Something new is readable; says how far, not what: read on from your own cursor. */
export interface LogNotice {
  stream: string;
  nextSeq: number;
  /** How many metric points came with it. */
  metricPoints: number;
}

export interface JobLogEvent extends LogEventRow {
  stream: string;
  host: string;
  /** Reading on after this line; survives a restart of the service. */
  cursor: string;
}

export interface JobLogPage {
  events: JobLogEvent[];
  /** That of the last line, or the one that was given. */
  cursor: string;
}

export interface LogStoreOptions {
  /** Epoch milliseconds. */
  now: () => number;
  /** Metric definitions of a job, asked once while its lines arrive; none for an unknown job. */
  metricDefinitionsOf: (jobName: string) => readonly MetricDefinition[];
}

export interface LogStore {
  readonly streams: LogStreams;
  readonly events: LogEvents;
  readonly metrics: Metrics;
  /**
   * Makes the stream of a host of one attempt, readable at once though it is empty: SageMaker's SDK v3 shows no
   * logs until every host has one. Asked again, it gives the same. A name that another attempt took in the same
   * second is passed over: its numbers have begun, and this host's first lines would be taken for repeats.
   *
   * @param startedAt epoch milliseconds of the host's start
   * @returns the name, `<job>/<host>-<seconds>`
   */
  openHostStream(origin: StreamOrigin, startedAt: number): string;
  /**
   * Stores lines of a host exactly once: lines that are stored already are dropped, so a batch may be sent again.
   * Durable when it returns, unless the caller holds a transaction of its own.
   *
   * @returns number of the line that is expected next
   * @throws LogGapError when lines before this batch are missing; nothing is stored
   * @throws Error when the stream is another host's or another attempt's
   */
  appendBatch(batch: AppendBatch): number;
  /** Stores events that a client put into a stream of its own. */
  appendClientEvents(stream: LogStreamRow, clientEvents: readonly NewEvent[]): void;
  /**
   * Lines of all hosts of a job that the cursor has not passed, each host's in its own order, the hosts mixed by
   * time. A line that arrives late comes later; none is left out.
   *
   * @param cursor of the previous page; empty or unreadable starts at the beginning
   * @param limit at most this many lines
   */
  readAfter(jobName: string, cursor: string, limit: number): JobLogPage;
  /** Calls back after lines of the job were stored. @returns the function that ends it. */
  subscribe(jobName: string, callback: (notice: LogNotice) => void): () => void;
  /** Lets a new job of the same name start empty: its metric points go, its streams stay readable by name. */
  releaseJob(jobName: string): void;
}

export function createLogStore(database: Database, options: LogStoreOptions): LogStore {
  const streams = createLogStreams(database);
  const events = createLogEvents(database);
  const metrics = createMetrics(database, options.metricDefinitionsOf);
  const subscribers = new Map<string, Set<(notice: LogNotice) => void>>();

  function createHostStream(name: string, origin: StreamOrigin): void {
    const at = options.now();
    streams.createGroup(TRAINING_LOG_GROUP, at);
    streams.create(TRAINING_LOG_GROUP, name, at, origin);
  }

  function ensureHostStream(stream: HostStream): LogStreamRow {
    if (streams.find(TRAINING_LOG_GROUP, stream.name) === undefined) createHostStream(stream.name, stream);
    const row = streams.find(TRAINING_LOG_GROUP, stream.name) as LogStreamRow;
    if (row.jobName !== stream.jobName || row.attempt !== stream.attempt || row.host !== stream.host) {
      throw new Error(
        `Log stream ${stream.name} belongs to ${row.host} of job ${row.jobName}, attempt ${row.attempt}; got lines of ${stream.host}, attempt ${stream.attempt}.`,
      );
    }
    return row;
  }

  function notify(jobName: string, notice: LogNotice): void {
    const callbacks = subscribers.get(jobName);
    if (callbacks === undefined) return;
    // After the caller's own transaction, if it holds one: nobody may be told of lines that are rolled back.
    queueMicrotask(() => {
      for (const callback of callbacks) callback(notice);
    });
  }

  return {
    streams,
    events,
    metrics,

    openHostStream(origin, startedAt) {
      const { jobName, attempt, host } = origin;
      return database.transaction(() => {
        const known = streams.ofJob(jobName).find((row) => row.attempt === attempt && row.host === host);
        if (known !== undefined) return known.name;
        for (let at = startedAt; ; at += 1_000) {
          const name = hostStreamName(jobName, host, at);
          if (streams.isTaken(TRAINING_LOG_GROUP, name)) continue;
          createHostStream(name, origin);
          return name;
        }
      });
    },

    appendBatch({ stream, firstSeq, lines }) {
      return database.transaction(() => {
        const row = ensureHostStream(stream);
        if (firstSeq > row.nextSeq) throw new LogGapError(stream.name, row.nextSeq, firstSeq);
        const fresh = lines.slice(row.nextSeq - firstSeq);
        if (fresh.length === 0) return row.nextSeq;
        events.append(row, fresh, options.now());
        const metricPoints = metrics.extract(row, fresh, row.nextSeq);
        const nextSeq = row.nextSeq + fresh.length;
        notify(stream.jobName, { stream: stream.name, nextSeq, metricPoints });
        return nextSeq;
      });
    },

    appendClientEvents(stream, clientEvents) {
      database.transaction(() => events.append(stream, clientEvents, options.now()));
    },

    readAfter(jobName, cursor, limit) {
      const rows = new Map(streams.ofJob(jobName).map((row) => [row.id, row]));
      const before = parseCursor(cursor);
      const positions = new Map([...rows.keys()].map((id) => [id, before.get(id) ?? 0]));
      const sources = [...rows.values()]
        .filter((row) => row.nextSeq > (positions.get(row.id) ?? 0))
        .map((row) => events.sourceByNumber(row, positions.get(row.id) ?? 0, Math.min(limit, 500)));
      const page: JobLogEvent[] = [];
      for (const event of mergeByTime(sources)) {
        if (page.length === limit) break;
        const row = rows.get(event.streamId) as LogStreamRow;
        positions.set(event.streamId, event.seq + 1);
        page.push({ ...event, stream: row.name, host: row.host ?? '', cursor: formatCursor(positions) });
      }
      return { events: page, cursor: page.at(-1)?.cursor ?? cursor };
    },

    subscribe(jobName, callback) {
      const callbacks = subscribers.get(jobName) ?? new Set();
      subscribers.set(jobName, callbacks.add(callback));
      return () => {
        callbacks.delete(callback);
        if (callbacks.size === 0 && subscribers.get(jobName) === callbacks) subscribers.delete(jobName);
      };
    },

    releaseJob(jobName) {
      database.transaction(() => {
        streams.detachJob(jobName);
        metrics.forgetJob(jobName);
      });
    },
  };
}

/** `stream.number` for each stream that was read from, the number being that of the next line; short, for an event id. */
function formatCursor(positions: ReadonlyMap<number, number>): string {
  const parts: string[] = [];
  for (const [id, seq] of positions) if (seq > 0) parts.push(`${id.toString(36)}.${seq.toString(36)}`);
  return parts.join('-');
}

function parseCursor(cursor: string): Map<number, number> {
  const positions = new Map<number, number>();
  for (const part of cursor.split('-')) {
    const match = /^([0-9a-z]{1,10})\.([0-9a-z]{1,10})$/.exec(part);
    if (match !== null)
      positions.set(Number.parseInt(match[1] ?? '', 36), Number.parseInt(match[2] ?? '', 36));
  }
  return positions;
}
