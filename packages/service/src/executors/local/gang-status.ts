import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ProcessIdentity } from './process-identity.ts';

/** `status.json` of an attempt, written by its gang process: `packages/launch/init/status.py`. */
export interface GangStatus {
  state: 'starting' | 'running' | 'ended' | 'failed';
  error: { step: string; message: string } | null;
  bootId: string | null;
  gang: ProcessIdentity;
  /** PID 1 of the job's namespaces, null without them. When it is gone, so is everything in the job. */
  root: ProcessIdentity | null;
  hosts: Record<string, HostStatus>;
}

export interface HostStatus {
  state: 'starting' | 'running' | 'gone';
  /** The host's init as the machine sees it. */
  process: ProcessIdentity | null;
  exitCode: number | null;
  signal: string | null;
  /** Epoch milliseconds. */
  endedAt: number | null;
}

/** Null when no gang process of this attempt has started yet. */
export async function readGangStatus(directory: string): Promise<GangStatus | null> {
  try {
    return JSON.parse(await readFile(join(directory, 'status.json'), 'utf8')) as GangStatus;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
