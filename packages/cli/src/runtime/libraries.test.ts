import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { buildKey, findLibraries, reasonOf } from './libraries.ts';

let root: string;
let library: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'trainyard-libraries-'));
  library = join(root, 'libs', 'collective');
  mkdirSync(join(library, 'csrc'), { recursive: true });
  writeFileSync(join(library, 'pyproject.toml'), '[project]');
  writeFileSync(join(library, 'csrc', 'a.cc'), 'int a;');
});
afterEach(() => rmSync(root, { recursive: true }));

test('a wheel is built again when a source, a name or the torch it is for changes', () => {
  const key = buildKey(library, 'torch 2.13.0');
  expect(buildKey(library, 'torch 2.13.0')).toBe(key);
  expect(buildKey(library, 'torch 2.14.0')).not.toBe(key);
  writeFileSync(join(library, 'csrc', 'a.cc'), 'int b;');
  const changed = buildKey(library, 'torch 2.13.0');
  expect(changed).not.toBe(key);
  writeFileSync(join(library, 'csrc', 'b.h'), '');
  expect(buildKey(library, 'torch 2.13.0')).not.toBe(changed);
});

test('what a build or a test leaves behind does not make a wheel stale', () => {
  const key = buildKey(library, 'torch 2.13.0');
  for (const folder of ['build', 'tests', '__pycache__']) {
    mkdirSync(join(library, folder));
    writeFileSync(join(library, folder, 'x'), 'x');
  }
  writeFileSync(join(library, 'README.md'), '# changed');
  expect(buildKey(library, 'torch 2.13.0')).toBe(key);
});

test('the libraries are those of the clone that the program belongs to', () => {
  expect(findLibraries(join(root, 'packages', 'cli', 'dist', 'trainyard.mjs'))).toBe(join(root, 'libs'));
  expect(findLibraries(join(tmpdir(), 'elsewhere', 'trainyard.mjs'))).toBeNull();
});

test("a build's own error is shown without its stack", () => {
  const output =
    'Traceback (most recent call last):\n  File "x.py", line 1\nbuild_backend.BuildError: no C++ compiler found (g++, c++ or clang++); install one\n';
  expect(reasonOf(output)).toBe('no C++ compiler found (g++, c++ or clang++); install one');
});
