import { execFile } from 'node:child_process';
import { readFile, readdir } from 'node:fs/promises';

/** A process for good: pids are used again, a pid with its start time is not (within one boot). */
export interface ProcessIdentity {
  pid: number;
  /** Clock ticks after boot; null where the machine has no /proc. */
  startTime: number | null;
}

/** Names this boot of the machine; null where that cannot be told. */
export async function bootId(): Promise<string | null> {
  return readFile('/proc/sys/kernel/random/boot_id', 'utf8').then(
    (text) => text.trim(),
    () => null,
  );
}

/** @returns the identity of a process that runs now; `startTime` is null when it has ended meanwhile */
export async function processIdentity(pid: number): Promise<ProcessIdentity> {
  const fields = await statFields(pid);
  return { pid, startTime: fields === null ? null : Number(fields[19]) };
}

/** True while the very process that was recorded runs; a zombie has ended. */
export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  if (identity.pid <= 0) return false;
  if (process.platform !== 'linux') return exists(identity.pid) && !(await isZombie(identity.pid));
  const fields = await statFields(identity.pid);
  if (fields === null || fields[0] === 'Z' || fields[0] === 'X') return false;
  return identity.startTime === null || Number(fields[19]) === identity.startTime;
}

/** Fields of /proc/PID/stat from the state on; the command before may hold any character. */
async function statFields(pid: number): Promise<string[] | null> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null);
  return text === null ? null : text.slice(text.lastIndexOf(')') + 2).split(' ');
}

/** @returns whether there was such a process of ours to signal. */
export function sendSignal(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

/**
 * Living processes whose environment has `name=value` with a value that starts with `prefix`: init gives every process of a host
 * such a variable, so what lost all its ancestors is still found. Empty where there is no /proc.
 */
export async function processesWithVariable(name: string, prefix: string): Promise<number[]> {
  const marker = `\0${name}=${prefix}`;
  const names = await readdir('/proc').catch(() => []);
  const found = await Promise.all(
    names
      .filter((entry) => /^\d+$/.test(entry))
      .map(async (entry) => {
        // A process of another user, or one that has just ended, cannot be read and is not ours.
        const environment = await readFile(`/proc/${entry}/environ`, 'latin1').catch(() => '');
        return `\0${environment}`.includes(marker) ? Number(entry) : null;
      }),
  );
  return found.filter((pid) => pid !== null);
}

function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function isZombie(pid: number): Promise<boolean> {
  return new Promise((resolve) => {
    execFile('ps', ['-o', 'state=', '-p', String(pid)], (error, stdout) =>
      resolve(error !== null || stdout.trim().startsWith('Z')),
    );
  });
}
