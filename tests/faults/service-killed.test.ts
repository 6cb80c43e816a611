import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createJob, finished, logged, logLines, reaches } from '../support/jobs.ts';
import { hostProcesses, processesOf, startService, type TestService } from '../support/service.ts';
import { until } from '../support/until.ts';

const isAgent = ({ command }: { command: string }): boolean => command.includes('agent.mjs');

describe('when the service is killed', () => {
  let service: TestService;
  beforeAll(async () => {
    service = await startService();
  });
  afterAll(() => service?.dispose());
  // A test that failed may have left it dead.
  beforeEach(() => service.ensureRunning());

  it('while ranks run, then they run on, no line is lost or doubled, and the job completes', async () => {
    const name = await createJob(service, {
      script: 'count_lines.py',
      processes: 2,
      hyperParameters: { lines: '400' },
    });
    await logged(service, name, /line 20$/);
    await service.kill('SIGKILL');
    await until(
      'hosts to run without the service',
      () => hostProcesses(service, name).filter(({ command }) => command.includes('count_lines')).length >= 4,
    );
    await service.start();
    await finished(service, name);
    const lines = await logLines(service, name);
    for (const rank of [0, 1, 2, 3]) {
      const numbers = lines
        .flatMap((line) => new RegExp(`rank ${rank} line (\\d+)$`).exec(line)?.[1] ?? [])
        .map(Number);
      // Even numbers went to stderr, odd ones to stdout: each stream keeps its own order.
      for (const stream of [0, 1]) {
        expect(
          numbers.filter((number) => number % 2 === stream),
          `rank ${rank}`,
        ).toEqual(Array.from({ length: 200 }, (_, index) => 2 * index + stream));
      }
    }
  });

  it.each(['Starting', 'Downloading', 'Training', 'Uploading'])(
    'in status %s, then the next one finishes the job',
    async (status) => {
      const name = await createJob(service, {
        script: 'count_lines.py',
        instances: 2,
        distribution: 'none',
        hyperParameters: { lines: '40' },
      });
      if (status !== 'Starting') {
        await until(`${status} or later`, async () => {
          const job = await service.describe(name);
          return job.SecondaryStatusTransitions!.some((transition) => transition.Status === status);
        });
      }
      await service.kill('SIGKILL');
      await service.start();
      const job = await finished(service, name);
      expect(job.SecondaryStatusTransitions!.map(({ Status }) => Status)).toEqual([
        'Starting',
        'Starting',
        'Downloading',
        'Training',
        'Uploading',
        'Completed',
      ]);
    },
  );

  it('again and again at random moments, then every job still comes to its end exactly once', async () => {
    const names = await Promise.all(
      [1, 2, 3].map(() =>
        createJob(service, {
          script: 'count_lines.py',
          instances: 2,
          distribution: 'none',
          hyperParameters: { lines: '60' },
        }),
      ),
    );
    for (let round = 0; round < 4; round++) {
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 700));
      await service.kill('SIGKILL');
      await service.start();
    }
    for (const name of names) {
      const job = await finished(service, name);
      expect(job.SecondaryStatusTransitions!.filter(({ Status }) => Status === 'Completed')).toHaveLength(1);
      expect((await logLines(service, name)).filter((line) => / line 59$/.test(line))).toHaveLength(2);
    }
  });

  it('and the agent of a host is killed too, then both go on', async () => {
    const name = await createJob(service, {
      script: 'count_lines.py',
      processes: 1,
      hyperParameters: { lines: '300' },
    });
    await logged(service, name, /line 10$/);
    await service.kill('SIGKILL');
    const agents = hostProcesses(service, name).filter(isAgent);
    expect(agents).toHaveLength(2);
    for (const { pid } of agents) process.kill(pid, 'SIGKILL');
    await service.start();
    await finished(service, name);
    const lines = (await logLines(service, name)).filter((line) => / line \d+$/.test(line));
    expect(lines).toHaveLength(600);
    expect(new Set(lines).size).toBe(600);
  });

  // Long enough for the scripts to be there before their time is over, also where a machine stands still for seconds.
  it('and stays away beyond MaxRuntimeInSeconds, then the agents end the ranks in time all the same', async () => {
    const name = await createJob(service, {
      script: 'wait_for_stop.py',
      distribution: 'none',
      change: { StoppingCondition: { MaxRuntimeInSeconds: 8 } },
    });
    await logged(service, name, /algo-2: waiting/);
    await service.kill('SIGKILL');
    await until(
      'the ranks to end without the service',
      () => hostProcesses(service, name).every(({ command }) => !command.includes('wait_for_stop')),
      { show: () => hostProcesses(service, name) },
    );
    await service.start();
    const job = await finished(service, name, 'Stopped');
    expect(job.SecondaryStatus).toBe('MaxRuntimeExceeded');
    expect(await logLines(service, name)).toContain('algo-2: got SIGTERM');
  });

  it('while a job is stopping, then it is stopped', async () => {
    const name = await createJob(service, { script: 'wait_for_stop.py', distribution: 'none', instances: 1 });
    await reaches(service, name, 'Training');
    await logged(service, name, /waiting/);
    await service.aws.sagemaker.call('StopTrainingJob', { TrainingJobName: name });
    await service.kill('SIGKILL');
    await service.start();
    await finished(service, name, 'Stopped');
  });
});

describe('when an agent is killed', () => {
  let service: TestService;
  beforeAll(async () => {
    service = await startService();
  });
  afterAll(() => service?.dispose());

  it('then init starts it again and the ranks never notice', async () => {
    const name = await createJob(service, {
      script: 'count_lines.py',
      processes: 2,
      hyperParameters: { lines: '300' },
    });
    await logged(service, name, /line 10$/);
    for (const { pid } of hostProcesses(service, name).filter(isAgent)) process.kill(pid, 'SIGKILL');
    await finished(service, name);
    const lines = (await logLines(service, name)).filter((line) => /rank \d line \d+$/.test(line));
    expect(lines).toHaveLength(1200);
    expect(new Set(lines).size).toBe(1200);
  });
});

describe('when a host is killed', () => {
  let service: TestService;
  beforeAll(async () => {
    service = await startService();
  });
  afterAll(() => service?.dispose());

  it('then the job fails naming it, and nothing of the job is left', async () => {
    const name = await createJob(service, { script: 'wait_for_stop.py', distribution: 'none' });
    await logged(service, name, /algo-2: waiting/);
    const init = hostProcesses(service, name).filter(
      ({ host, command }) => host === 'algo-2' && command.includes('gang.py'),
    );
    expect(init).toHaveLength(1);
    process.kill(init[0]!.pid, 'SIGKILL');
    const job = await finished(service, name, 'Failed');
    expect(job.FailureReason).toMatch(/^InternalServerError: .*algo-2/);
    await until(
      'all processes of the job to end',
      () => processesOf(`${service.dataDir}/jobs/${name}`).length === 0,
    );
  });
});
