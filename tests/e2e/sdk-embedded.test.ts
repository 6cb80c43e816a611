import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  MaxRuntimeExceeded,
  PyTorch,
  readServiceRecord,
  ServiceUnavailable,
  Session,
  TrainingFailed,
  TrainingJob,
  TrainingStopped,
} from '@trainyard/sdk';
import type { Problem, PyTorchOptions, TrainingJobEvent } from '@trainyard/sdk';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { endProcessesOf, ROOT, RUNTIMES } from '../support/service.ts';
import { until } from '../support/until.ts';

const run = promisify(execFile);
const SERVICE = join(ROOT, 'packages/service/dist/trainyard-service.mjs');

/** One line per `--lines`, with a pause between two; exits as `--exit` says. */
const COUNT = `
import argparse, os, sys, time
parser = argparse.ArgumentParser()
parser.add_argument('--lines', type=int, default=3)
parser.add_argument('--pause', type=float, default=0.0)
parser.add_argument('--exit', type=int, default=0)
arguments = parser.parse_args()
for number in range(arguments.lines):
    print(f'line {number}', flush=True)
    time.sleep(arguments.pause)
if arguments.exit:
    raise SystemExit(arguments.exit)
train = os.environ.get('SM_CHANNEL_TRAINING')
print('channel', sorted(os.listdir(train)) if train else None)
with open(os.path.join(os.environ['SM_MODEL_DIR'], 'model.txt'), 'w') as model:
    model.write('trained')
`;

let dataDirectory: string;
let source: string;
let warnings: Problem[];

function session(): Session {
  return new Session({ on: 'embedded', dataDirectory, onWarning: (warning) => warnings.push(warning) });
}

function estimator(options: Partial<PyTorchOptions> = {}): PyTorch {
  const all = { entryPoint: 'count.py', sourceDir: source, session: session(), ...options };
  return new PyTorch(all as PyTorchOptions);
}

function useDirectory(): void {
  dataDirectory = mkdtempSync(join(tmpdir(), 'trainyard-sdk-'));
  source = join(dataDirectory, 'source');
  mkdirSync(source);
  writeFileSync(join(source, 'count.py'), COUNT);
  vi.stubEnv('TRAINYARD_SERVICE', SERVICE);
  vi.stubEnv('TRAINYARD_RUNTIMES', RUNTIMES);
}

async function removeDirectory(): Promise<void> {
  vi.unstubAllEnvs();
  await endProcessesOf(dataDirectory);
  rmSync(dataDirectory, { recursive: true, force: true });
}

