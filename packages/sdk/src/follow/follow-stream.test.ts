import { jsonError } from '@trainyard/api';
import { expect, test } from 'vitest';
import { ServiceUnavailable } from '../errors.ts';
import { followStream } from './follow-stream.ts';
import type { EventSource, StreamTimes } from './follow-stream.ts';
import type { TrainingJobEvent } from './job-event.ts';

const times: StreamTimes = { silenceMs: 1_000, pauseMs: [0, 0], patienceMs: 1_000 };

/** The service's side: numbered log lines, and the end after the last. */
function log(id: number): string {
  return `id: ${id}\nevent: log\ndata: {"at":${id},"host":"algo-1","message":"line ${id}"}\n\n`;
}
const END = 'event: end\ndata: {}\n\n';

function stream(
  text: string,
  after: 'close' | 'break' | 'hang',
  signal?: AbortSignal,
): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      controller.enqueue(new TextEncoder().encode(text));
      if (after === 'close') controller.close();
      if (after === 'break') setImmediate(() => controller.error(new TypeError('terminated')));
      signal?.addEventListener('abort', () => controller.error(signal.reason));
    },
  });
}

async function collect(source: EventSource, options: Partial<StreamTimes> = {}): Promise<string[]> {
  const lines: string[] = [];
  const follow = followStream(source, { after: null, times: { ...times, ...options } });
  for await (const event of follow) lines.push((event as TrainingJobEvent & { type: 'log' }).message);
  return lines;
}

test('a stream that breaks is opened again after the last event that was read, and nothing comes twice', async () => {
  const asked: (string | null)[] = [];
  const answers = [
    () => stream(log(1) + log(2), 'break'),
    () => Promise.reject(new TypeError('fetch failed')),
    () => stream(log(3), 'close'),
    () => stream(log(4) + END, 'close'),
  ];
  const lines = await collect({
    open: async (lastEventId) => {
      asked.push(lastEventId);
      const answer = answers.shift();
      if (!answer) throw new Error('opened too often');
      return await answer();
    },
  });
  expect(lines).toEqual(['line 1', 'line 2', 'line 3', 'line 4']);
  expect(asked).toEqual([null, '2', '2', '3']);
});

test('a connection without a byte counts as lost', async () => {
  let opened = 0;
  const lines = await collect(
    {
      open: async (_id, signal) => {
        opened += 1;
        return opened === 1 ? stream(log(1), 'hang', signal) : stream(log(2) + END, 'close');
      },
    },
    { silenceMs: 20 },
  );
  expect(lines).toEqual(['line 1', 'line 2']);
});

test('a refusal is not asked for again', async () => {
  let opened = 0;
  const source: EventSource = {
    open: () => {
      opened += 1;
      return Promise.reject(jsonError('ValidationException', { message: 'Requested resource not found.' }));
    },
  };
  await expect(collect(source)).rejects.toMatchObject({ code: 'ValidationException' });
  expect(opened).toBe(1);
});

test('a service that stays away longer than the patience ends the following', async () => {
  const source: EventSource = { open: () => Promise.reject(new TypeError('fetch failed')) };
  await expect(collect(source, { patienceMs: 20, pauseMs: [5, 5] })).rejects.toBeInstanceOf(
    ServiceUnavailable,
  );
});

test('the caller ends the following by its signal', async () => {
  const stop = new AbortController();
  const source: EventSource = { open: async (_id, signal) => stream(log(1), 'hang', signal) };
  const seen: string[] = [];
  const following = (async () => {
    for await (const event of followStream(source, { after: null, signal: stop.signal, times })) {
      seen.push(event.type);
      stop.abort();
    }
  })();
  await expect(following).rejects.toThrow(/abort/i);
  expect(seen).toEqual(['log']);
});

test('an event type of a newer service is passed over, its id counts', async () => {
  const asked: (string | null)[] = [];
  const answers = [log(1) + 'id: 2\nevent: forecast\ndata: {}\n\n', END];
  await collect({
    open: async (lastEventId) => {
      asked.push(lastEventId);
      return stream(answers.shift() ?? '', 'close');
    },
  });
  expect(asked).toEqual([null, '2']);
});
