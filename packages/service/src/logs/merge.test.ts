import { expect, test } from 'vitest';
import type { EventSource, LogEventRow } from './merge.ts';
import { mergeByTime } from './merge.ts';

const row = (streamId: number, seq: number, at: number): LogEventRow => ({
  streamId,
  seq,
  at,
  ingestedAt: 0,
  source: 'stdout',
  rank: null,
  message: '',
});

function source(streamId: number, times: number[], opened: number[] = []): EventSource {
  return {
    streamId,
    boundAt: times[0] ?? 0,
    *rows() {
      opened.push(streamId);
      yield* times.map((at, seq) => row(streamId, seq, at));
    },
  };
}

test('streams are mixed by time, then by stream, then by number', () => {
  const merged = [...mergeByTime([source(2, [1, 3, 3]), source(1, [3, 4])])];
  expect(merged.map(({ streamId, seq }) => [streamId, seq])).toEqual([
    [2, 0],
    [1, 0],
    [2, 1],
    [2, 2],
    [1, 1],
  ]);
});

test('descending, the same events come in the opposite order', () => {
  const ascending = [...mergeByTime([source(1, [1, 5, 5]), source(2, [2, 5])])];
  const reversed = (streamId: number, times: number[]): EventSource => ({
    streamId,
    boundAt: times.at(-1) ?? 0,
    rows: () =>
      times
        .map((at, seq) => row(streamId, seq, at))
        .reverse()
        [Symbol.iterator](),
  });
  const descending = [...mergeByTime([reversed(1, [1, 5, 5]), reversed(2, [2, 5])], true)];
  expect(descending).toEqual(ascending.reverse());
});

test('a stream whose clock stepped back keeps its own order', () => {
  const merged = [...mergeByTime([source(1, [10, 4, 11]), source(2, [5])])];
  expect(merged.filter(({ streamId }) => streamId === 1).map(({ seq }) => seq)).toEqual([0, 1, 2]);
});

test('a stream that begins later is not opened before the walk gets there', () => {
  const opened: number[] = [];
  const merged = mergeByTime([source(1, [1, 2, 3], opened), source(2, [100], opened)]);
  for (let count = 0; count < 3; count++) merged.next();
  expect(opened).toEqual([1]);
  expect([...merged]).toHaveLength(1);
  expect(opened).toEqual([1, 2]);
});
