import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { AgentBootstrap } from '@trainyard/api';

/** What `agent.json` says, with the optional members that an executor may add and the paths that follow from it. */
export interface Bootstrap extends AgentBootstrap {
  /** False where hosts share the machine's file system and network: names do not resolve, ports are shared. */
  isolated: boolean;
  /** All hosts of the job run on one machine and share its cores. */
  sharesMachine: boolean;
  /** Host name → address under which the job's hosts reach each other; empty when names resolve. */
  hostAddresses: Record<string, string>;
  /** Variables that lead script and pip to the internet through the job's door. */
  egressEnvironment: Record<string, string>;
  /** The agent's own files. Where init can, it keeps them out of the script's sight. */
  agentStateDir: string;
  /** Holds `bin/`, `peers/`, `fork.sock`. */
  runDirectory: string;
}

/** @param path `-` for the standard input. @throws Error naming the file and the member that is missing or has the wrong type. */
export function readBootstrap(path: string): Bootstrap {
  const file = JSON.parse(readFileSync(path === '-' ? 0 : path, 'utf8')) as Partial<Bootstrap> & {
    isolation?: string;
  };
  const text = (name: keyof AgentBootstrap): string => {
    const value = file[name];
    if (typeof value === 'string' && value !== '') return value;
    throw new Error(`${path}: "${name}" must be a non-empty string; the executor writes this file`);
  };
  if (!Number.isInteger(file.attempt)) throw new Error(`${path}: "attempt" must be an integer`);
  return {
    endpointUrl: text('endpointUrl').replace(/\/+$/, ''),
    token: text('token'),
    jobName: text('jobName'),
    attempt: file.attempt!,
    host: text('host'),
    initSocket: text('initSocket'),
    stateDir: text('stateDir'),
    mlRoot: text('mlRoot'),
    agentStateDir: process.env.TRAINYARD_AGENT_STATE ?? join(text('stateDir'), 'agent'),
    isolated: file.isolation !== 'processes',
    sharesMachine: file.isolation !== undefined,
    hostAddresses: file.hostAddresses ?? {},
    egressEnvironment: file.egressEnvironment ?? {},
    runDirectory: dirname(text('initSocket')),
  };
}

/** Programs that init offers to everything in the host. */
export const hostPrograms = (bootstrap: Pick<Bootstrap, 'runDirectory'>) => ({
  remoteShell: join(bootstrap.runDirectory, 'bin', 'trainyard-rsh'),
  python: join(bootstrap.runDirectory, 'bin', 'trainyard-python'),
});
