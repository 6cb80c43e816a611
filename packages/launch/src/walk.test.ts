import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { walkFiles } from './walk.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'trainyard-walk-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const paths = async (): Promise<string[]> => (await walkFiles(root)).map(({ path }) => path);

test('files come in order, with their sizes; folders and special files do not', async () => {
  mkdirSync(join(root, 'b/empty'), { recursive: true });
  writeFileSync(join(root, 'b/.hidden'), 'xyz');
  writeFileSync(join(root, 'a'), '');
  execFileSync('mkfifo', [join(root, 'pipe')]);
  expect((await walkFiles(root)).map(({ path, sizeBytes }) => [path, sizeBytes])).toEqual([
    ['a', 0],
    ['b/.hidden', 3],
  ]);
});

test('links inside the tree count as files; links out of it, to folders and to nothing do not', async () => {
  mkdirSync(join(root, 'folder'));
  writeFileSync(join(root, 'folder/model-9.pt'), '12345');
  symlinkSync('folder/model-9.pt', join(root, 'last.pt'));
  symlinkSync('/etc/passwd', join(root, 'leak'));
  symlinkSync('..', join(root, 'folder/up'));
  symlinkSync('nowhere', join(root, 'broken'));
  expect(await paths()).toEqual(['folder/model-9.pt', 'last.pt']);
});

test('a directory that does not exist has no files', async () => {
  expect(await walkFiles(join(root, 'nowhere'))).toEqual([]);
});