async function collect(events: AsyncIterable<TrainingJobEvent>): Promise<TrainingJobEvent[]> {
  const all: TrainingJobEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

function linesOf(events: readonly TrainingJobEvent[], host = 'algo-1'): string[] {
  return events.flatMap((event) =>
    event.type === 'log' && event.host === host && event.source === 'stdout' ? [event.message] : [],
  );
}

const counted = (lines: number): string[] => Array.from({ length: lines }, (_, number) => `line ${number}`);

beforeEach(() => {
  warnings = [];
});

describe('jobs on the embedded service', () => {
  beforeAll(useDirectory);
  afterAll(removeDirectory);

  it('fit trains on a local folder in place and returns when the model is there', async () => {
    const data = join(dataDirectory, 'data');
    mkdirSync(data);
    writeFileSync(join(data, 'a.csv'), '1\n');
    const trained = estimator({ instanceCount: 2 });
    const job = await trained.fit(data, { logs: false });
    expect(trained.latestTrainingJob).toBe(job);
    const description = await job.describe();
    expect(description.TrainingJobStatus).toBe('Completed');
    expect(description.InputDataConfig?.[0]?.DataSource.FileSystemDataSource?.FileSystemId).toMatch(/^fs-/);
    const events = await collect(job.events());
    for (const host of ['algo-1', 'algo-2']) {
      expect(linesOf(events, host)).toEqual([...counted(3), "channel ['a.csv']"]);
    }
    expect(events.findLast((event) => event.type === 'status')).toMatchObject({ status: 'Completed' });
    const { s3 } = await trained.session.connect();
    const [, bucket = '', key = ''] = /^s3:\/\/([^/]+)\/(.+)$/.exec(await trained.modelData()) ?? [];
    expect((await s3.headObject({ bucket, key })).sizeBytes).toBeGreaterThan(0);
    expect(warnings).toEqual([]);
  });

  it('a local file is uploaded below the job, and its channel holds it', async () => {
    const file = join(dataDirectory, 'b.csv');
    writeFileSync(file, '2\n');
    const job = await estimator().fit(file, { logs: false });
    expect(linesOf(await collect(job.events()))).toContain("channel ['b.csv']");
  });

  it('a distribution starts on the group that it names, and the others run the script as it is', async () => {
    const group = (instanceGroupName: string, instanceType: string, instanceCount: number) => {
      return { instanceGroupName, instanceType, instanceCount };
    };
    writeFileSync(
      join(source, 'group.py'),
      "import os; print('group', os.environ['SM_CURRENT_INSTANCE_GROUP'], 'rank', os.environ.get('RANK'))",
    );
    const grouped = new PyTorch({
      entryPoint: 'group.py',
      sourceDir: source,
      session: session(),
      instanceGroups: [group('data', 'ml.c5.xlarge', 1), group('train', 'ml.m5.xlarge', 2)],
      distribution: { torch_distributed: { enabled: true }, instance_groups: ['train'] },
    });
    const job = await grouped.fit(undefined, { logs: false });
    const events = await collect(job.events());
    expect(linesOf(events, 'algo-1')).toEqual(['group data rank None']);
    expect(linesOf(events, 'algo-2')).toEqual(['group train rank 0']);
    expect(linesOf(events, 'algo-3')).toEqual(['group train rank 1']);
    expect((await job.describe()).ResourceConfig?.InstanceGroups).toHaveLength(2);
  });

  it('events go on after any of their ids, without repeating one', async () => {
    const job = await estimator().fit(undefined, { logs: false });
    const all = await collect(job.events());
    const middle = all[Math.floor(all.length / 2)];
    const rest = await collect(job.events({ after: middle?.id ?? null }));
    const withoutStatus = (events: readonly TrainingJobEvent[]) =>
      events.filter((event) => event.type !== 'status');
    const after = all.slice(all.indexOf(middle as TrainingJobEvent) + 1);
    expect(withoutStatus(rest)).toEqual(withoutStatus(after));
  });

  it('a script that fails throws TrainingFailed with its reason and description', async () => {
    const error = await estimator({ hyperparameters: { exit: 3 } })
      .fit(undefined, { logs: false })
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(TrainingFailed);
    const failed = error as TrainingFailed;
    expect(failed.reason).toMatch(/^AlgorithmError: /);
    expect(failed.description.TrainingJobStatus).toBe('Failed');
  });

  it('a stopped job throws TrainingStopped; stopping it again changes nothing', async () => {
    const job = await estimator({ hyperparameters: { lines: 1000, pause: 0.05 } }).fit(undefined, {
      wait: false,
    });
    const waiting = job.wait().catch((thrown: unknown) => thrown);
    for await (const event of job.events()) if (event.type === 'log') break;
    await job.stop();
    expect(await waiting).toBeInstanceOf(TrainingStopped);
    await job.stop();
  });

  it('a job that reaches maxRun throws MaxRuntimeExceeded', async () => {
    const slow = estimator({ maxRun: 1, hyperparameters: { lines: 1000, pause: 0.05 } });
    await expect(slow.fit(undefined, { logs: false })).rejects.toBeInstanceOf(MaxRuntimeExceeded);
  });

  it('attach gives an estimator that can train again with the same options', async () => {
    const first = estimator({ hyperparameters: { lines: 2 }, instanceCount: 2, baseJobName: 'again' });
    const job = await first.fit(undefined, { logs: false });
    const attached = await PyTorch.attach(job.name, { session: session() });
    expect(attached.latestTrainingJob?.name).toBe(job.name);
    const original = await first.render(undefined, { jobName: 'x' });
    const again = await attached.render(undefined, { jobName: 'x' });
    const comparable = ({ request }: typeof original) => ({
      ...request,
      HyperParameters: { ...request.HyperParameters, sagemaker_submit_directory: '' },
    });
    expect(comparable(again)).toEqual(comparable(original));
    await attached.fit(undefined, { logs: false });
  });

  it('a signal ends the waiting, not the job', async () => {
    const leave = new AbortController();
    const fitting = estimator({ hyperparameters: { lines: 20, pause: 0.05 } });
    const waiting = fitting
      .fit(undefined, { logs: false, signal: leave.signal })
      .catch((thrown: unknown) => thrown);
    await Promise.race([waiting, until('the job to be made', () => fitting.latestTrainingJob)]);
    leave.abort();
    expect(await waiting).toMatchObject({ name: 'AbortError' });
    expect((await fitting.wait()).TrainingJobStatus).toBe('Completed');
  });

  it('a service killed while a job is followed is started again, and no line is lost or repeated', async () => {
    const job = await estimator({ hyperparameters: { lines: 60, pause: 0.05 } }).fit(undefined, {
      wait: false,
    });
    const seen: TrainingJobEvent[] = [];
    const killed = new Set<number>();
    for await (const event of job.events()) {
      seen.push(event);
      const line = event.type === 'log' && /^line (\d+)$/.exec(event.message);
      const pid = readServiceRecord(dataDirectory)?.pid;
      // After line 10, and the next service after line 30: several lines may come at once.
      const isDue = line && Number(line[1]) >= [10, 30, Infinity][killed.size]!;
      if (!isDue || pid === undefined || killed.has(pid)) continue;
      process.kill(pid, 'SIGKILL');
      killed.add(pid);
    }
    expect(killed.size).toBe(2);
    expect(linesOf(seen).filter((line) => line.startsWith('line '))).toEqual(counted(60));
    expect((await job.describe()).TrainingJobStatus).toBe('Completed');
  });
});

describe('the embedded service', () => {
  beforeEach(useDirectory);
  afterEach(removeDirectory);

  /** A client in a process of its own, which ends when it has connected. */
  async function client(): Promise<string> {
    const code = `
      import { Session } from '@trainyard/sdk';
      const { endpointUrl } = await new Session({ on: 'embedded', dataDirectory: ${JSON.stringify(dataDirectory)} }).connect();
      console.log(endpointUrl);`;
    const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', code], { cwd: ROOT });
    return stdout.trim();
  }

  it('is started by one of several clients that come at once, and outlives them', async () => {
    const urls = await Promise.all([client(), client(), client()]);
    expect(new Set(urls).size).toBe(1);
    const record = readServiceRecord(dataDirectory);
    expect(record?.url).toBe(urls[0]);
    expect(await client()).toBe(urls[0]);
    expect(readServiceRecord(dataDirectory)?.pid).toBe(record?.pid);
  });

  it('is stopped on request and started again by the next client', async () => {
    const first = session();
    await first.connect();
    const pid = readServiceRecord(dataDirectory)?.pid as number;
    expect(await first.stopService()).toBe(true);
    expect(() => process.kill(pid, 0)).toThrow(/ESRCH/);
    expect(await first.stopService()).toBe(false);
    await first.connect();
    expect(readServiceRecord(dataDirectory)?.pid).not.toBe(pid);
  });

  it('stays stopped when it was stopped on purpose, and the follower of a job says so', async () => {
    const job = await estimator({ hyperparameters: { lines: 1000, pause: 0.05 } }).fit(undefined, {
      wait: false,
    });
    const following = collect(new TrainingJob(job.name, session()).events()).catch(
      (thrown: unknown) => thrown,
    );
    await until('the job to train', async () => (await job.describe()).SecondaryStatus === 'Training');
    await session().stopService();
    const error = await following;
    expect(error).toBeInstanceOf(ServiceUnavailable);
    expect((error as Error).message).toContain('was stopped');
    expect(readServiceRecord(dataDirectory)).toBeNull();
  });

  it('that cannot start is reported with the end of its log', async () => {
    const broken = join(dataDirectory, 'broken.mjs');
    writeFileSync(
      broken,
      "console.error('first line');\nconsole.error('the disk is on fire');\nprocess.exit(7);\n",
    );
    vi.stubEnv('TRAINYARD_SERVICE', broken);
    const error = await session()
      .connect()
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ServiceUnavailable);
    expect((error as ServiceUnavailable).logTail).toEqual(['first line', 'the disk is on fire']);
    expect((error as Error).message).toContain('exit status 7');
  });

  it('whose program is missing is reported by its path', async () => {
    vi.stubEnv('TRAINYARD_SERVICE', join(dataDirectory, 'nope.mjs'));
    await expect(session().connect()).rejects.toThrow(/nope\.mjs/);
  });
});
