import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { StateStore } from './state.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'trainyard-state-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

test('what was changed is there for the next agent, numbers go on', async () => {
  const first = StateStore.open(root);
  expect(first.resumed).toBe(false);
  await first.enter('downloading');
  await first.notice('code', 'text');
  const second = StateStore.open(root);
  expect(second.resumed).toBe(true);
  expect(second.current).toMatchObject({ phase: 'downloading', nextReportSeq: 2 });
  await second.enter('ready');
  expect(second.current.reports.map(({ seq, kind }) => [seq, kind])).toEqual([
    [0, 'phase'],
    [1, 'notice'],
    [2, 'phase'],
  ]);
});

test('changes made at once are all on disk when each resolves', async () => {
  const store = StateStore.open(root);
  await Promise.all(Array.from({ length: 20 }, () => store.update(({ uploaded }) => uploaded.push('x'))));
  expect(StateStore.open(root).current.uploaded).toHaveLength(20);
});

test('waiting for a state ends when it comes, at once when it is there, and with an abort', async () => {
  const store = StateStore.open(root);
  const waiting = store.until(({ finish }) => finish);
  await store.update((state) => {
    state.finish = true;
  });
  await waiting;
  await store.until(({ finish }) => finish);
  const abort = new AbortController();
  const never = store.until(() => false, abort.signal);
  abort.abort(new Error('enough'));
  await expect(never).rejects.toThrow('enough');
});
