import { setTimeout as sleep } from 'node:timers/promises';
import { monotonicMs } from './clock.ts';
import { requestStop } from './commands.ts';
import type { InitClient } from './init-client.ts';
import { signalRanks } from './processes.ts';
import type { LaunchRecord, StateStore, StopRecord } from './state.ts';

export interface SuperviseDeps {
  state: StateStore;
  init: Pick<InitClient, 'signal' | 'list'>;
  launch: LaunchRecord;
  initSocket: string;
  maxRuntimeMs: number;
  stopGraceMs: number;
  say: (message: string) => void;
  /** Aborted when the script has ended. */
  signal: AbortSignal;
}

/** Timers overflow above 24 days, and a job may run for 28. */
const LONGEST_SLEEP_MS = 3_600_000;

/**
 * Ends the script when it is told to or when its time is up, also while the service is away: SIGTERM, the grace
 * time, SIGKILL. Every step is in the state, so an agent that attaches again goes on where the last one stood.
 */
export async function superviseStop(deps: SuperviseDeps): Promise<void> {
  const { state, signal } = deps;
  while (!signal.aborted) {
    const { stop, startedAtMs } = state.current;
    const now = monotonicMs();
    if (stop && stop.signalledAtMs === null) {
      await terminate(deps, stop);
      continue;
    }
    const deadline = stop ? stop.signalledAtMs! + stop.graceMs : (startedAtMs ?? now) + deps.maxRuntimeMs;
    if (now < deadline) {
      await waitForChange(deps, stop, Math.min(deadline - now, LONGEST_SLEEP_MS));
    } else if (stop) {
      deps.say(
        `The script did not end within ${Math.round(stop.graceMs / 1000)} s after SIGTERM; killing it`,
      );
      return deps.init.signal('*', 'KILL');
    } else {
      deps.say('The job reached MaxRuntimeInSeconds; stopping the script');
      await state.update((current) =>
        requestStop(current, 'max_runtime', 'max_runtime', deps.stopGraceMs, now),
      );
    }
  }
}

async function waitForChange(
  { state, signal }: SuperviseDeps,
  stop: StopRecord | null,
  ms: number,
): Promise<void> {
  const turn = new AbortController();
  const either = AbortSignal.any([signal, turn.signal]);
  const changed = state.until((current) => current.stop?.graceMs !== stop?.graceMs, either);
  await Promise.race([changed, sleep(ms, undefined, { signal: either })]).catch(() => {});
  turn.abort();
  await changed.catch(() => {});
}

async function terminate(deps: SuperviseDeps, stop: StopRecord): Promise<void> {
  const { state, launch } = deps;
  if (stop.endedBy === 'stop') deps.say(`Stopping the script (${REASONS[stop.reason]})`);
  await TERMINATE[launch.launcher](deps);
  await state.update((current) => {
    if (current.stop) current.stop.signalledAtMs = monotonicMs();
  });
}

const REASONS: Readonly<Record<StopRecord['reason'], string>> = {
  user: 'the job was stopped',
  max_runtime: 'the job reached MaxRuntimeInSeconds',
  peer_failed: 'another host failed',
  host_lost: 'another host was lost',
};

/** Each rank must get SIGTERM once: at the second one its handler may be saving already. */
const TERMINATE: Readonly<Record<LaunchRecord['launcher'], (deps: SuperviseDeps) => Promise<void>>> = {
  single: ({ init }) => init.signal('main', 'TERM'),
  container: ({ init }) => init.signal('main', 'TERM'),
  // Servers are left alone: the scripts save with them.
  'tensorflow-servers': ({ init }) => init.signal('main', 'TERM'),
  'multi-worker': ({ init }) => init.signal('main', 'TERM'),
  'mxnet-servers': ({ init }) => init.signal('main', 'TERM'),
  // Passes it on, and waits as long as TORCH_ELASTIC_SHUTDOWN_TIMEOUT says.
  torchrun: ({ init }) => terminateProcess(init),
  mpirun: (deps) => terminateMpi(deps),
  smddp: (deps) => terminateMpi(deps),
};

/** mpirun kills its ranks within a second of its own SIGTERM, so every host's agent tells the ranks there instead. */
async function terminateMpi({ init, launch, initSocket }: SuperviseDeps): Promise<void> {
  const told = signalRanks('OMPI_COMM_WORLD_RANK', initSocket, 'SIGTERM');
  if (!told && launch.role === 'run') await terminateProcess(init);
}

async function terminateProcess(init: Pick<InitClient, 'list'>): Promise<void> {
  const main = (await init.list()).find(({ id, running }) => id === 'main' && running);
  if (!main) return;
  try {
    process.kill(main.pid, 'SIGTERM');
  } catch {
    // Ended between the two calls.
  }
}

/** After the first failed rank the others get this long to end by the launcher's SIGTERM. */
const RANKS_GRACE_MS = 1000;

/**
 * A rank failed: its launcher ends the others, but waits for them up to 30 s. Here they are gone within 2 s, so that
 * all ranks of the job, on all hosts, are within 5.
 */
export async function endRanks(
  deps: Pick<SuperviseDeps, 'init' | 'initSocket' | 'launch' | 'signal'>,
): Promise<void> {
  const { init, initSocket, launch, signal } = deps;
  await sleep(RANKS_GRACE_MS, undefined, { signal }).catch(() => {});
  if (signal.aborted) return;
  // Not torchrun itself: it still has to say which rank failed first, and how.
  if (launch.launcher === 'torchrun' && signalRanks('RANK', initSocket, 'SIGKILL') !== null) {
    await sleep(RANKS_GRACE_MS, undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
  }
  await init.signal('*', 'KILL');
}
