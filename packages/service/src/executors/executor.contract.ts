import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Executor, ExecutorHandle, GangPlan, HostObservation } from './executor.ts';

/**
 * What the suite needs around an executor. The hosts run the real executor's init; their agent is the harness's own
 * program, which stays until it is told to end.
 */
export interface ExecutorHarness {
  executor: Executor;
  /** A second executor over the same state, as after a restart of the service. */
  reopen(): Promise<Executor>;
  /** A plan for hosts `algo-1`…`algo-N`; a mount of this source at the channel `train` when one is given. */
  plan(jobName: string, hosts: number, mountSource?: string): GangPlan;
  /** How often the agent of a host has started. */
  agentStarts(handle: ExecutorHandle, host: string): Promise<number>;
  /** Makes the agent of a host exit 0. */
  finishAgent(handle: ExecutorHandle, host: string): Promise<void>;
  /** Ends the agent of a host by SIGKILL. */
  killAgent(handle: ExecutorHandle, host: string): Promise<void>;
  /** Ends a host from outside without its own doing: SIGKILL to its init, a lost node. */
  loseHost(handle: ExecutorHandle, host: string): Promise<void>;
  /** Starts a process in a host that leaves its session and ignores SIGTERM. */
  startStubborn(handle: ExecutorHandle, host: string): Promise<void>;
  /** Processes, mounts, namespaces, sockets and the like that still exist of an attempt, one line each. */
  leftovers(handle: ExecutorHandle): Promise<string[]>;
  /** Removes every trace of an attempt. */
  discard(handle: ExecutorHandle): Promise<void>;
  /** Ends everything that the harness started. */
  close(): Promise<void>;
}

/**
 * The behaviour that every executor promises, shown with real hosts.
 *
 * @param make opens a harness, or says in one sentence why it cannot run here: the suite is then skipped with that reason
 */
