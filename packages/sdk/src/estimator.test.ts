import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Estimator, InvalidOption, PyTorch, Session } from './index.ts';
import type { EstimatorOptions, Problem, PyTorchOptions, SessionOptions } from './index.ts';

let directory: string;
let warnings: Problem[];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'trainyard-estimator-'));
  warnings = [];
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** A session to AWS needs no request to render a job: region, account and keys are given. */
function session(options: SessionOptions = {}): Session {
  return new Session({
    on: 'aws',
    region: 'us-west-2',
    accountId: '123456789012',
    credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' },
    onWarning: (warning) => warnings.push(warning),
    ...options,
  });
}

const role = 'arn:aws:iam::123456789012:role/x';
const onAws = { role, instanceType: 'ml.g5.2xlarge', frameworkVersion: '2.8.0', pyVersion: 'py312' };

function pytorch(options: Partial<PyTorchOptions> = {}): PyTorch {
  return new PyTorch({ entryPoint: 'train.py', ...onAws, session: session(), ...options });
}

function problemsOf(make: () => unknown): string[] {
  try {
    make();
  } catch (error) {
    if (error instanceof InvalidOption) return error.problems.map(({ id, field }) => `${id} ${field}`);
    throw error;
  }
  return [];
}

test('all problems of the options are reported together', () => {
  const options = {
    role: 'x',
    instanceType: undefined,
    instanceCount: 0,
    maxRun: 0.5,
    subnets: ['s'],
    frameworkVersion: '9',
  };
  const problems = problemsOf(() => pytorch(options));
  expect(problems).toEqual([
    'E-ROLE role',
    'E-TYPE instanceType',
    'E-COUNT instanceCount',
    'E-SECONDS maxRun',
    'E-VPC-PAIR securityGroupIds',
    'E-IMAGE-VERSION frameworkVersion',
  ]);
});

const image = 'example/my_image:1';

test.each<[string, Partial<EstimatorOptions>, string]>([
  ['a base name with an underscore', { baseJobName: 'my_base' }, 'E-JOB-NAME baseJobName'],
  ['an output path on this machine', { outputPath: 'file:///tmp' }, 'E-FILE-OUTPUT outputPath'],
  ['checkpoints on this machine', { checkpointS3Uri: './ck' }, 'E-FILE-OUTPUT checkpointS3Uri'],
  ['code without a script', { sourceDir: 'src' }, 'E-EP-NONE entryPoint'],
  ['a script in S3', { entryPoint: 's3://b/train.py' }, 'E-EP-S3 entryPoint'],
  ['a wait shorter than the run', { useSpotInstances: true, maxRun: 10, maxWait: 5 }, 'E-MAX-WAIT maxWait'],
  ['a type of the local mode on AWS', { instanceType: 'local' }, 'E-LOCAL-SESSION instanceType'],
])('%s is refused', (_what, options, problem) => {
  const base = { imageUri: image, role, instanceType: 'ml.m5.xlarge', session: session() };
  expect(problemsOf(() => new Estimator({ ...base, ...options }))).toEqual([problem]);
});

test('outside AWS neither role, instance type nor versions are needed', () => {
  expect(problemsOf(() => new PyTorch({ entryPoint: 'train.py', session: new Session() }))).toEqual([]);
  const problems = problemsOf(
    () => new PyTorch({ entryPoint: 'train.py', session: new Session(), strict: true }),
  );
  expect(problems).toEqual(['E-TYPE instanceType', 'E-VERSION frameworkVersion', 'E-VERSION pyVersion']);
});

test('a job name comes from the image, with characters that a name may not have replaced', async () => {
  const now = new Date('2026-08-10T12:00:00.123Z');
  const estimator = new Estimator({
    imageUri: image,
    role,
    instanceType: 'ml.m5.xlarge',
    session: session(),
  });
  const { request } = await estimator.render(undefined, { now });
  expect(request.TrainingJobName).toBe('my-image-2026-08-10-12-00-00-123');
  expect(request.InputDataConfig).toBeUndefined();
  expect(request.HyperParameters).toBeUndefined();
  await expect(estimator.render(undefined, { jobName: 'a_b' })).rejects.toMatchObject({ id: 'E-JOB-NAME' });
});

