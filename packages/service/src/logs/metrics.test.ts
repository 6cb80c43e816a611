import type { LogLine } from '@trainyard/api';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Database } from '../store/database.ts';
import { openDatabase } from '../store/database.ts';
import {
  compileMetricRegex,
  MAX_SEARCHED_CHARACTERS,
  MetricRegexError,
  searchLines,
} from './metric-regex.ts';
import type { MetricDefinition } from './metrics.ts';
import { checkMetricDefinitions } from './metrics.ts';
import type { LogStore } from './store.ts';
import { createLogStore } from './store.ts';

let database: Database;
let store: LogStore;
let definitions: MetricDefinition[];
let sent: number;

beforeEach(() => {
  database = openDatabase(':memory:');
  definitions = [
    { Name: 'loss', Regex: 'loss[=:] ?([-+0-9.eE]+)' },
    { Name: 'accuracy', Regex: 'acc=([0-9.]+)' },
  ];
  sent = 0;
  store = createLogStore(database, { now: () => 0, metricDefinitionsOf: () => definitions });
});
afterEach(() => database.close());

function say(...texts: (string | Partial<LogLine>)[]): void {
  const stream = { name: 'job/algo-1-1', jobName: 'job', attempt: 1, host: 'algo-1' };
  const lines = texts.map((text, index): LogLine => {
    const line = { at: 1_000 + sent + index, source: 'stdout' as const, rank: 0, message: '' };
    return typeof text === 'string' ? { ...line, message: text } : { ...line, ...text };
  });
  store.appendBatch({ stream, firstSeq: sent, lines });
  sent += lines.length;
}

const values = (name: string): number[] => store.metrics.series('job', name).map(({ value }) => value);

test('numbers are taken from lines with their time, host and rank', () => {
  say('epoch 1', 'loss=0.5 acc=0.25', { message: 'loss: 1e-3', rank: 1 });
  expect(store.metrics.series('job', 'loss')).toMatchObject([
    { name: 'loss', value: 0.5, at: 1_001, host: 'algo-1', attempt: 1, rank: 0 },
    { name: 'loss', value: 0.001, at: 1_002, rank: 1 },
  ]);
  expect(values('accuracy')).toEqual([0.25]);
});

test('a line with several values, as a progress bar writes it, gives a point for each', () => {
  say('loss=3\rloss=2\rloss=1');
  expect(values('loss')).toEqual([3, 2, 1]);
});

test('text that is no finite number, and lines of the agent, give no point', () => {
  definitions = [{ Name: 'loss', Regex: 'loss=(\\S+)' }];
  say(
    'loss=nan',
    'loss=inf',
    'loss=1e999',
    'loss=0x10',
    'loss=',
    { message: 'loss=7', source: 'agent' },
    'loss=1.',
  );
  expect(values('loss')).toEqual([1]);
});

test('a line that is sent twice gives its points once', () => {
  say('loss=1', 'loss=2');
  sent = 0;
  say('loss=1', 'loss=2', 'loss=3');
  expect(values('loss')).toEqual([1, 2, 3]);
});

test('the final value is the last one by time; a window cuts the series', () => {
  say('loss=3', 'loss=2', { message: 'loss=9', at: 1 });
  expect(store.metrics.finalValues('job')).toMatchObject([{ name: 'loss', value: 2 }]);
  expect(store.metrics.series('job', 'loss', { startAt: 1, endAt: 1_001 }).map(({ value }) => value)).toEqual(
    [9, 3],
  );
});

test('points can be read on from a cursor in the order they arrived', () => {
  say('loss=1', 'acc=2');
  const [first] = store.metrics.pointsAfter('job', 0, 1);
  expect(first).toMatchObject({ name: 'loss', value: 1 });
  expect(store.metrics.pointsAfter('job', first?.id ?? 0, 10)).toMatchObject([
    { name: 'accuracy', value: 2 },
  ]);
});

test('an expression that explodes is put out of use, and all others go on', () => {
  definitions = [
    { Name: 'hostile', Regex: '(a+)+$' },
    { Name: 'loss', Regex: 'loss=([0-9.]+)' },
  ];
  say('loss=1', `${'a'.repeat(60)}! loss=2`);
  say('loss=3', `${'a'.repeat(60)}!`);
  expect(values('loss')).toEqual([1, 2, 3]);
  expect(store.metrics.faults('job')).toEqual([
    { name: 'hostile', message: expect.stringContaining('needs more than 50 ms') },
  ]);
});

test('only the first 4096 characters of a line are searched', () => {
  say(`${' '.repeat(MAX_SEARCHED_CHARACTERS)}loss=1`, `${' '.repeat(100)}loss=2`);
  expect(values('loss')).toEqual([2]);
});

test('an expression that matches nothing at many places comes to an end', () => {
  const { found, faults } = searchLines(['x'.repeat(5_000)], [compileMetricRegex('(y*)')]);
  expect(faults.size).toBe(0);
  expect(found).toHaveLength(64);
});

test('flags at the start and group names of Python and Java are understood', () => {
  expect(compileMetricRegex('(?i)LOSS=(?P<value>[0-9]+)').exec('loss=4')?.groups?.value).toBe('4');
  expect(compileMetricRegex('(?<value>[0-9]+)').exec('4')?.groups?.value).toBe('4');
});

test('an expression that JavaScript cannot compile is named when the job is created', () => {
  expect(() => compileMetricRegex('loss=(')).toThrow(MetricRegexError);
  expect(checkMetricDefinitions([{ Name: 'loss', Regex: 'loss=(' }])).toEqual([
    { name: 'loss', message: expect.stringContaining("'loss=('") },
  ]);
});
