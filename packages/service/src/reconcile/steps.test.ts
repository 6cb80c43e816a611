import type { CreateTrainingJobRequest, HostReport } from '@trainyard/api';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Executor, ExecutorHandle, GangPlan, HostObservation } from '../executors/executor.ts';
import { compileJobSpec } from '../jobs/spec.ts';
import type { Database } from '../store/database.ts';
import { openDatabase } from '../store/database.ts';
import { HostStore } from '../store/host-store.ts';
import { JobStore } from '../store/job-store.ts';
import { KeyStore } from '../store/key-store.ts';
import { Reconciler } from './reconciler.ts';

/** Hosts that are alive until a test says otherwise. */
class FakeExecutor implements Executor<GangPlan> {
  readonly name = 'fake';
  readonly submitted: GangPlan[] = [];
  readonly cancelled: ExecutorHandle[] = [];
  readonly gone = new Map<string, string>();
  submitError: Error | null = null;
  probe(): never {
    throw new Error('not asked');
  }
  render(plan: GangPlan): GangPlan {
    return plan;
  }
  async submit(plan: GangPlan): Promise<ExecutorHandle> {
    if (this.submitError) throw this.submitError;
    this.submitted.push(plan);
    return {
      executor: 'fake',
      jobName: plan.jobName,
      attempt: plan.attempt,
      state: { hosts: plan.hosts.map(({ host }) => host) },
    };
  }
  async observe(handle: ExecutorHandle): Promise<HostObservation[]> {
    return (handle.state.hosts as string[]).map((host) => {
      const detail = this.gone.get(`${handle.attempt}/${host}`) ?? null;
      return { host, state: detail === null ? 'running' : 'gone', detail };
    });
  }
  async cancel(handle: ExecutorHandle): Promise<void> {
    this.cancelled.push(handle);
  }
}

const request = (
  name: string,
  instanceCount: number,
  extra: Partial<CreateTrainingJobRequest> = {},
): CreateTrainingJobRequest => ({
  TrainingJobName: name,
  RoleArn: 'arn:aws:iam::000000000000:role/Train',
  AlgorithmSpecification: { TrainingImage: 'x/pytorch-training:2.3.0-cpu-py311', TrainingInputMode: 'File' },
  OutputDataConfig: { S3OutputPath: 's3://bucket/out' },
  ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: instanceCount, VolumeSizeInGB: 30 },
  StoppingCondition: { MaxRuntimeInSeconds: 3600 },
  ...extra,
});

