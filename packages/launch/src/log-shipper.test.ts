import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LogBatch, LogReceipt } from '@trainyard/api';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AgentLog } from './agent-log.ts';
import { LogFiles } from './log-files.ts';
import { LogShipper } from './log-shipper.ts';

let root: string;
let files: LogFiles;
let received: string[];
let over: AbortController;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'trainyard-logs-'));
  files = new LogFiles(join(root, 'logs'));
  mkdirSync(files.ranks, { recursive: true });
  received = [];
  over = new AbortController();
});
afterEach(() => {
  over.abort();
  rmSync(root, { recursive: true, force: true });
});

/** The service's side: each number once and in order. */
function store(batch: LogBatch): LogReceipt {
  if (batch.firstSeq > received.length) return { nextSeq: received.length };
  for (const line of batch.lines.slice(received.length - batch.firstSeq)) {
    received.push(`${line.source}${line.rank ?? ''} ${line.message}`);
  }
  return { nextSeq: received.length };
}

function shipper(send: (batch: LogBatch) => Promise<LogReceipt>, launcherLines: string[] = []): LogShipper {
  return new LogShipper({
    files,
    statePath: join(root, 'logs.json'),
    send,
    splitLauncherLine: (line, source) => [{ rank: null, source, message: line, text: line }],
    onLauncherLine: (line) => launcherLines.push(line),
  });
}

const run = (one: LogShipper): void => void one.run(over.signal);

test('lines of ranks, launcher and agent arrive with their source and rank, each stream in order', async () => {
  new AgentLog(files.agent).say('hello "you"');
  appendFileSync(files.rank(3, 'out'), 'one\ntwo\n');
  appendFileSync(files.rank(3, 'err'), 'oops\n');
  appendFileSync(files.launcher('err'), 'starting\n');
  appendFileSync(join(files.directory, 'other.txt'), 'not ours\n');
  const launcherLines: string[] = [];
  const one = shipper(async (batch) => store(batch), launcherLines);
  run(one);
  await one.drain();
  expect(received.toSorted()).toEqual([
    'agent hello "you"',
    'stderr starting',
    'stderr3 oops',
    'stdout3 one',
    'stdout3 two',
  ]);
  expect(received.indexOf('stdout3 one')).toBeLessThan(received.indexOf('stdout3 two'));
  expect(launcherLines).toEqual(['starting']);
});

test('a line without an end waits for its end, or for the end of all output', async () => {
  appendFileSync(files.launcher('out'), 'a\nhalf');
  const one = shipper(async (batch) => store(batch));
  run(one);
  await one.drain();
  expect(received).toEqual(['stdout a']);
  appendFileSync(files.launcher('out'), ' done\nlast');
  await one.drain();
  expect(received).toEqual(['stdout a', 'stdout half done']);
  one.endOutput();
  await one.drain();
  expect(received.at(-1)).toBe('stdout last');
});

test('a crash after the service took a batch, but before the agent knew, doubles nothing', async () => {
  appendFileSync(files.launcher('out'), 'a\nb\n');
  const crashed = shipper(
    (batch) =>
      new Promise(() => {
        store(batch);
        taken();
      }),
  );
  let taken = (): void => {};
  const sent = new Promise<void>((resolve) => {
    taken = resolve;
  });
  run(crashed);
  await sent;
  appendFileSync(files.launcher('out'), 'c\n');
  const next = shipper(async (batch) => store(batch));
  run(next);
  await next.drain();
  expect(received).toEqual(['stdout a', 'stdout b', 'stdout c']);
});

test('a crash before the service took a batch loses nothing', async () => {
  appendFileSync(files.launcher('out'), 'a\nb\n');
  let tried = (): void => {};
  const sent = new Promise<void>((resolve) => {
    tried = resolve;
  });
  run(shipper(() => new Promise(() => tried())));
  await sent;
  const next = shipper(async (batch) => store(batch));
  run(next);
  await next.drain();
  expect(received).toEqual(['stdout a', 'stdout b']);
});

test('a service that was put back to an earlier time gets the lines under the numbers that it expects', async () => {
  appendFileSync(files.launcher('out'), 'a\nb\n');
  const one = shipper(async (batch) => store(batch));
  run(one);
  await one.drain();
  received = ['stdout a'];
  appendFileSync(files.launcher('out'), 'c\n');
  await one.drain();
  expect(received).toEqual(['stdout a', 'stdout c']);
});

test('a part of a line that a full disk left of the agent’s own is shown as it is', async () => {
  appendFileSync(files.agent, '{"at": 1, "mess\n');
  const one = shipper(async (batch) => store(batch));
  run(one);
  await one.drain();
  expect(received).toEqual(['agent {"at": 1, "mess']);
});
