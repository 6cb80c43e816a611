import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { defaultDataDirectory, readServiceCredentials, readServiceRecord } from './data-directory.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'trainyard-data-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

test('the data directory is TRAINYARD_DATA, made absolute, else below the home directory', () => {
  expect(defaultDataDirectory({ TRAINYARD_DATA: 'mine' })).toBe(resolve('mine'));
  expect(defaultDataDirectory({ TRAINYARD_DATA: '' })).toMatch(/\.local\/share\/trainyard\/data$/);
});

test('files that are absent or half written read as a service that is not there', () => {
  expect(readServiceRecord(directory)).toBeNull();
  expect(readServiceCredentials(directory)).toBeNull();
  writeFileSync(join(directory, 'service.json'), '{"url": "http://127');
  expect(readServiceRecord(directory)).toBeNull();
  writeFileSync(join(directory, 'service.json'), '{"url": "http://127.0.0.1:9400", "pid": 1}');
  expect(readServiceRecord(directory)).toEqual({ url: 'http://127.0.0.1:9400', pid: 1 });
});
