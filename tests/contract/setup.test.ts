import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { resultsOf, SCRIPTS } from '../lanes/sagemaker-python.ts';
import { type Outcome, runClient } from '../support/clients.ts';
import { finished, logLines } from '../support/jobs.ts';
import { BUCKET, ROLE, ROOT, startService, type TestService } from '../support/service.ts';

// The smallest framework, from the package index as a user gets it.
let root: string;
let service: TestService;
const runtimes = (): string => join(root, 'runtimes');
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'trainyard-setup-'));
  service = await startService({ environment: { TRAINYARD_RUNTIMES: join(root, 'runtimes') } });
});
afterAll(async () => {
  await service?.dispose();
  await rm(root, { recursive: true, force: true });
});

const setUp = (...options: string[]): Promise<Outcome> =>
  runClient(join(ROOT, 'bin/trainyard'), ['setup', '--runtimes', runtimes(), ...options], {
    // The user's home: pip's settings and uv's cache.
    environment: { HOME: process.env['HOME'] ?? root },
    home: root,
    timeoutMs: 240_000,
  });

const job = (name: string) =>
  service.aws.sagemaker.call('CreateTrainingJob', {
    TrainingJobName: name,
    RoleArn: ROLE,
    AlgorithmSpecification: {
      TrainingImage: '763104351884.dkr.ecr.us-west-2.amazonaws.com/mxnet-training:1.9.0-cpu-py38',
      TrainingInputMode: 'File',
      ContainerEntrypoint: ['python', '-c', 'import mxnet; print("sum", mxnet.nd.ones(3).sum().asscalar())'],
    },
    OutputDataConfig: { S3OutputPath: `s3://${BUCKET}/out` },
    ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: 1, VolumeSizeInGB: 1 },
  });

it('setup makes the runtime that a refused image named, and the running service uses it at once', async () => {
  await expect(job('early')).rejects.toThrow(
    /runtime "mxnet"[^]*Make it with: trainyard setup --runtime mxnet/,
  );
  const made = await setUp('--runtime', 'mxnet');
  expect(made, made.stderr).toMatchObject({ code: 0 });
  expect(JSON.parse(readFileSync(join(runtimes(), 'mxnet/runtime.json'), 'utf8'))).toMatchObject({
    name: 'mxnet',
    framework: 'mxnet',
    version: '1.9.1',
  });
  await job('late');
  await finished(service, 'late');
  expect(await logLines(service, 'late')).toContain('algo-1: sum 3.0');
}, 300_000);

it('trainyard train runs an MXNet script over parameter servers on two hosts', async () => {
  const script = join(SCRIPTS, 'mxnet_parameter_server.py');
  const options = ['--framework', 'mxnet', '--instances', '2', '--distribution', 'parameter_server'];
  const { code, stdout, stderr } = await runClient(
    join(ROOT, 'bin/trainyard'),
    ['train', script, ...options],
    {
      environment: service.environment,
      home: root,
    },
  );
  expect(code, `${stderr}\n${stdout}`).toBe(0);
  expect(stdout).toContain('  2 instances, parameter_server\n');
  const results = resultsOf(stdout).sort((a, b) => Number(a['rank']) - Number(b['rank']));
  expect(results).toMatchObject([
    { rank: 0, workers: 2, sum: 3 },
    { rank: 1, workers: 2, sum: 3 },
  ]);
}, 300_000);

it('setup leaves a complete runtime alone', async () => {
  const { stdout } = await setUp('--runtime', 'mxnet');
  expect(stdout.trimEnd().split('\n')).toEqual([expect.stringMatching(/^ {2}runtime mxnet +mxnet 1\.9\.1/)]);
});

it.each([
  [['--runtime', 'jax'], '--runtime is jax; known are pytorch, tensorflow, tensorflow-2.15, mxnet, xla.'],
  [['--runtime', 'mxnet', '--libraries'], '--libraries is for the runtime pytorch; --runtime is mxnet.'],
  [['--runtime', 'mxnet', '--with', 'huggingface'], 'the runtime mxnet knows no extra packages.'],
  [['--with', 'everything'], '--with is everything; the runtime pytorch knows huggingface.'],
])('setup %j is refused', async (options, message) => {
  const { code, stderr } = await setUp(...options);
  expect(code).toBe(2);
  expect(stderr).toContain(message);
});
