import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LogLine } from '@trainyard/api';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Database } from '../store/database.ts';
import { openDatabase } from '../store/database.ts';
import type { HostStream, LogNotice, LogStore } from './store.ts';
import { createLogStore, LogGapError } from './store.ts';
import { hostStreamName, isReservedForHosts, TRAINING_LOG_GROUP } from './stream-name.ts';

let directory: string;
let database: Database;
let store: LogStore;

function open(): void {
  database = openDatabase(join(directory, 'trainyard.sqlite'));
  store = createLogStore(database, {
    now: () => 5_000,
    metricDefinitionsOf: () => [{ Name: 'loss', Regex: 'loss=([0-9.]+)' }],
  });
}

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'trainyard-logs-'));
  open();
});

afterEach(() => {
  database.close();
  rmSync(directory, { recursive: true });
});

const hostStream = (host = 'algo-1', jobName = 'job'): HostStream => ({
  name: hostStreamName(jobName, host, 1_700_000_000_123),
  jobName,
  attempt: 1,
  host,
});

const lines = (first: number, count: number, at = 1_000): LogLine[] =>
  Array.from({ length: count }, (_, index) => ({
    at: at + first + index,
    source: 'stdout',
    rank: 0,
    message: `line ${first + index}`,
  }));

const messages = (jobName = 'job'): string[] =>
  store.readAfter(jobName, '', 100_000).events.map(({ message }) => message);

test('a host stream is named as on SageMaker and reserved for hosts', () => {
  expect(hostStream().name).toBe('job/algo-1-1700000000');
  expect(isReservedForHosts(TRAINING_LOG_GROUP, 'job/algo-1-1700000000')).toBe(true);
  expect(isReservedForHosts(TRAINING_LOG_GROUP, 'job/my-notes')).toBe(false);
  expect(isReservedForHosts('/other', 'job/algo-1-1700000000')).toBe(false);
});

test('a host has its stream before its first line, and a retry in the same second has another', () => {
  const origin = { jobName: 'job', attempt: 1, host: 'algo-1' };
  const name = store.openHostStream(origin, 1_700_000_000_123);
  expect(name).toBe('job/algo-1-1700000000');
  expect(store.openHostStream(origin, 1_700_000_009_000)).toBe(name);
  expect(store.streams.find(TRAINING_LOG_GROUP, name)?.nextSeq).toBe(0);
  store.appendBatch({ stream: { ...origin, name }, firstSeq: 0, lines: lines(0, 2) });

  const retry = { ...origin, attempt: 2 };
  const second = store.openHostStream(retry, 1_700_000_000_900);
  expect(second).toBe('job/algo-1-1700000001');
  store.appendBatch({ stream: { ...retry, name: second }, firstSeq: 0, lines: lines(0, 2) });
  expect(messages()).toHaveLength(4);

  const mixedUp = { stream: { ...retry, name }, firstSeq: 2, lines: lines(2, 1) };
  expect(() => store.appendBatch(mixedUp)).toThrow('belongs to algo-1 of job job, attempt 1');
  store.streams.delete(TRAINING_LOG_GROUP, second);
  expect(store.openHostStream({ ...origin, attempt: 3 }, 1_700_000_001_000)).toBe('job/algo-1-1700000002');
});

test('a batch that is sent again, whole or with new lines behind it, is stored once', () => {
  const stream = hostStream();
  expect(store.appendBatch({ stream, firstSeq: 0, lines: lines(0, 3) })).toBe(3);
  expect(store.appendBatch({ stream, firstSeq: 0, lines: lines(0, 3) })).toBe(3);
  expect(store.appendBatch({ stream, firstSeq: 1, lines: lines(1, 4) })).toBe(5);
  expect(messages()).toEqual(['line 0', 'line 1', 'line 2', 'line 3', 'line 4']);
});

test('a batch behind a gap is refused with the number that is missing, and stores nothing', () => {
  const stream = hostStream();
  store.appendBatch({ stream, firstSeq: 0, lines: lines(0, 2) });
  const append = () => store.appendBatch({ stream, firstSeq: 3, lines: lines(3, 1) });
  expect(append).toThrow(LogGapError);
  expect(append).toThrow(expect.objectContaining({ expectedSeq: 2, firstSeq: 3 }));
  expect(messages()).toHaveLength(2);
});

test('an empty batch asks for the number that is expected next', () => {
  expect(store.appendBatch({ stream: hostStream(), firstSeq: 0, lines: [] })).toBe(0);
  store.appendBatch({ stream: hostStream(), firstSeq: 0, lines: lines(0, 2) });
  expect(store.appendBatch({ stream: hostStream(), firstSeq: 2, lines: [] })).toBe(2);
});

test('lines keep every character, also NUL, blank lines and what is beyond 16 bits', () => {
  const texts = ['', '  ', 'a\u0000b', 'Größe 🚆', 'x'.repeat(300_000)];
  const batch = texts.map((message): LogLine => ({ at: 1, source: 'stderr', rank: null, message }));
  store.appendBatch({ stream: hostStream(), firstSeq: 0, lines: batch });
  expect(messages()).toEqual(texts);
});