describe('the reconcile loop', () => {
  let db: Database;
  let jobs: JobStore;
  let hosts: HostStore;
  let executor: FakeExecutor;
  let loop: Reconciler;
  let now = 1_000_000;
  let seq: Map<string, number>;
  const errors: unknown[] = [];

  const newLoop = (owner: string): Reconciler =>
    new Reconciler({
      db,
      jobs,
      hosts,
      keys: new KeyStore(db),
      executor,
      region: 'us-west-2',
      accountId: '000000000000',
      networkInterfaceName: 'eth0',
      now: () => now,
      hostToken: (job, attempt, host) => `${job}.${attempt}.${host}`,
      runtimePlan: (name) => {
        if (name === 'gone')
          throw new Error('the runtime gone is gone; make it: trainyard setup --runtime gone');
        return { name, python: '/usr/bin/python3', binDirs: [], preload: false };
      },
      forkServerSocket: async () => null,
      visiblePaths: () => [],
      fileSystemPath: () => null,
      removeAttempt: async () => {},
      changed: () => {},
      commanded: () => {},
      hostLimit: 4,
      owner,
      onError: (_job, error) => errors.push(error),
    });

  beforeEach(() => {
    now = 1_000_000;
    errors.length = 0;
    seq = new Map();
    db = openDatabase(':memory:');
    jobs = new JobStore(db, () => now);
    hosts = new HostStore(db, () => now);
    executor = new FakeExecutor();
    loop = newLoop('one');
  });

  const create = (name: string, count: number, extra: Partial<CreateTrainingJobRequest> = {}): void => {
    const body = request(name, count, extra);
    jobs.insert({
      arn: `arn:${name}`,
      request: body,
      spec: compileJobSpec(body, { name: 'pytorch', framework: 'pytorch' }),
      tags: [],
    });
  };

  /** Lets the loop work until it has nothing to do. */
  const settle = async (reconciler = loop): Promise<void> => {
    for (let round = 0; round < 12; round++) {
      reconciler.wake();
      await new Promise((resolve) => setImmediate(resolve));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(errors).toEqual([]);
  };

  type Report = HostReport extends infer R ? (R extends HostReport ? Omit<R, 'seq' | 'at'> : never) : never;
  const report = (job: string, host: string, body: Report): void => {
    const found = hosts.ofAttempt(job, jobs.get(job)!.attempt).find((each) => each.host === host)!;
    const key = `${job}/${found.attempt}/${host}`;
    const number = seq.get(key) ?? 0;
    seq.set(key, number + 1);
    hosts.registered(found, `${job}/${host}-1`);
    hosts.applyReports(found, [{ ...body, seq: number, at: now } as HostReport]);
  };
  const exited = (exitCode: number, endedBy: 'script' | 'stop' | 'max_runtime' = 'script'): Report => ({
    kind: 'exited',
    endedBy,
    exitCode,
    signal: null,
    failure: null,
    failureFile: null,
    command: 'python train.py',
    model: [{ path: 'model.pt', sizeBytes: 1 }],
    output: [],
  });
  const ready = (job: string, ...names: string[]): void => {
    for (const host of names) report(job, host, { kind: 'phase', phase: 'ready', detail: null });
  };
  const commands = (job: string, host: string): string[] =>
    hosts
      .commandsAfter(hosts.ofAttempt(job, jobs.get(job)!.attempt).find((each) => each.host === host)!, -1)
      .map(({ kind }) => kind);
  const statuses = (job: string): string[] => jobs.transitions(job).map(({ status }) => status);

  const run = async (name: string, count = 2): Promise<string[]> => {
    create(name, count);
    await settle();
    const names = Array.from({ length: count }, (_, index) => `algo-${index + 1}`);
    ready(name, ...names);
    await settle();
    return names;
  };

  it('walks a job through every status and uploads before it says Completed', async () => {
    const names = await run('job');
    expect(commands('job', 'algo-1')).toEqual(['start']);
    for (const host of names) report('job', host, exited(0));
    await settle();
    expect(jobs.get('job')!.status).toBe('InProgress');
    expect(jobs.get('job')!.secondaryStatus).toBe('Uploading');
    for (const host of names) report('job', host, { kind: 'phase', phase: 'uploaded', detail: null });
    now += 5000;
    await settle();
    expect(jobs.get('job')!.stage).toBe('done');
    expect(statuses('job')).toEqual([
      'Starting',
      'Starting',
      'Downloading',
      'Training',
      'Uploading',
      'Completed',
    ]);
    expect(executor.cancelled).toHaveLength(1);
    expect(jobs.get('job')!.usedMs).toBe(5000);
  });

  it('gives one time to what happens at once, however often the clock is read', async () => {
    jobs = new JobStore(db, () => ++now);
    loop = newLoop('one');
    const names = await run('job');
    for (const host of names) report('job', host, exited(0));
    await settle();
    for (const host of names) report('job', host, { kind: 'phase', phase: 'uploaded', detail: null });
    await settle();
    const job = jobs.get('job')!;
    const [accepted, launching, ...later] = jobs.transitions('job');
    expect(job.createdAt).toBe(accepted!.startedAt);
    expect(job.trainingStartAt).toBe(launching!.startedAt);
    expect(job.trainingEndAt).toBe(later.at(-1)!.startedAt);
    expect(job.usedMs).toBe(job.trainingEndAt! - job.trainingStartAt!);
  });

  it('fails a job at once whose runtime was removed while it waited, with the command that makes it', async () => {
    const body = request('job', 1, {});
    const spec = compileJobSpec(body, { name: 'gone', framework: 'mxnet' });
    jobs.insert({ arn: 'arn:job', request: body, spec, tags: [] });
    await settle();
    expect(jobs.get('job')).toMatchObject({ status: 'Failed', stage: 'done' });
    expect(jobs.get('job')!.failureReason).toBe(
      'ClientError: The hosts were not started: the runtime gone is gone; make it: trainyard setup --runtime gone',
    );
    expect(executor.submitted).toEqual([]);
  });

  it('starts no rank before every host is ready', async () => {
    create('job', 2);
    await settle();
    ready('job', 'algo-1');
    await settle();
    expect(commands('job', 'algo-1')).toEqual([]);
    ready('job', 'algo-2');
    await settle();
    expect(commands('job', 'algo-2')).toEqual(['start']);
  });

  it('stops the other hosts when a rank fails, and fails with AlgorithmError', async () => {
    await run('job');
    report('job', 'algo-2', exited(1));
    await settle();
    expect(commands('job', 'algo-1')).toEqual(['start', 'stop']);
    report('job', 'algo-1', exited(-15, 'stop'));
    await settle();
    for (const host of ['algo-1', 'algo-2'])
      report('job', host, { kind: 'phase', phase: 'uploaded', detail: null });
    await settle();
    expect(jobs.get('job')!.status).toBe('Failed');
    expect(jobs.get('job')!.failureReason).toContain('AlgorithmError: ExecuteUserScriptError:');
    expect(jobs.get('job')!.failureReason).toContain('algo-2');
  });

  it('lets a job go on when the script of one host ends with 0, and says so', async () => {
    await run('job');
    report('job', 'algo-1', exited(0));
    await settle();
    expect(jobs.get('job')!.stage).toBe('training');
    expect(hosts.notices('job')).toEqual([]);
    now += 6000;
    await settle();
    expect(hosts.notices('job').map(({ code }) => code)).toEqual(['HostEndedEarlier']);
  });

  it('tries again after a lost host only as often as the request allows', async () => {
    create('job', 1, { RetryStrategy: { MaximumRetryAttempts: 1 } });
    await settle();
    ready('job', 'algo-1');
    await settle();
    executor.gone.set('1/algo-1', 'killed by SIGKILL');
    await settle();
    expect(jobs.get('job')!.attempt).toBe(2);
    expect(statuses('job')).toContain('Restarting');
    expect(jobs.get('job')!.status).toBe('InProgress');
    executor.gone.set('2/algo-1', 'killed by SIGKILL');
    await settle();
    expect(jobs.get('job')!.status).toBe('Failed');
    expect(jobs.get('job')!.failureReason).toMatch(
      /^InternalServerError: .*algo-1 was lost: killed by SIGKILL/,
    );
  });

  it('never retries a failure of the script', async () => {
    create('job', 1, { RetryStrategy: { MaximumRetryAttempts: 3 } });
    await settle();
    ready('job', 'algo-1');
    await settle();
    report('job', 'algo-1', exited(1));
    await settle();
    report('job', 'algo-1', { kind: 'phase', phase: 'uploaded', detail: null });
    await settle();
    expect(jobs.get('job')!.status).toBe('Failed');
    expect(jobs.get('job')!.attempt).toBe(1);
  });

  it('gives hosts to the oldest job first and says what a waiting one waits for', async () => {
    await run('first', 3);
    now++;
    create('second', 3);
    await settle();
    expect(jobs.get('second')!.stage).toBe('queued');
    expect(jobs.get('second')!.waitReason).toBe('Waiting for 3 hosts: 1 of 4 free; held by first (3)');
    expect(jobs.get('second')!.secondaryStatus).toBe('Pending');
    for (const host of ['algo-1', 'algo-2', 'algo-3']) report('first', host, exited(0));
    await settle();
    for (const host of ['algo-1', 'algo-2', 'algo-3'])
      report('first', host, { kind: 'phase', phase: 'uploaded', detail: null });
    await settle();
    expect(jobs.get('second')!.stage).toBe('preparing');
  });

  it('is adopted by another process at any stage, which repeats the step and changes nothing twice', async () => {
    create('job', 2);
    await settle();
    await loop.stop();
    const second = newLoop('two');
    now += 61_000; // the lease of a killed process runs out
    ready('job', 'algo-1', 'algo-2');
    await settle(second);
    expect(jobs.get('job')!.stage).toBe('training');
    expect(executor.submitted).toHaveLength(1);
    expect(commands('job', 'algo-1')).toEqual(['start']);
  });

  it('is adopted at once by a service that knows the last owner is dead', async () => {
    create('job', 1);
    expect(jobs.lease('job', 'killed', 60_000)).toBe(true);
    await settle();
    expect(jobs.get('job')!.stage).toBe('queued');
    jobs.breakLeases();
    await settle();
    expect(jobs.get('job')!.stage).toBe('preparing');
  });

  it('changes nothing with a result that is out of date', () => {
    create('job', 1);
    const before = jobs.get('job')!;
    expect(jobs.apply(before, { stage: 'launching' })).not.toBeNull();
    expect(jobs.apply(before, { stage: 'done', transition: 'completed' })).toBeNull();
    expect(jobs.get('job')!.stage).toBe('launching');
  });

  it('fails a job whose hosts cannot be started, with the reason', async () => {
    executor.submitError = new Error('unshare: Operation not permitted');
    create('job', 1);
    await settle();
    expect(jobs.get('job')!.status).toBe('Failed');
    expect(jobs.get('job')!.failureReason).toContain('unshare: Operation not permitted');
  });

  it('applies each report once, also when an agent sends it again', () => {
    create('job', 1);
    loop.wake();
    const body: HostReport = { seq: 0, at: now, kind: 'notice', code: 'X', message: 'once' };
    const [host] = hosts.ofAttempt('job', 1);
    if (!host) throw new Error('no host');
    expect(hosts.applyReports(host, [body])).toBe(1);
    expect(hosts.applyReports(host, [body, { ...body, seq: 1, message: 'two' }])).toBe(2);
    expect(hosts.applyReports(host, [{ ...body, seq: 5, message: 'gap' }])).toBe(2);
    expect(hosts.notices('job').map(({ message }) => message)).toEqual(['once', 'two']);
  });
});
