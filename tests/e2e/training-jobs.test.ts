import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createJob, finished, goOnFile, logged, logLines, SCRIPTS, unpacked } from '../support/jobs.ts';
import {
  BUCKET,
  hostProcesses,
  processesOf,
  RUNTIME_PYTHON,
  RUNTIMES,
  startService,
  type TestService,
} from '../support/service.ts';
import { until } from '../support/until.ts';

const run = promisify(execFile);

describe('a training job', () => {
  let service: TestService;
  let reference: string;

  beforeAll(async () => {
    service = await startService();
    reference = mkdtempSync(join(tmpdir(), 'trainyard-reference-'));
    await run(
      RUNTIME_PYTHON,
      [
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--nproc_per_node',
        '4',
        join(SCRIPTS, 'ddp_linear.py'),
        '--model-dir',
        reference,
      ],
      { env: { ...process.env, OMP_NUM_THREADS: '1' } },
    );
  });
  afterAll(async () => {
    await service?.dispose();
    rmSync(reference, { recursive: true, force: true });
  });

  const sameWeights = async (name: string): Promise<void> => {
    const job = await service.describe(name);
    const model = await unpacked(service, job.ModelArtifacts.S3ModelArtifacts!);
    try {
      // Bound: the sums of four float64 gradients may be taken in another order.
      const script = `import torch,sys; a,b=(torch.load(p) for p in sys.argv[1:]); assert all(torch.allclose(a[k],b[k],rtol=0,atol=1e-12) for k in a), (a,b); print('same')`;
      const { stdout } = await run(RUNTIME_PYTHON, [
        '-c',
        script,
        join(model.directory, 'model.pt'),
        join(reference, 'model.pt'),
      ]);
      expect(stdout.trim()).toBe('same');
    } finally {
      model.dispose();
    }
  };

  it('by torchrun on 2 hosts with 2 ranks each gives the weights of a bare torchrun with 4', async () => {
    const name = await createJob(service, { script: 'ddp_linear.py', processes: 2 });
    const job = await finished(service, name);
    expect(job.SecondaryStatusTransitions!.map(({ Status }) => Status)).toEqual([
      'Starting',
      'Starting',
      'Downloading',
      'Training',
      'Uploading',
      'Completed',
    ]);
    expect(job.TrainingTimeInSeconds).toBeGreaterThanOrEqual(1);
    const lines = await logLines(service, name);
    for (const rank of [0, 1, 2, 3]) {
      const host = rank < 2 ? 'algo-1' : 'algo-2';
      expect(lines).toContain(`${host}: rank ${rank} of 4 local ${rank % 2} done`);
    }
    await sameWeights(name);
  });

  it('by mpirun gives the same weights, and RANK comes from the wrapper of pytorchddp', async () => {
    const name = await createJob(service, {
      script: 'ddp_linear.py',
      processes: 2,
      distribution: 'pytorchddp',
    });
    await finished(service, name);
    await sameWeights(name);
    const lines = await logLines(service, name);
    // As on AWS the leader's stream carries the lines of every rank.
    expect(lines.filter((line) => /^algo-1: .*rank [0-3] of 4 local [01] done/.test(line))).toHaveLength(4);
  });

  it('by mpi runs as many ranks as asked for on every host', async () => {
    const name = await createJob(service, {
      script: 'mpi_ranks.py',
      processes: 2,
      distribution: 'mpi',
    });
    await finished(service, name);
    const lines = await logLines(service, name);
    for (const rank of [0, 1, 2, 3]) {
      expect(
        lines.some((line) =>
          line.includes(`mpi rank ${rank} of 4 sum 6 on ${rank < 2 ? 'algo-1' : 'algo-2'}`),
        ),
        `rank ${rank}`,
      ).toBe(true);
    }
  });

  it('without a distribution runs the script once on every host, and the models are merged', async () => {
    for (const [key, text] of [
      ['train/a.csv', '1'],
      ['train/deep/b.csv', '2'],
      ['train/c.csv', '3'],
    ] as const) {
      await service.s3.putObject({ bucket: BUCKET, key, body: text });
    }
    const name = await createJob(service, {
      script: 'show_host.py',
      distribution: 'none',
      hyperParameters: { lr: '0.1', flag: 'true', name: '"a b"' },
      change: {
        Environment: { HIDDEN_DIR: service.dataDir, MINE: 'yes' },
        InputDataConfig: [
          {
            ChannelName: 'train',
            DataSource: {
              S3DataSource: {
                S3DataType: 'S3Prefix',
                S3Uri: `s3://${BUCKET}/train`,
                S3DataDistributionType: 'FullyReplicated',
              },
            },
          },
          {
            ChannelName: 'shard',
            DataSource: {
              S3DataSource: {
                S3DataType: 'S3Prefix',
                S3Uri: `s3://${BUCKET}/train/`,
                S3DataDistributionType: 'ShardedByS3Key',
              },
            },
          },
        ],
      },
    });
    const job = await finished(service, name);
    const model = await unpacked(service, job.ModelArtifacts.S3ModelArtifacts!);
    const output = await unpacked(service, `s3://${BUCKET}/out/${name}/output/output.tar.gz`);
    try {
      expect(readFileSync(join(model.directory, 'shared.txt'), 'utf8')).toBe('algo-1');
      expect(readdirSync(output.directory).sort()).toEqual(['algo-1.txt', 'algo-2.txt', 'archive.tar.gz']);
      const [first, second] = ['algo-1', 'algo-2'].map((host) =>
        JSON.parse(readFileSync(join(model.directory, `${host}.json`), 'utf8')),
      );
      expect(first.argv.slice(1)).toEqual(['--flag', 'True', '--lr', '0.1', '--name', 'a b']);
      expect(first.environment.SM_CURRENT_HOST).toBe('algo-1');
      expect(first.environment.MINE).toBe('yes');
      expect(first.resourceconfig.hosts).toEqual(['algo-1', 'algo-2']);
      expect(first.input.filter((path: string) => path.startsWith('data/train/'))).toEqual([
        'data/train/a.csv',
        'data/train/c.csv',
        'data/train/deep/b.csv',
      ]);
      const shards = [first, second].map((seen) =>
        seen.input.filter((path: string) => path.startsWith('data/shard/')),
      );
      expect(shards).toEqual([['data/shard/a.csv', 'data/shard/deep/b.csv'], ['data/shard/c.csv']]);
      expect(first.peers['algo-2'].ok && second.peers['algo-1'].ok).toBe(true);
      expect(first.endpoint).toEqual({ ok: true, value: 200 });
      // What a job must not see or do on this machine.
      expect(first.hidden.ok ? first.hidden.value : []).toEqual([]);
      expect(first.write_etc.ok).toBe(false);
      expect(existsSync('/etc/trainyard-was-here')).toBe(false);
      expect(first.environment).not.toHaveProperty('TRAINYARD_TOKEN');
      expect(JSON.stringify(first.environment)).not.toContain(service.credentials.secretAccessKey);
    } finally {
      model.dispose();
      output.dispose();
    }
    const lines = await logLines(service, name);
    expect(lines).toContain('algo-2: to stdout');
    expect(lines).toContain('algo-2: to stderr');
    expect(
      lines.some((line) => line.includes('shared.txt exists on algo-1, algo-2; the one of algo-1 is kept')),
    ).toBe(true);
  });

  it('names the failing rank, host, exception and line, and every process is gone', async () => {
    const name = await createJob(service, {
      script: 'fail_rank.py',
      processes: 2,
      hyperParameters: { rank: '3' },
    });
    const job = await finished(service, name, 'Failed');
    expect(job.FailureReason).toMatch(
      /^AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage "algo-2 rank 3: ValueError: bad batch 3 \(fail_rank\.py:\d+\); exit code 1"\nCommand ".*fail_rank\.py --rank 3", exit code: 1$/,
    );
    await until(
      'all processes of the job to end',
      () => processesOf(`${service.dataDir}/jobs/${name}`).length === 0,
    );
  });

  it('shows an error that several ranks share once', async () => {
    const name = await createJob(service, {
      script: 'fail_rank.py',
      processes: 2,
      hyperParameters: { how: '"all"' },
    });
    const job = await finished(service, name, 'Failed');
    expect(job.FailureReason!.match(/ValueError/g)).toHaveLength(1);
    expect(job.FailureReason).toMatch(/same error on ranks? /);
  });

  it('says which signal killed a rank', async () => {
    const name = await createJob(service, {
      script: 'fail_rank.py',
      processes: 2,
      hyperParameters: { rank: '1', how: '"kill"' },
    });
    const job = await finished(service, name, 'Failed');
    expect(job.FailureReason).toContain('algo-1 rank 1');
    expect(job.FailureReason).toContain('killed by SIGKILL');
    expect(job.FailureReason).toContain('ExitCode 137');
  });

  it('can be stopped: the script gets SIGTERM and what it saved is uploaded', async () => {
    const name = await createJob(service, {
      script: 'wait_for_stop.py',
      distribution: 'none',
      hyperParameters: { hold: 'yes' },
    });
    for (const host of ['algo-1', 'algo-2']) await logged(service, name, new RegExp(`${host}: waiting`));
    await service.aws.sagemaker.call('StopTrainingJob', { TrainingJobName: name });
    expect((await service.describe(name)).TrainingJobStatus).toBe('Stopping');
    for (const host of ['algo-1', 'algo-2']) writeFileSync(goOnFile(service, name, host), '');
    const job = await finished(service, name, 'Stopped');
    expect(job.SecondaryStatus).toBe('Stopped');
    expect(await logLines(service, name)).toContain('algo-1: got SIGTERM');
    const model = await unpacked(service, job.ModelArtifacts.S3ModelArtifacts!);
    expect(readdirSync(model.directory).sort()).toEqual([
      'archive.tar.gz',
      'last-algo-1.txt',
      'last-algo-2.txt',
    ]);
    model.dispose();
    await expect(
      service.aws.sagemaker.call('StopTrainingJob', { TrainingJobName: name }),
    ).rejects.toMatchObject({
      code: 'ValidationException',
      message: 'The request was rejected because the training job is in status Stopped.',
    });
  });

  // Long enough for the script to be there before its time is over, also where a machine stands still for seconds.
  it('ends with MaxRuntimeExceeded and keeps its model', async () => {
    const name = await createJob(service, {
      script: 'wait_for_stop.py',
      distribution: 'none',
      instances: 1,
      change: { StoppingCondition: { MaxRuntimeInSeconds: 8 } },
    });
    const job = await finished(service, name, 'Stopped');
    expect(job.SecondaryStatus).toBe('MaxRuntimeExceeded');
    const model = await unpacked(service, job.ModelArtifacts.S3ModelArtifacts!);
    expect(existsSync(join(model.directory, 'last-algo-1.txt'))).toBe(true);
    model.dispose();
  });

  it('goes on from its checkpoint when its host is lost and a retry is allowed', async () => {
    const name = await createJob(service, {
      script: 'checkpointed.py',
      distribution: 'none',
      instances: 1,
      hyperParameters: { hold: '5' },
      change: {
        CheckpointConfig: { S3Uri: `s3://${BUCKET}/checkpoints` },
        RetryStrategy: { MaximumRetryAttempts: 1 },
      },
    });
    await logged(service, name, /count=5/);
    await until('the checkpoint to be in S3', async () => {
      const found = await service.s3
        .getObject({ bucket: BUCKET, key: 'checkpoints/count.json' })
        .catch(() => null);
      if (!found) return false;
      const chunks: Uint8Array[] = [];
      for await (const chunk of found.body as unknown as AsyncIterable<Uint8Array>) chunks.push(chunk);
      return Buffer.concat(chunks).toString() === '{"count": 5}';
    });
    // All hosts of a job are children of one gang process and end with it.
    const gang = hostProcesses(service, name).filter(
      ({ host, command }) => host === null && command.includes('gang.py'),
    );
    expect(gang.length).toBeGreaterThan(0);
    process.kill(Math.min(...gang.map(({ pid }) => pid)), 'SIGKILL');
    const job = await finished(service, name);
    expect(job.SecondaryStatusTransitions!.map(({ Status }) => Status)).toContain('Restarting');
    const model = await unpacked(service, job.ModelArtifacts.S3ModelArtifacts!);
    expect(JSON.parse(readFileSync(join(model.directory, 'result.json'), 'utf8'))).toEqual({
      started_at: 5,
      count: 10,
    });
    model.dispose();
  });

  it('runs beside another one with the same addresses and ports', async () => {
    const names = await Promise.all(
      [1, 2].map(() => createJob(service, { script: 'ddp_linear.py', processes: 1 })),
    );
    for (const name of names) await finished(service, name);
  });

  it('installs requirements into its own layer, never into the shared runtime', async () => {
    const wheel = 'tinypackage-1.0-py3-none-any.whl';
    const name = await createJob(service, {
      script: 'uses_package.py',
      distribution: 'none',
      instances: 1,
      // torch is there already: nothing but the wheel may be fetched or installed.
      files: { 'requirements.txt': `./${wheel}\ntorch\n`, [wheel]: await tinyWheel() },
    });
    await finished(service, name);
    const lines = await logLines(service, name);
    expect(lines.find((line) => line.includes('tinypackage from'))).not.toContain(RUNTIMES);
    expect(lines.find((line) => line.includes('torch from'))).toContain(RUNTIMES);
    expect(existsSync(join(RUNTIMES, 'pytorch/lib/python3.11/site-packages/tinypackage'))).toBe(false);
    await expect(run(RUNTIME_PYTHON, ['-c', 'import tinypackage'])).rejects.toThrow('ModuleNotFoundError');
  });

  it('fails as ClientError when a requirement cannot be had, with the last words of pip', async () => {
    const name = await createJob(service, {
      script: 'uses_package.py',
      distribution: 'none',
      instances: 1,
      files: { 'requirements.txt': './no-such-wheel-1.0-py3-none-any.whl\n' },
    });
    const job = await finished(service, name, 'Failed');
    expect(job.FailureReason).toMatch(/^ClientError: /);
    expect(job.FailureReason).toContain('no-such-wheel');
  });
});

/** A wheel with one module, made here so that the test needs no index. */
async function tinyWheel(): Promise<Buffer> {
  const directory = mkdtempSync(join(tmpdir(), 'trainyard-wheel-'));
  const path = join(directory, 'wheel');
  const script = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as z:
    z.writestr('tinypackage/__init__.py', 'x = 1\\n')
    z.writestr('tinypackage-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: tinypackage\\nVersion: 1.0\\n')
    z.writestr('tinypackage-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    z.writestr('tinypackage-1.0.dist-info/RECORD', '')
`;
  try {
    await run(RUNTIME_PYTHON, ['-c', script, path]);
    return readFileSync(path);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
