import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ModelTrainer, MPI, Session, Torchrun, TrainingFailed } from '@trainyard/sdk';
import type { ModelTrainerOptions, TrainingJob } from '@trainyard/sdk';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { endProcessesOf, ROOT, RUNTIMES } from '../support/service.ts';

/** One sum over all ranks, and what a script finds on its host. */
const TRAIN = `
import os
for name, mpi in (('RANK', 'RANK'), ('WORLD_SIZE', 'SIZE')):
    os.environ.setdefault(name, os.environ.get('OMPI_COMM_WORLD_' + mpi, '0'))
os.environ.setdefault('MASTER_ADDR', os.environ['SM_MASTER_ADDR'])
os.environ.setdefault('MASTER_PORT', os.environ['SM_MASTER_PORT'])
import torch, torch.distributed as dist
import argparse
import trainyard_wheel
parser = argparse.ArgumentParser()
parser.add_argument('--lr', type=float)
arguments = parser.parse_args()
dist.init_process_group('gloo')
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
line = f"rank {dist.get_rank()} of {dist.get_world_size()} on {os.environ['SM_CURRENT_HOST']}: sum {total.item()}"
print(line, arguments.lr, trainyard_wheel.NAME, os.listdir(os.environ['SM_CHANNEL_TRAIN']), flush=True)
if dist.get_rank() == 0:
    with open(os.path.join(os.environ['SM_MODEL_DIR'], 'model.txt'), 'w') as model:
        model.write(str(total.item()))
dist.destroy_process_group()
`;

/** A wheel that needs no network to be installed: an archive with a module and its metadata. */
const MAKE_WHEEL = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as wheel:
    info = 'trainyard_wheel-1.0.dist-info/'
    wheel.writestr('trainyard_wheel.py', "NAME = 'from the wheel'")
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: trainyard_wheel\\nVersion: 1.0\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', '')
`;

let dataDirectory: string;
let sourceDir: string;
let data: string;
let session: Session;

beforeAll(() => {
  dataDirectory = mkdtempSync(join(tmpdir(), 'trainyard-trainer-'));
  sourceDir = join(dataDirectory, 'source');
  data = join(dataDirectory, 'data');
  for (const folder of [sourceDir, data]) mkdirSync(folder);
  writeFileSync(join(data, 'a.csv'), '1\n');
  writeFileSync(join(sourceDir, 'train.py'), TRAIN);
  writeFileSync(join(sourceDir, 'fail.py'), 'raise ValueError("no such thing")\n');
  writeFileSync(join(sourceDir, 'requirements.txt'), 'numpy\n./trainyard_wheel-1.0-py3-none-any.whl\n');
  execFileSync('python3', ['-c', MAKE_WHEEL, join(sourceDir, 'trainyard_wheel-1.0-py3-none-any.whl')]);
  vi.stubEnv('TRAINYARD_SERVICE', join(ROOT, 'packages/service/dist/trainyard-service.mjs'));
  vi.stubEnv('TRAINYARD_RUNTIMES', RUNTIMES);
  session = new Session({ on: 'embedded', dataDirectory, onWarning: () => {} });
});

afterAll(async () => {
  vi.unstubAllEnvs();
  await endProcessesOf(dataDirectory);
  rmSync(dataDirectory, { recursive: true, force: true });
});

function trainer(options: ModelTrainerOptions): ModelTrainer {
  return new ModelTrainer({
    session,
    sourceCode: { sourceDir, entryScript: 'train.py', requirements: 'requirements.txt' },
    compute: { instanceCount: 2 },
    hyperparameters: { lr: 0.5 },
    ...options,
  });
}

/** What ranks printed, without the tags of mpirun. */
async function ranksOf(job: TrainingJob): Promise<string[]> {
  const lines: string[] = [];
  for await (const event of job.events()) {
    const line = event.type === 'log' ? /rank \d of .*/.exec(event.message)?.[0] : undefined;
    if (line) lines.push(line);
  }
  return lines.sort();
}

it.each([
  ['torchrun', new Torchrun({ processCountPerNode: 1 })],
  ['mpirun', new MPI({ processCountPerNode: 1 })],
])(
  '%s starts the script on both hosts, with its arguments, data and packages',
  async (_name, distributed) => {
    const job = await trainer({ distributed }).train({
      inputDataConfig: [{ channelName: 'train', dataSource: data }],
      logs: false,
    });
    expect(await ranksOf(job)).toEqual(
      [0, 1].map((rank) => `rank ${rank} of 2 on algo-${rank + 1}: sum 3.0 0.5 from the wheel ['a.csv']`),
    );
    const { s3 } = await session.connect();
    const [, bucket = '', key = ''] = /^s3:\/\/([^/]+)\/(.+)$/.exec(await job.modelData()) ?? [];
    expect((await s3.headObject({ bucket, key })).sizeBytes).toBeGreaterThan(0);
  },
);

it('a script that fails is named with its line, as under an estimator', async () => {
  const failing = trainer({
    sourceCode: { sourceDir, entryScript: 'fail.py' },
    compute: {},
    baseJobName: 'fail',
  });
  const error = await failing.train({ logs: false }).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(TrainingFailed);
  expect((error as TrainingFailed).reason).toMatch(/^AlgorithmError: .*ValueError: no such thing/s);
});

it('a command runs as it is, with hyperparameters in SM_HPS', async () => {
  const command = 'test "$SM_HPS" = \'{"lr": 0.5}\' && test "$PWD" = "$SM_SOURCE_DIR"';
  const running = trainer({ sourceCode: { sourceDir, command }, compute: {}, baseJobName: 'command' });
  const job = await running.train({ logs: false });
  expect((await job.describe()).TrainingJobStatus).toBe('Completed');
});
