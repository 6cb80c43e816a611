import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { matchesImage, readImageRules, resolveImage } from './image-table.ts';
import { readRuntimes, runtimeTable, type RuntimeTable } from './runtimes.ts';

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
  const { runtime, refusal } = resolveImage('registry.example/team/trainer:2.14', table);
  expect(runtime).toBeNull();
  expect(refusal).toContain('registry.example/team/trainer:2.14');
  expect(refusal).toContain('{"pattern":"trainer","runtime":"pytorch"}');
  expect(refusal).toContain(table.configPath);
  expect(refusal).toContain('runtimes here: pytorch');
});

test.each([
  ['763104351884.dkr.ecr.us-east-1.amazonaws.com/tensorflow-training:2.19.0-cpu-py312', 'tensorflow'],
  ['x/tensorflow-training:2.16.2-cpu-py310', 'tensorflow'],
  ['x/tensorflow-training:2.15.0-cpu-py310', 'tensorflow-2.15'],
  ['x/tensorflow-training:2.1.0-cpu-py3', 'tensorflow-2.15'],
  ['x/tensorflow-training:2.9-cpu-py39', 'tensorflow-2.15'],
  ['x/tensorflow-training:1.15.5-cpu-py37', 'tensorflow-2.15'],
  ['x/sagemaker-tensorflow-scriptmode:1.12.0-cpu-py3', 'tensorflow-2.15'],
  ['763104351884.dkr.ecr.us-east-1.amazonaws.com/mxnet-training:1.9.0-cpu-py38', 'mxnet'],
  [
    '658645717510.dkr.ecr.us-west-2.amazonaws.com/smdistributed-modelparallel:2.4.1-gpu-py311-cu121',
    'pytorch',
  ],
  ['x/huggingface-pytorch-training:2.8.0-transformers4.56.2-gpu-py312-cu129-ubuntu22.04', 'pytorch'],
  ['x/pytorch-training-neuronx:2.1.2-neuronx-py310-sdk2.19.1-ubuntu20.04', 'xla'],
  ['x/pytorch-training-neuron:1.11.0-neuron-py38-sdk2.4.0-ubuntu20.04', 'xla'],
])('%s runs in the runtime %s', (image, runtime) => {
  for (const name of ['pytorch', 'tensorflow', 'tensorflow-2.15', 'mxnet', 'xla']) addRuntime(name);
  expect(resolveImage(image, table).runtime?.name).toBe(runtime);
});

test('an old TensorFlow image runs in the newer runtime where that alone was made, never the other way round', () => {
  addRuntime('tensorflow');
  expect(resolveImage('x/tensorflow-training:2.12.0-cpu-py310', table).runtime?.name).toBe('tensorflow');
  rmSync(join(table.directory, 'tensorflow'), { recursive: true });
  addRuntime('tensorflow-2.15');
  expect(resolveImage('x/tensorflow-training:2.19.0-cpu-py312', table).refusal).toContain(
    'trainyard setup --runtime tensorflow',
  );
});

test('inference and other special builds are not taken for plain frameworks', () => {
  addRuntime('pytorch');
  addRuntime('tensorflow');
  for (const image of ['x/pytorch-inference:2.3', 'x/my-pytorch:1', 'x/tensorflow-inference:2.18']) {
    expect(resolveImage(image, table).runtime).toBeNull();
  }
});

test('a Hugging Face image needs transformers in the runtime, unless the operator says otherwise', () => {
  const image = 'x/huggingface-pytorch-training:2.8.0-transformers4.56.2-cpu-py312-ubuntu22.04';
  const python = join(table.directory, 'pytorch', 'bin', 'python');
  addRuntime('pytorch', { python });
  const site = join(table.directory, 'pytorch', 'lib', 'python3.11', 'site-packages');
  mkdirSync(join(table.directory, 'pytorch', 'bin'));
  mkdirSync(join(site, 'torch-2.13.0.dist-info'), { recursive: true });
  writeExecutable(python);
  writeFileSync(join(table.directory, 'pytorch', 'pyvenv.cfg'), 'include-system-site-packages = false');
  expect(resolveImage(image, table).refusal).toContain(
    'trainyard setup --runtime pytorch --with huggingface',
  );
  mkdirSync(join(site, 'transformers-5.23.0.dist-info'));
  expect(resolveImage(image, table).runtime?.name).toBe('pytorch');
  rmSync(join(site, 'transformers-5.23.0.dist-info'), { recursive: true });
  const rule = { pattern: 'huggingface-pytorch-training', runtime: 'pytorch' };
  writeFileSync(table.configPath, JSON.stringify({ images: [rule] }));
  expect(resolveImage(image, table).runtime?.name).toBe('pytorch');
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
