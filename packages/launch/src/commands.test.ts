import { expect, test } from 'vitest';
import { apply, requestStop } from './commands.ts';
import type { AttemptState } from './state.ts';

const state = (): AttemptState => ({
  version: 1,
  phase: 'training',
  nextReportSeq: 0,
  reports: [],
  ackedCommand: -1,
  launch: null,
  startCommanded: false,
  startedAtMs: null,
  oomKillsBefore: null,
  stop: null,
  upload: null,
  uploaded: [],
  finish: false,
});

test('start is counted from its first coming', () => {
  const current = state();
  apply({ id: 0, kind: 'start' }, current, 100);
  apply({ id: 0, kind: 'start' }, current, 900);
  expect(current).toMatchObject({ startCommanded: true, startedAtMs: 100 });
});

test('the first stop decides how the end is called, later ones only shorten the time', () => {
  const current = state();
  apply({ id: 0, kind: 'stop', reason: 'user', graceMs: 120_000 }, current, 0);
  current.stop!.signalledAtMs = 1000;
  apply({ id: 1, kind: 'stop', reason: 'peer_failed', graceMs: 3000 }, current, 11_000);
  expect(current.stop).toEqual({ endedBy: 'stop', reason: 'user', graceMs: 13_000, signalledAtMs: 1000 });
  requestStop(current, 'max_runtime', 'max_runtime', 120_000, 12_000);
  expect(current.stop).toMatchObject({ endedBy: 'stop', graceMs: 13_000 });
});

test('upload keeps what belongs to this host', () => {
  const current = state();
  const share = {
    lead: true,
    parts: { model: ['algo-2'], output: [] },
    model: { own: ['a'] },
    output: { own: [] },
    notes: [],
  };
  apply({ id: 3, kind: 'upload', ...share }, current, 0);
  apply({ id: 4, kind: 'finish' }, current, 0);
  expect(current.upload).toEqual(share);
  expect(current.finish).toBe(true);
});
