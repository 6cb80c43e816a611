import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { StartLock } from './start-lock.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'trainyard-lock-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

test('one holder at a time; the data directory is made for its user alone', () => {
  const data = join(directory, 'share/trainyard');
  const first = StartLock.tryTake(data);
  expect(first).not.toBeNull();
  expect(StartLock.tryTake(data)).toBeNull();
  first?.release();
  const second = StartLock.tryTake(data);
  expect(second).not.toBeNull();
  second?.release();
  expect(statSync(data).mode & 0o777).toBe(0o700);
});
