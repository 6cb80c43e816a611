import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, open } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { IsolationReport } from '../executor.ts';
import { ExecutorError } from './executor-error.ts';
import { removeTree } from './gang-files.ts';
import type { Rung } from './gang-rendering.ts';

const LADDER: readonly Rung[] = ['namespaces', 'user-namespaces', 'processes'];

/** Starts one host on a rung in a directory and says why it did not start, null when it did. */
export type TryRung = (rung: Rung, directory: string) => Promise<string | null>;

/**
 * Finds the highest rung that this machine gives, by starting a host on it: sysctls and kernel versions only hint.
 *
 * @param wanted a rung to use whatever else works, or `auto`
 * @throws ExecutorError when `wanted` names a rung that does not work here
 */
export async function probeIsolation(
  wanted: Rung | 'auto',
  runDir: string,
  tryRung: TryRung,
): Promise<IsolationReport> {
  const probes: IsolationReport['probes'] = [];
  for (const rung of LADDER) {
    if (wanted !== 'auto' && rung !== wanted) {
      probes.push({ rung, available: false, detail: `not tried: TRAINYARD_ISOLATION is ${wanted}` });
      continue;
    }
    const problem = await problemWith(rung, runDir, tryRung);
    probes.push({ rung, available: problem === null, detail: problem ?? DETAILS[rung] });
    if (problem === null) return { level: rung, probes };
  }
  const last = probes.findLast(({ detail }) => !detail.startsWith('not tried'));
  throw new ExecutorError('probe', `no host can be started here on the rung ${last?.rung}: ${last?.detail}`);
}

const DETAILS: Record<Rung, string> = {
  namespaces: 'a host with its own mounts, network, processes and names was started as root',
  'user-namespaces':
    'a host with its own mounts, network, processes and names was started in a user namespace',
  processes:
    'a host is a group of plain processes: paths come by SM_* variables, hosts share network and /tmp',
};

async function problemWith(rung: Rung, runDir: string, tryRung: TryRung): Promise<string | null> {
  if (rung !== 'processes' && process.platform !== 'linux') return `${process.platform} has no namespaces`;
  if (rung === 'namespaces' && process.getuid?.() !== 0)
    return `needs root; the service runs as uid ${process.getuid?.()}`;
  if (rung === 'user-namespaces' && process.getuid?.() === 0) return 'root uses namespaces directly';
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  const directory = await mkdtemp(join(runDir, 'probe-'));
  try {
    return await tryRung(rung, directory);
  } finally {
    await removeTree(directory);
  }
}

/**
 * The real interpreter behind a name such as `python3`: shims of version managers cost 100 ms per start and may lie in a home
 * that jobs do not see.
 *
 * @throws ExecutorError when there is none or it is older than 3.10
 */
export async function resolvePython(name: string): Promise<string> {
  const program = 'import os, sys; print(os.path.realpath(sys.executable), *sys.version_info[:2])';
  let answer: string;
  try {
    ({ stdout: answer } = await promisify(execFile)(name, ['-I', '-S', '-E', '-c', program]));
  } catch (error) {
    throw new ExecutorError(
      'python',
      `${name} does not run (${(error as Error).message.trim()}); set TRAINYARD_INIT_PYTHON to a Python of at least 3.10`,
      { cause: error },
    );
  }
  const [, path, major, minor] = /^(.*) (\d+) (\d+)\s*$/.exec(answer) ?? [];
  if (path === undefined || Number(major) !== 3 || Number(minor) < 10) {
    throw new ExecutorError(
      'python',
      `${name} is Python ${major}.${minor}; hosts need at least 3.10. Set TRAINYARD_INIT_PYTHON`,
    );
  }
  return path;
}

/** The last lines of a log, for an error that would otherwise say only that something ended. */
export async function tailOf(path: string, bytes = 2000): Promise<string> {
  const file = await open(path, 'r').catch(() => null);
  if (file === null) return '';
  try {
    const { size } = await file.stat();
    const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, Math.max(0, size - bytes));
    return buffer.toString('utf8', 0, bytesRead).trim();
  } finally {
    await file.close();
  }
}

/** @throws ExecutorError for a value that is no rung */
export function isolationOf(value: string | undefined): Rung | 'auto' {
  if (value === undefined || value === '' || value === 'auto') return 'auto';
  const rung = LADDER.find((name) => name === value);
  if (rung !== undefined) return rung;
  throw new ExecutorError(
    'probe',
    `TRAINYARD_ISOLATION is ${JSON.stringify(value)}; give ${LADDER.join(', ')} or auto`,
  );
}
