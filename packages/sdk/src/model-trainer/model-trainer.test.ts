import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { InvalidOption, ModelTrainer, MPI, Session, Torchrun, TrainingInput } from '../index.ts';
import type { ModelTrainerOptions, Problem } from '../index.ts';
import { prepareUpload } from '../uploads.ts';

let directory: string;
let sourceDir: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'trainyard-trainer-'));
  sourceDir = join(directory, 'src');
  for (const folder of ['src', 'src/.git', 'src/deep/__pycache__'])
    mkdirSync(join(directory, folder), { recursive: true });
  for (const file of [
    'train.py',
    'run.sh',
    '.git/HEAD',
    'deep/__pycache__/x.pyc',
    'deep/util.py',
    'notes.tmp',
  ])
    writeFileSync(join(sourceDir, file), '\n');
  writeFileSync(join(directory, 'hyperparameters.json'), '{"lr": 1.0, "name": "abc"}');
  writeFileSync(join(directory, 'list.json'), '[]');
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const AWS = {
  region: 'us-west-2',
  accountId: '123456789012',
  credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' },
};
const bucket = 's3://sagemaker-us-west-2-123456789012';

function trainer(options: ModelTrainerOptions = {}, warnings: Problem[] = []): ModelTrainer {
  const session = new Session({ on: 'aws', ...AWS, onWarning: (warning) => warnings.push(warning) });
  const role = 'arn:aws:iam::123456789012:role/x';
  const sourceCode = { sourceDir, entryScript: 'train.py' };
  return new ModelTrainer({ session, role, trainingImage: 'example/my_image:1', sourceCode, ...options });
}

function problemsOf(options: ModelTrainerOptions): string[] {
  try {
    trainer(options);
  } catch (error) {
    if (error instanceof InvalidOption) return error.problems.map(({ id, field }) => `${id} ${field}`);
    throw error;
  }
  return [];
}

const g1 = { instanceGroupName: 'g1', instanceType: 'ml.g5.2xlarge', instanceCount: 1 };

test.each<[string, () => ModelTrainerOptions, string]>([
  ['no image on AWS', () => ({ trainingImage: undefined }), 'E-VERSION trainingImage'],
  ['no role on AWS', () => ({ role: 'x' }), 'E-ROLE role'],
  [
    'a script without a folder',
    () => ({ sourceCode: { entryScript: 'x.py' } }),
    'E-SRC sourceCode.entryScript',
  ],
  ['code without a start', () => ({ sourceCode: { sourceDir } }), 'E-EP-NONE sourceCode.entryScript'],
  [
    'a missing script',
    () => ({ sourceCode: { sourceDir, entryScript: 'absent.py' } }),
    'E-SRC sourceCode.entryScript',
  ],
  [
    'missing requirements',
    () => ({ sourceCode: { sourceDir, entryScript: 'train.py', requirements: 'absent.txt' } }),
    'E-SRC sourceCode.requirements',
  ],
  [
    'a missing folder',
    () => ({ sourceCode: { sourceDir: './absent', command: 'ls' } }),
    'E-SRC sourceCode.sourceDir',
  ],
  [
    'a script of another kind',
    () => ({ sourceCode: { sourceDir, entryScript: 'notes.tmp' } }),
    'E-SRC sourceCode.entryScript',
  ],
  [
    'torchrun of a shell script',
    () => ({ sourceCode: { sourceDir, entryScript: 'run.sh' }, distributed: new Torchrun() }),
    'E-TORCHRUN sourceCode.entryScript',
  ],
  [
    'a distribution of a command',
    () => ({ sourceCode: { sourceDir, command: 'ls' }, distributed: new MPI() }),
    'E-EP-NONE sourceCode.entryScript',
  ],
  [
    'no number of ranks',
    () => ({ distributed: new Torchrun({ processCountPerNode: 0 }) }),
    'E-PROCESSES distributed.processCountPerNode',
  ],
  ['no number of hosts', () => ({ compute: { instanceCount: 0 } }), 'E-COUNT compute.instanceCount'],
  [
    'groups beside a type',
    () => ({ compute: { instanceGroups: [g1], instanceType: 'ml.m5.xlarge' } }),
    'E-GROUPS compute.instanceType',
  ],
  [
    'subnets alone',
    () => ({ networking: { subnets: ['subnet-1'] } }),
    'E-VPC-PAIR networking.securityGroupIds',
  ],
  [
    'a wait shorter than the run',
    () => ({
      compute: { enableManagedSpotTraining: true },
      stoppingCondition: { maxWaitTimeInSeconds: 60 },
    }),
    'E-MAX-WAIT stoppingCondition.maxWaitTimeInSeconds',
  ],
  [
    'an output on this machine',
    () => ({ outputDataConfig: { s3OutputPath: './out' } }),
    'E-FILE-OUTPUT outputDataConfig.s3OutputPath',
  ],
  [
    'a YAML file of hyperparameters',
    () => ({ hyperparameters: 'x.yaml' }),
    'E-HYPERPARAMETERS hyperparameters',
  ],
  [
    'a missing file of hyperparameters',
    () => ({ hyperparameters: './absent.json' }),
    'E-HYPERPARAMETERS hyperparameters',
  ],
  [
    'a file of hyperparameters that is a list',
    () => ({ hyperparameters: join(directory, 'list.json') }),
    'E-HYPERPARAMETERS hyperparameters',
  ],
])('%s is refused', (_what, options, problem) => {
  expect(problemsOf(options())).toEqual([problem]);
});

