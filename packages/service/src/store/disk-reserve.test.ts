import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { DiskReserve, isDiskFull } from './disk-reserve.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'trainyard-reserve-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

test('holds space, gives it up, and holds it again', async () => {
  const path = join(directory, 'reserve');
  const reserve = new DiskReserve(path);
  for (let round = 0; round < 2; round++) {
    await reserve.hold();
    const { size, blocks } = statSync(path);
    expect(size).toBe(8 << 20);
    // Not a hole in a file: the blocks are taken.
    expect(blocks * 512).toBeGreaterThanOrEqual(size);
    reserve.release();
    expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
  }
});

test('what an earlier service held is given up first, so that the next one can start', () => {
  const path = join(directory, 'reserve');
  writeFileSync(path, 'x');
  new DiskReserve(path).checkStart();
  expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
});

test('a disk that cannot be asked counts as full', () => {
  const reserve = new DiskReserve(join(directory, 'gone', 'reserve'));
  expect(() => reserve.checkStart()).toThrow(/gone is full: 0 bytes free/);
});

test.each([
  [{ code: 'ENOSPC' }, true],
  [{ code: 'EDQUOT' }, true],
  [{ code: 'ERR_SQLITE_ERROR', errcode: 13 }, true],
  [{ code: 'ERR_SQLITE_ERROR', errcode: 5 }, false],
  [new Error('full'), false],
  [undefined, false],
])('%j says that the disk is full: %j', (error, expected) => {
  expect(isDiskFull(error)).toBe(expected);
});