test('reading on from a cursor gives every line once, hosts mixed by time, also after a restart', () => {
  const [one, two] = [hostStream('algo-1'), hostStream('algo-2')];
  store.appendBatch({ stream: one, firstSeq: 0, lines: lines(0, 3, 1_000) });
  store.appendBatch({ stream: two, firstSeq: 0, lines: lines(0, 3, 1_001) });
  const first = store.readAfter('job', '', 4);
  expect(first.events.map(({ host, seq }) => `${host} ${seq}`)).toEqual([
    'algo-1 0',
    'algo-1 1',
    'algo-2 0',
    'algo-1 2',
  ]);

  database.close();
  open();
  // Older by its clock than all that was read: it comes all the same.
  store.appendBatch({ stream: one, firstSeq: 3, lines: lines(3, 1, 0) });
  const second = store.readAfter('job', first.cursor, 100);
  expect(second.events.map(({ host, seq }) => `${host} ${seq}`)).toEqual([
    'algo-1 3',
    'algo-2 1',
    'algo-2 2',
  ]);
  const third = store.readAfter('job', second.cursor, 100);
  expect(third).toEqual({ events: [], cursor: second.cursor });
  const inMiddle = first.events[1]?.cursor ?? '';
  expect(store.readAfter('job', inMiddle, 100).events).toHaveLength(5);
});

test('a cursor that cannot be read starts at the beginning, and other jobs stay out', () => {
  store.appendBatch({ stream: hostStream(), firstSeq: 0, lines: lines(0, 2) });
  store.appendBatch({ stream: hostStream('algo-1', 'job-2'), firstSeq: 0, lines: lines(0, 5) });
  expect(store.readAfter('job', 'nonsense', 10).events).toHaveLength(2);
});

test('subscribers hear of stored lines, not of repeats or of what was rolled back', async () => {
  const notices: LogNotice[] = [];
  const unsubscribe = store.subscribe('job', (notice) => notices.push(notice));
  const stream = hostStream();
  store.appendBatch({
    stream,
    firstSeq: 0,
    lines: [{ at: 1, source: 'stdout', rank: 0, message: 'loss=0.5' }],
  });
  expect(notices).toEqual([]);
  await Promise.resolve();
  expect(notices).toEqual([{ stream: stream.name, nextSeq: 1, metricPoints: 1 }]);
  store.appendBatch({ stream, firstSeq: 0, lines: lines(0, 1) });
  store.appendBatch({ stream: hostStream('algo-1', 'other'), firstSeq: 0, lines: lines(0, 1) });
  await Promise.resolve();
  expect(notices).toHaveLength(1);
  unsubscribe();
  store.appendBatch({ stream, firstSeq: 1, lines: lines(1, 1) });
  await Promise.resolve();
  expect(notices).toHaveLength(1);
});

test('a deleted stream hides its lines and goes on with its numbers when the host sends more', () => {
  const stream = hostStream();
  store.appendBatch({ stream, firstSeq: 0, lines: lines(0, 3) });
  expect(store.streams.delete(TRAINING_LOG_GROUP, stream.name)).toBe(true);
  expect(store.streams.find(TRAINING_LOG_GROUP, stream.name)).toBeUndefined();
  expect(messages()).toEqual([]);
  expect(store.appendBatch({ stream, firstSeq: 3, lines: lines(3, 1) })).toBe(4);
  expect(messages()).toEqual(['line 3']);
});

test('after its release, a job name starts empty again', () => {
  const stream = hostStream();
  store.appendBatch({
    stream,
    firstSeq: 0,
    lines: [{ at: 1, source: 'stdout', rank: 0, message: 'loss=0.5' }],
  });
  store.releaseJob('job');
  expect(messages()).toEqual([]);
  expect(store.metrics.series('job', 'loss')).toEqual([]);
  expect(store.streams.find(TRAINING_LOG_GROUP, stream.name)?.nextSeq).toBe(1);
});

test('a batch that the disk has no room for is stored not at all, and whole when it is sent again', () => {
  const stream = hostStream();
  store.appendBatch({ stream, firstSeq: 0, lines: lines(0, 2) });
  const { page_count: pages } = database.sql.prepare('PRAGMA page_count').get() as { page_count: number };
  database.sql.exec(`PRAGMA max_page_count = ${pages + 2}`);
  const batch = { stream, firstSeq: 2, lines: lines(2, 5_000) };
  expect(() => store.appendBatch(batch)).toThrow();
  expect(messages()).toHaveLength(2);
  expect(store.appendBatch({ stream, firstSeq: 2, lines: [] })).toBe(2);
  database.sql.exec('PRAGMA max_page_count = 1000000');
  expect(store.appendBatch(batch)).toBe(5_002);
  expect(messages()).toHaveLength(5_002);
});

test('reading by time uses the index of times', () => {
  const plan = database.sql
    .prepare(
      'EXPLAIN QUERY PLAN SELECT 1 FROM log_events WHERE stream = 1 AND (at, seq) > (2, 3) ORDER BY at, seq',
    )
    .all() as { detail: string }[];
  expect(plan.map(({ detail }) => detail)).toEqual([
    'SEARCH log_events USING COVERING INDEX log_events_by_time (stream=? AND (at,seq)>(?,?))',
  ]);
});
