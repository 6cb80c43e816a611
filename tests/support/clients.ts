import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT } from './service.ts';

const run = promisify(execFile);

/** Unmodified clients from the Python package index, pinned so that a failure is ours. */
const CLIENTS = {
  awscli: ['awscli==1.45.11'],
} as const satisfies Record<string, readonly string[]>;

/**
 * The `bin` directory of a virtual environment with the client, made on first use in `.trainyard/clients` (which
 * git ignores) and then kept. A half-made environment is made again.
 *
 * @throws Error with uv's output, such as when the package index cannot be reached
 */
export async function clientBin(name: keyof typeof CLIENTS): Promise<string> {
  const directory = join(ROOT, '.trainyard/clients', name);
  const stamp = join(directory, 'trainyard-requirements');
  const requirements = CLIENTS[name];
  const wanted = createHash('sha256').update(requirements.join('\n')).digest('hex');
  const bin = join(directory, 'bin');
  if ((await readFile(stamp, 'utf8').catch(() => '')) === wanted) return bin;
  const uv = process.env['TRAINYARD_UV'] ?? join(ROOT, '.trainyard/tools/bin/uv');
  if (!existsSync(uv))
    throw new Error(`uv is needed to install ${name} and is not at ${uv}. Run script/bootstrap.`);
  await rm(directory, { recursive: true, force: true });
  await mkdir(join(directory, '..'), { recursive: true });
  await run(uv, ['venv', '--quiet', '--python', 'python3', directory]);
  await run(uv, ['pip', 'install', '--quiet', '--python', join(bin, 'python'), ...requirements]);
  await writeFile(stamp, wanted);
  return bin;
}

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a client to its end with nothing of the developer's AWS set-up; does not throw when it fails. */
export function runClient(
  command: string,
  args: readonly string[],
  options: {
    environment: Readonly<Record<string, string>>;
    home: string;
    input?: string;
    timeoutMs?: number;
  },
): Promise<Outcome> {
  const { environment, home, input = '', timeoutMs = 120_000 } = options;
  const env = { PATH: process.env['PATH'] ?? '', LANG: 'C.UTF-8', HOME: home, ...environment };
  return new Promise((resolve) => {
    const child = execFile(
      command,
      [...args],
      { env, cwd: home, timeout: timeoutMs, maxBuffer: 64 << 20 },
      (error, stdout, stderr) => {
        resolve({
          code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1,
          stdout,
          stderr,
        });
      },
    );
    child.stdin?.end(input);
  });
}
