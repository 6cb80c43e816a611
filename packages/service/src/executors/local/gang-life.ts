import type { ExecutorHandle } from '../executor.ts';
import { ExecutorError } from './executor-error.ts';
import type { GangRendering, Rung } from './gang-rendering.ts';
import type { GangStatus, HostStatus } from './gang-status.ts';
import {
  bootId,
  isAlive,
  type ProcessIdentity,
  processesWithVariable,
  sendSignal,
} from './process-identity.ts';
import { askUntil } from './until.ts';

/** What a handle keeps: enough to find, judge and end an attempt after a restart of the service. */
export interface GangState {
  directory: string;
  runRoot: string | null;
  rung: Rung;
  bootId: string | null;
  gang: ProcessIdentity;
  root: ProcessIdentity | null;
  hosts: string[];
}

/** More than init's grace between SIGTERM and SIGKILL. */
const TERM_PATIENCE_MS = 3_000;
const KILL_PATIENCE_MS = 15_000;

export function stateOf(rendering: GangRendering, status: GangStatus): GangState {
  const { directory, runRoot, rung } = rendering;
  return {
    directory,
    runRoot,
    rung,
    bootId: status.bootId,
    gang: status.gang,
    root: status.root,
    hosts: Object.keys(status.hosts),
  };
}

export function stateOfHandle(handle: ExecutorHandle): GangState {
  return handle.state as unknown as GangState;
}

/** Process ids mean nothing after a restart of the machine. */
export async function isGangAlive(state: GangState): Promise<boolean> {
  return (await bootId()) === state.bootId && (await isAlive(state.gang));
}

/** SIGTERM, then SIGKILL; returns when no process of the attempt is left. @throws ExecutorError when one survives */
export async function endGang(state: GangState): Promise<void> {
  if ((await bootId()) !== state.bootId) return;
  const isGone = (identity: ProcessIdentity) => async () => ((await isAlive(identity)) ? null : true);
  if ((await isAlive(state.gang)) && sendSignal(state.gang.pid, 'SIGTERM')) {
    if (!(await askUntil(isGone(state.gang), TERM_PATIENCE_MS))) sendSignal(state.gang.pid, 'SIGKILL');
  }
  // When the first process of the namespaces can no longer be seen, the kernel has ended all others in them.
  for (const identity of state.root === null ? [state.gang] : [state.gang, state.root]) {
    if (!(await askUntil(isGone(identity), KILL_PATIENCE_MS))) {
      throw new ExecutorError(
        'cancel',
        `process ${identity.pid} of ${state.directory} did not end within ${KILL_PATIENCE_MS} ms of SIGKILL; it hangs in the kernel (see /proc/${identity.pid}/stack)`,
      );
    }
  }
  if (state.runRoot !== null) await killMarked(state.runRoot);
}

/** Without namespaces, a killed init may have left processes that no ancestor of ours knows any more. */
async function killMarked(runRoot: string): Promise<void> {
  const left = await askUntil(async () => {
    const pids = await processesWithVariable('TRAINYARD_INIT_SOCKET', `${runRoot}/`);
    for (const pid of pids) sendSignal(pid, 'SIGKILL');
    return pids.length === 0 ? true : null;
  }, KILL_PATIENCE_MS);
  if (left === null)
    throw new ExecutorError('cancel', `processes of ${runRoot} survived SIGKILL for ${KILL_PATIENCE_MS} ms`);
}

export function describeEnd(host: HostStatus): string {
  return host.signal === null ? `exit status ${host.exitCode}` : `killed by ${host.signal}`;
}