test('code goes below code_location, else to the root of the output bucket, else below the prefix of the default one', async () => {
  const submitDirectory = async (options: Partial<PyTorchOptions>): Promise<string> => {
    const { request, uploads } = await pytorch(options).render(undefined, { jobName: 'job' });
    const uri = JSON.parse(request.HyperParameters?.['sagemaker_submit_directory'] ?? '') as string;
    expect(uploads.map(({ bucket, key }) => `s3://${bucket}/${key}`)).toEqual([uri]);
    return uri;
  };
  expect(await submitDirectory({})).toBe('s3://sagemaker-us-west-2-123456789012/job/source/sourcedir.tar.gz');
  expect(await submitDirectory({ outputPath: 's3://out/deep/prefix' })).toBe(
    's3://out/job/source/sourcedir.tar.gz',
  );
  expect(await submitDirectory({ codeLocation: 's3://code/p/' })).toBe(
    's3://code/p/job/source/sourcedir.tar.gz',
  );
  const prefixed = session({ defaultBucketPrefix: '/team/a/' });
  expect(await submitDirectory({ session: prefixed })).toBe(
    's3://sagemaker-us-west-2-123456789012/team/a/job/source/sourcedir.tar.gz',
  );
  const { request } = await pytorch({ session: prefixed }).render();
  expect(request.OutputDataConfig.S3OutputPath).toBe('s3://sagemaker-us-west-2-123456789012/team/a/');
});

test('packed code in S3 is used as it is', async () => {
  const { request, uploads } = await pytorch({
    sourceDir: 's3://b/code.tar.gz',
    entryPoint: 'pkg/train.py',
  }).render();
  expect(uploads).toEqual([]);
  expect(request.HyperParameters).toMatchObject({
    sagemaker_submit_directory: '"s3://b/code.tar.gz"',
    sagemaker_program: '"pkg/train.py"',
  });
});

test('without a source directory the program is the name of the script alone', async () => {
  const { request } = await pytorch({ entryPoint: join(directory, 'deep/train.py') }).render();
  expect(request.HyperParameters?.['sagemaker_program']).toBe('"train.py"');
});

test('an input channel named code is refused under network isolation only', async () => {
  const inputs = { code: 's3://b/x' };
  await expect(pytorch({ enableNetworkIsolation: true }).render(inputs)).rejects.toMatchObject({
    id: 'E-CHANNEL-DUP',
  });
  expect((await pytorch().render(inputs)).request.InputDataConfig).toHaveLength(1);
});

test('a channel without isolation and a checkpoint path without its URI are accepted and reported', () => {
  pytorch({ checkpointLocalPath: '/opt/ml/checkpoints' });
  expect(warnings.map(({ id }) => id)).toEqual(['W-CHECKPOINT']);
});

test('nothing is asked of the default bucket by a job that does not use it', async () => {
  const own = { outputPath: 's3://out/x', codeLocation: 's3://code' };
  expect((await pytorch(own).render('s3://in/data')).defaultBucket).toBeNull();
  expect((await pytorch().render('s3://in/data')).defaultBucket).toBe('sagemaker-us-west-2-123456789012');
});

test('a region without images is named before anything is sent', async () => {
  const estimator = pytorch({ session: session({ region: 'mars-north-1' }) });
  await expect(estimator.render()).rejects.toMatchObject({ id: 'E-REGION', value: 'mars-north-1' });
});

test('options that change later do not change the estimator', async () => {
  const hyperparameters: Record<string, number> = { epochs: 1 };
  const estimator = pytorch({ hyperparameters });
  hyperparameters['epochs'] = 2;
  expect((await estimator.render()).request.HyperParameters?.['epochs']).toBe('1');
});

test('asking for the latest job before there is one says what to do', async () => {
  await expect(pytorch().wait()).rejects.toMatchObject({
    id: 'E-NO-JOB',
    nextStep: expect.stringContaining('fit'),
  });
});

test('a missing script is named with where it was looked for, before anything is sent', async () => {
  writeFileSync(join(directory, 'other.py'), '');
  const estimator = pytorch({ sourceDir: directory });
  await expect(estimator.fit(undefined, { wait: false })).rejects.toMatchObject({
    id: 'E-SRC',
    value: 'train.py',
  });
  expect(estimator.latestTrainingJob).toBeNull();
});