test('a script beside a command warns', () => {
  const warnings: Problem[] = [];
  trainer({ sourceCode: { sourceDir, entryScript: 'train.py', command: 'ls' } }, warnings);
  expect(warnings.map(({ id }) => id)).toEqual(['W-COMMAND']);
});

test('outside AWS nothing but the code is needed', () => {
  const here = { session: new Session(), role: undefined, trainingImage: undefined };
  expect(problemsOf(here)).toEqual([]);
});

test('names come from the image and the local time, places from the name', async () => {
  const now = new Date(2026, 7, 10, 12, 5, 9);
  const { request } = await trainer({ checkpointConfig: {} }).render([], { now });
  expect(request).toMatchObject({
    TrainingJobName: 'my-image-job-20260810120509',
    OutputDataConfig: { S3OutputPath: `${bucket}/my-image-job`, CompressionType: 'GZIP' },
    CheckpointConfig: {
      S3Uri: `${bucket}/my-image-job/my-image-job-20260810120509/checkpoints`,
      LocalPath: '/opt/ml/checkpoints',
    },
    HyperParameters: {},
    ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: 1, VolumeSizeInGB: 30 },
    StoppingCondition: { MaxRuntimeInSeconds: 3600 },
  });
});

test('what is added later is sent with its defaults', async () => {
  const later = trainer({ sourceCode: undefined })
    .withInfraCheckConfig()
    .withSessionChainingConfig()
    .withTensorBoardOutputConfig()
    .withCheckpointConfig({ s3Uri: 's3://b/c' });
  expect((await later.render()).request).toMatchObject({
    InfraCheckConfig: { EnableInfraCheck: true },
    SessionChainingConfig: { EnableSessionTagChaining: true },
    TensorBoardOutputConfig: {
      S3OutputPath: `${bucket}/my-image-job`,
      LocalPath: '/opt/ml/output/tensorboard',
    },
    CheckpointConfig: { S3Uri: 's3://b/c', LocalPath: '/opt/ml/checkpoints' },
  });
});

test('hyperparameters may stand in a JSON file; text stays bare', async () => {
  const { request } = await trainer({ hyperparameters: join(directory, 'hyperparameters.json') }).render();
  expect(request.HyperParameters).toEqual({ lr: '1.0', name: 'abc' });
});

test('a channel of the call takes the place of the trainer’s of that name', async () => {
  const inputDataConfig = [
    { channelName: 'a', dataSource: 's3://b/a' },
    { channelName: 'b', dataSource: 's3://b/b', contentType: 'text/csv' },
  ];
  const { request } = await trainer({ sourceCode: undefined, inputDataConfig }).render([
    { channelName: 'a', dataSource: 's3://b/other' },
    { channelName: 'c', dataSource: new TrainingInput('s3://b/c', { s3DataType: 'ManifestFile' }) },
  ]);
  const shown = request.InputDataConfig?.map((channel) => [
    channel.ChannelName,
    channel.DataSource.S3DataSource?.S3Uri,
    channel.InputMode,
    channel.ContentType,
  ]);
  expect(shown).toEqual([
    ['a', 's3://b/other', 'File', undefined],
    ['b', 's3://b/b', 'File', 'text/csv'],
    ['c', 's3://b/c', undefined, undefined],
  ]);
  expect(request.AlgorithmSpecification?.ContainerEntrypoint).toBeUndefined();
});

test('with channels for groups of hosts code and drivers are for all groups', async () => {
  const compute = { instanceGroups: [g1, { ...g1, instanceGroupName: 'g2' }] };
  const forGroup = new TrainingInput('s3://b/a', { instanceGroups: ['g1'] });
  const { request } = await trainer({ compute }).render([{ channelName: 'a', dataSource: forGroup }]);
  expect(
    request.InputDataConfig?.map((channel) => channel.DataSource.S3DataSource?.InstanceGroupNames),
  ).toEqual([['g1'], ['g1', 'g2'], ['g1', 'g2']]);
  expect(request.ResourceConfig?.InstanceGroups).toHaveLength(2);
});

async function sentNames(options: ModelTrainerOptions): Promise<string[]> {
  const { uploads } = await trainer(options).render();
  const code = uploads.find((upload) => upload.kind === 'directory');
  if (!code) throw new Error('no folder is uploaded');
  const names: string[] = [];
  const s3 = {
    putObject: ({ key, headers }: { key: string; headers?: Record<string, string> }) => {
      names.push(key.slice(code.key.length) + (headers?.['x-amz-server-side-encryption'] ?? ''));
      return Promise.resolve({ etag: '' });
    },
    uploadMultipart: () => Promise.reject(new Error('too large')),
  };
  await (await prepareUpload(code, () => {})).send(s3 as never, {});
  return names.sort();
}

test('names that are no code are not sent', async () => {
  expect(await sentNames({})).toEqual(['deep/util.py', 'notes.tmp', 'run.sh', 'train.py']);
  const sourceCode = { sourceDir, entryScript: 'train.py', ignorePatterns: ['*.tmp', '.git', 'd??p'] };
  expect(await sentNames({ sourceCode })).toEqual(['run.sh', 'train.py']);
});

test('the key of the output encrypts the code', async () => {
  const names = await sentNames({ outputDataConfig: { kmsKeyId: 'k' } });
  expect(names).toContain('train.pyaws:kms');
});