export function executorContract(name: string, make: () => Promise<ExecutorHarness | string>): void {
  describe(`the executor contract on ${name}`, () => {
    let harness: ExecutorHarness;
    let skipped: string | null = null;
    const handles: ExecutorHandle[] = [];
    let count = 0;

    beforeAll(async () => {
      const made = await make();
      if (typeof made === 'string') skipped = made;
      else harness = made;
    });
    afterEach(async () => {
      for (const handle of handles.splice(0)) await harness.discard(handle);
    });
    afterAll(async () => {
      if (skipped === null) await harness.close();
    });

    const promise = (title: string, body: () => Promise<void>): void => {
      it(title, async (context) => {
        if (skipped !== null) return context.skip(skipped);
        await body();
      });
    };
    const submit = async (hosts: number): Promise<ExecutorHandle> => {
      count += 1;
      const handle = await harness.executor.submit(
        harness.executor.render(harness.plan(`contract-${count}`, hosts)),
      );
      handles.push(handle);
      return handle;
    };
    const observe = (handle: ExecutorHandle): Promise<HostObservation[]> => harness.executor.observe(handle);
    const seen = async (handle: ExecutorHandle, host: string, state: HostObservation['state']) =>
      until(`${host} to be ${state}`, async () => {
        const observation = (await observe(handle)).find((each) => each.host === host);
        return observation?.state === state ? observation : null;
      });
    const started = (handle: ExecutorHandle, host: string, times = 1) =>
      until(`start ${times} of the agent of ${host}`, async () => {
        const starts = await harness.agentStarts(handle, host);
        return starts >= times ? starts : null;
      });

    promise('renders the same value for the same plan, one that can be printed', async () => {
      const plan = harness.plan('rendered', 2);
      const rendered = harness.executor.render(plan);
      expect(harness.executor.render(plan)).toEqual(rendered);
      expect(JSON.parse(JSON.stringify(rendered))).toEqual(rendered);
    });

    promise('starts the agent of every host and reports them running', async () => {
      const handle = await submit(2);
      expect(await observe(handle)).toEqual([
        { host: 'algo-1', state: 'running', detail: null },
        { host: 'algo-2', state: 'running', detail: null },
      ]);
      for (const host of ['algo-1', 'algo-2']) expect(await started(handle, host)).toBe(1);
    });

    promise('submitting an attempt again returns what runs and starts nothing', async () => {
      const handle = await submit(1);
      await started(handle, 'algo-1');
      const plan = harness.plan(handle.jobName, 1);
      expect(await harness.executor.submit(harness.executor.render(plan))).toEqual(handle);
      expect(await harness.agentStarts(handle, 'algo-1')).toBe(1);
    });

    promise('submitting twice at once starts one attempt', async () => {
      count += 1;
      const rendered = harness.executor.render(harness.plan(`contract-${count}`, 2));
      const both = await Promise.all([harness.executor.submit(rendered), harness.executor.submit(rendered)]);
      handles.push(both[0]);
      expect(both[1]).toEqual(both[0]);
      for (const host of ['algo-1', 'algo-2']) expect(await started(both[0], host)).toBe(1);
    });

    promise('a handle that was stored serves another executor after a restart', async () => {
      const handle = await submit(1);
      const stored = JSON.parse(JSON.stringify(handle)) as ExecutorHandle;
      const reopened = await harness.reopen();
      expect(await reopened.observe(stored)).toEqual([{ host: 'algo-1', state: 'running', detail: null }]);
      await reopened.cancel(stored);
      expect(await harness.leftovers(handle)).toEqual([]);
    });

    promise('a host whose agent exits 0 is gone with that status, the others run on', async () => {
      const handle = await submit(2);
      await started(handle, 'algo-1');
      await harness.finishAgent(handle, 'algo-1');
      expect((await seen(handle, 'algo-1', 'gone')).detail).toBe('exit status 0');
      expect((await seen(handle, 'algo-2', 'running')).detail).toBeNull();
    });

    promise('an agent that is killed is started again in its host', async () => {
      const handle = await submit(1);
      await started(handle, 'algo-1');
      await harness.killAgent(handle, 'algo-1');
      expect(await started(handle, 'algo-1', 2)).toBe(2);
      expect((await seen(handle, 'algo-1', 'running')).detail).toBeNull();
    });

    promise('a host that is lost is reported gone with its cause, the others run on', async () => {
      const handle = await submit(2);
      await started(handle, 'algo-2');
      await harness.loseHost(handle, 'algo-2');
      expect((await seen(handle, 'algo-2', 'gone')).detail).toContain('SIGKILL');
      expect((await seen(handle, 'algo-1', 'running')).detail).toBeNull();
    });

    promise('what a lost host ran is ended too', async () => {
      const handle = await submit(1);
      await started(handle, 'algo-1');
      await harness.startStubborn(handle, 'algo-1');
      await harness.loseHost(handle, 'algo-1');
      await seen(handle, 'algo-1', 'gone');
      await until('nothing left of the host', async () =>
        (await harness.leftovers(handle)).some((line) => line.startsWith('process')) ? null : true,
      );
    });

    promise('cancel ends every process and leaves nothing, and may be repeated', async () => {
      const handle = await submit(2);
      for (const host of ['algo-1', 'algo-2']) {
        await started(handle, host);
        await harness.startStubborn(handle, host);
      }
      expect(await harness.leftovers(handle)).not.toEqual([]);
      await harness.executor.cancel(handle);
      expect(await harness.leftovers(handle)).toEqual([]);
      expect((await observe(handle)).map(({ state }) => state)).toEqual(['gone', 'gone']);
      await harness.executor.cancel(handle);
    });

    promise('an attempt that has ended is not started again', async () => {
      const handle = await submit(1);
      await started(handle, 'algo-1');
      await harness.finishAgent(handle, 'algo-1');
      await seen(handle, 'algo-1', 'gone');
      const again = await harness.executor.submit(harness.executor.render(harness.plan(handle.jobName, 1)));
      expect((await observe(again))[0]).toMatchObject({ host: 'algo-1', state: 'gone' });
      expect(await harness.agentStarts(handle, 'algo-1')).toBe(1);
      await harness.executor.cancel(again);
    });

    promise('a gang that cannot start is refused with the cause, and nothing of it stays', async () => {
      const rendered = harness.executor.render(harness.plan('unstartable', 2, '/nonexistent/folder'));
      const refusal = await harness.executor.submit(rendered).catch((error: unknown) => error);
      expect(refusal).toMatchObject({
        name: 'ExecutorError',
        message: expect.stringContaining('/nonexistent/folder'),
      });
      // Nothing holds the name: a plan without the mistake starts.
      const handle = await harness.executor.submit(harness.executor.render(harness.plan('unstartable', 1)));
      handles.push(handle);
      expect(await observe(handle)).toEqual([{ host: 'algo-1', state: 'running', detail: null }]);
    });
  });
}

const DEADLINE_MS = 30_000;

async function until<T>(what: string, ask: () => Promise<T | null>): Promise<T> {
  const end = Date.now() + DEADLINE_MS;
  for (;;) {
    const answer = await ask();
    if (answer !== null) return answer;
    if (Date.now() > end) throw new Error(`Waited ${DEADLINE_MS / 1000} s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
