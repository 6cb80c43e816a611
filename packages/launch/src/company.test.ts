import { describe, expect, it } from 'vitest';
import { Company } from './company.ts';
import type { ProcessEnd } from './init-client.ts';
import type { LaunchRecord } from './state.ts';

const GOOD: ProcessEnd = { exitCode: 0, signal: null, endedAt: 1 };
const KILLED: ProcessEnd = { exitCode: null, signal: 'SIGKILL', endedAt: 2 };

/** A host whose processes end when the test says so. */
function host(change: Partial<LaunchRecord> = {}) {
  const ends = new Map<string, PromiseWithResolvers<ProcessEnd>>();
  const at = (name: string): PromiseWithResolvers<ProcessEnd> => {
    if (!ends.has(name)) ends.set(name, Promise.withResolvers());
    return ends.get(name)!;
  };
  const current = { stop: null as unknown, endedWithLead: false };
  const over = new AbortController();
  const end = new Company({
    host: 'algo-1',
    init: {
      wait: (id) => at(id).promise,
      list: () => Promise.resolve([]),
      signal: () => Promise.resolve(),
    },
    peers: { ended: (name) => at(name).promise.then(() => {}) },
    state: { current, notice: () => Promise.resolve() } as never,
    log: { say: () => {} } as never,
    launch: {
      launcher: 'tensorflow-servers',
      role: 'run',
      command: 'python train.py',
      processesPerHost: 1,
      rankHosts: [],
      mpiMajor: null,
      companions: [{ id: 'ps', title: 'parameter server on algo-1' }],
      peers: ['algo-2'],
      follows: null,
      ...change,
    },
    signal: over.signal,
  }).end();
  let isOver = false;
  void end.then(() => {
    isOver = true;
    over.abort();
  });
  return {
    end,
    current,
    ends: (name: string, how: ProcessEnd) => at(name).resolve(how),
    isOver: async () => {
      await new Promise((done) => setImmediate(done));
      return isOver;
    },
  };
}

describe('a host with servers', () => {
  it('ends when its own script and those of the others have ended', async () => {
    const { end, ends, isOver } = host();
    ends('main', GOOD);
    expect(await isOver()).toBe(false);
    ends('algo-2', GOOD);
    expect(await end).toEqual(GOOD);
  });

  it('ends at once with a script that failed', async () => {
    const { end, ends } = host();
    ends('main', { ...GOOD, exitCode: 3 });
    expect(await end).toMatchObject({ exitCode: 3 });
  });

  it('ends with a server that dies, which it names', async () => {
    const { end, ends } = host();
    ends('ps', KILLED);
    expect(await end).toEqual({ ...KILLED, culprit: { id: 'ps', title: 'parameter server on algo-1' } });
  });

  it('also notices that while only other hosts’ scripts go on', async () => {
    const { end, ends, isOver } = host();
    ends('main', GOOD);
    expect(await isOver()).toBe(false);
    ends('ps', KILLED);
    expect(await end).toMatchObject({ culprit: { id: 'ps' } });
  });

  it('does not mind a server that ends well, as MXNet’s do', async () => {
    const { end, ends, isOver } = host();
    ends('ps', GOOD);
    expect(await isOver()).toBe(false);
    ends('main', GOOD);
    ends('algo-2', GOOD);
    expect(await end).toEqual(GOOD);
  });

  it('does not blame a server for ending after a stop', async () => {
    const { end, ends, current, isOver } = host();
    current.stop = { endedBy: 'stop' };
    ends('ps', KILLED);
    expect(await isOver()).toBe(false);
    ends('main', KILLED);
    expect(await end).toEqual(KILLED);
  });

  it('ended well when it was ended because the host that it follows is done', async () => {
    const { end, ends, current } = host({ follows: 'algo-2' });
    current.endedWithLead = true;
    ends('main', KILLED);
    ends('algo-2', GOOD);
    expect(await end).toMatchObject({ exitCode: 0, signal: null });
  });
});

it('a script alone ends as it ends', async () => {
  const { end, ends } = host({ companions: [], peers: [] });
  ends('main', KILLED);
  expect(await end).toEqual(KILLED);
});
