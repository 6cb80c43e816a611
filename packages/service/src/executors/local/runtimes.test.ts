import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  matchesImage,
  readImageRules,
  readRuntimes,
  resolveImage,
  runtimeTable,
  type RuntimeTable,
} from './runtimes.ts';

const dlc =
  '763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.3.0-cpu-py311-ubuntu20.04-sagemaker';
let root: string;
let table: RuntimeTable;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'trainyard-runtimes-'));
  table = { directory: join(root, 'runtimes'), python: null, configPath: join(root, 'config.json') };
  mkdirSync(table.directory);
});
afterEach(() => rmSync(root, { recursive: true }));

function writeExecutable(path: string): string {
  writeFileSync(path, '#!/bin/sh\n');
  chmodSync(path, 0o755);
  return path;
}

function addRuntime(name: string, manifest: Record<string, unknown> = {}): string {
  const folder = join(table.directory, name);
  mkdirSync(folder);
  const python = writeExecutable(join(folder, 'python'));
  writeFileSync(
    join(folder, 'runtime.json'),
    JSON.stringify({
      name,
      framework: 'pytorch',
      version: '2.13.0+cpu',
      python,
      binDirs: [folder],
      mpi: null,
      ...manifest,
    }),
  );
  return python;
}

test('an AWS PyTorch image runs in the runtime pytorch', () => {
  const python = addRuntime('pytorch', { mpi: { name: 'openmpi', version: '5.0.11' } });
  expect(resolveImage(dlc, table)).toEqual({
    refusal: null,
    runtime: {
      name: 'pytorch',
      framework: 'pytorch',
      version: '2.13.0+cpu',
      python,
      binDirs: [join(table.directory, 'pytorch')],
      mpi: { name: 'openmpi', version: '5.0.11' },
      source: join(table.directory, 'pytorch', 'runtime.json'),
    },
  });
});

test('an image without a rule is refused with the file, the line to add and the runtimes there are', () => {
  addRuntime('pytorch');
  const { runtime, refusal } = resolveImage('registry.example/team/tensorflow-training:2.14', table);
  expect(runtime).toBeNull();
  expect(refusal).toContain('registry.example/team/tensorflow-training:2.14');
  expect(refusal).toContain('{"pattern":"tensorflow-training","runtime":"pytorch"}');
  expect(refusal).toContain(table.configPath);
  expect(refusal).toContain('runtimes here: pytorch');
});

test('Neuron and other special builds are not taken for plain PyTorch', () => {
  addRuntime('pytorch');
  for (const image of ['x/pytorch-training-neuronx:2.1', 'x/pytorch-inference:2.3', 'x/my-pytorch:1']) {
    expect(resolveImage(image, table).runtime).toBeNull();
  }
});

test("the operator's rules come before the built-in ones", () => {
  addRuntime('pytorch');
  addRuntime('old');
  writeFileSync(
    table.configPath,
    JSON.stringify({
      images: [
        { pattern: 'pytorch-training:1.*', runtime: 'old' },
        { pattern: 'mine', runtime: 'old' },
      ],
    }),
  );
  expect(resolveImage(dlc.replace(':2.3.0', ':1.13.1'), table).runtime?.name).toBe('old');
  expect(resolveImage(dlc, table).runtime?.name).toBe('pytorch');
  expect(resolveImage('registry.example/mine:v7', table).runtime?.name).toBe('old');
});

test('a rule whose runtime does not exist is refused with the command that makes it', () => {
  expect(resolveImage(dlc, table).refusal).toContain('trainyard setup --runtime pytorch');
});

test('an unfinished runtime is named with the way to finish it and does not hide the others', () => {
  addRuntime('pytorch');
  mkdirSync(join(table.directory, 'half'));
  addRuntime('gone', { python: join(root, 'nowhere') });
  const { runtimes, problems } = readRuntimes(table);
  expect([...runtimes.keys()]).toEqual(['pytorch']);
  expect(problems).toEqual([
    expect.stringContaining('gone/runtime.json: "python" is'),
    expect.stringContaining('trainyard setup --runtime half'),
  ]);
});

test('TRAINYARD_PYTHON is the runtime pytorch, before any that was set up', () => {
  addRuntime('pytorch');
  const python = writeExecutable(join(root, 'python3'));
  const environment = { TRAINYARD_PYTHON: python, TRAINYARD_RUNTIMES: table.directory };
  expect(resolveImage(dlc, runtimeTable(environment, root)).runtime).toMatchObject({
    python,
    binDirs: [root],
  });
  const missing = { ...environment, TRAINYARD_PYTHON: 'python3' };
  expect(readRuntimes(runtimeTable(missing, root)).problems).toEqual([
    'TRAINYARD_PYTHON is python3: it must be an absolute path',
  ]);
});

test.each([
  ['{', 'is not JSON'],
  ['[]', 'must hold a JSON object'],
  ['{"images": {"pytorch": "x"}}', '"images" must be a list'],
  ['{"images": [{"pattern": "x"}]}', 'images[0] is {"pattern":"x"}; it needs "pattern" and "runtime"'],
])('a configuration of %s is refused with the reason', (text, reason) => {
  writeFileSync(table.configPath, text);
  expect(() => readImageRules(table.configPath)).toThrow(reason);
  expect(resolveImage(dlc, table).refusal).toContain(reason);
});

test.each([
  ['pytorch-training', true],
  ['pytorch-training:2.3.0-*', true],
  ['763104351884.dkr.ecr.*.amazonaws.com/pytorch-training:*', true],
  ['*', true],
  ['pytorch', false],
  ['pytorch-training:2x3x0-*', false],
])('pattern %s on an AWS image: %s', (pattern, matches) => {
  expect(matchesImage(pattern, dlc)).toBe(matches);
});
