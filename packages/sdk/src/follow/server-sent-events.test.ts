import fc from 'fast-check';
import { expect, test } from 'vitest';
import { readServerSentEvents } from './server-sent-events.ts';
import type { ServerSentEvent } from './server-sent-events.ts';

async function read(chunks: Uint8Array[]): Promise<ServerSentEvent[]> {
  const events: ServerSentEvent[] = [];
  for await (const event of readServerSentEvents(ReadableStream.from(chunks))) events.push(event);
  return events;
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

test('type, id and data are read; comments and unknown fields are not events', async () => {
  const text = ': hello\n\nid: 7\nevent: log\ndata: {"a":1}\nretry: 5\n\ndata:two\ndata: lines\n\n';
  expect(await read([encode(text)])).toEqual([
    { type: 'log', id: '7', data: '{"a":1}' },
    { type: 'message', id: '7', data: 'two\nlines' },
  ]);
});

test('an event that the connection cut off is dropped', async () => {
  expect(await read([encode('id: 1\ndata: a\n\nid: 2\ndata: b\n')])).toEqual([
    { type: 'message', id: '1', data: 'a' },
  ]);
});

test('the reading does not depend on how the bytes are cut, nor on the line ends', async () => {
  const lines = [
    'id: 1',
    'event: log',
    'data: {"m":"größer 模型"}',
    '',
    ': beat',
    '',
    'id: 2',
    'data: x',
    '',
    '',
  ];
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('\n', '\r\n', '\r'),
      fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1 }),
      async (lineEnd, sizes) => {
        const bytes = encode(lines.join(lineEnd));
        const chunks: Uint8Array[] = [];
        for (let at = 0, turn = 0; at < bytes.length; turn++) {
          const size = sizes[turn % sizes.length] ?? 1;
          chunks.push(bytes.subarray(at, at + size));
          at += size;
        }
        // A lone CR at the end of the stream might be the start of CRLF, so the last event then needs one more line end.
        if (lineEnd === '\r') chunks.push(encode('\r'));
        expect(await read(chunks)).toEqual([
          { type: 'log', id: '1', data: '{"m":"größer 模型"}' },
          { type: 'message', id: '2', data: 'x' },
        ]);
      },
    ),
  );
});
