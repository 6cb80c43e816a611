import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT, type TestService } from './service.ts';

const run = promisify(execFile);

/** Pinned, so that a failure is ours. `script/test` makes the same environment with the newest of both. */
const REQUIREMENTS = ['awscli==1.45.11', 'boto3==1.43.11'];
const DIRECTORY = join(ROOT, '.trainyard/clients/aws');
const STAMP = join(DIRECTORY, '.complete');

let made: Promise<string> | undefined;

/**
 * The `bin` directory of a virtual environment with the unmodified AWS CLI and boto3, made on first use (git ignores
 * it) and then kept. A half-made environment is made again.
 *
 * @throws Error with uv's output, such as when the package index cannot be reached
 */
export function clientBin(): Promise<string> {
  made ??= makeEnvironment();
  return made;
}

async function makeEnvironment(): Promise<string> {
  const bin = join(DIRECTORY, 'bin');
  if (existsSync(STAMP)) return bin;
  const uv = process.env['TRAINYARD_UV'] ?? join(ROOT, '.trainyard/tools/bin/uv');
  if (!existsSync(uv))
    throw new Error(`uv is needed to install the AWS CLI and is not at ${uv}. Run script/bootstrap.`);
  await rm(DIRECTORY, { recursive: true, force: true });
  await mkdir(join(DIRECTORY, '..'), { recursive: true });
  await run(uv, ['venv', '--quiet', '--python', 'python3', DIRECTORY]);
  await run(uv, ['pip', 'install', '--quiet', '--python', join(bin, 'python'), ...REQUIREMENTS]);
  await writeFile(STAMP, REQUIREMENTS.join(' '));
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

/** Runs one command of the AWS CLI. @throws Error with the fields of {@link Outcome} unless it ends with 0 */
export async function awsCli(
  service: TestService,
  args: readonly string[],
  environment: Record<string, string> = {},
): Promise<Outcome> {
  return succeeded(
    `aws ${args.join(' ')}`,
    await runClient(join(await clientBin(), 'aws'), args, {
      environment: { ...service.environment, AWS_PAGER: '', ...environment },
      home: service.dataDir,
    }),
  );
}

const PRELUDE = `
import json, os, boto3
from botocore.config import Config
from botocore.exceptions import ClientError
def client(name, **options):
    return boto3.client(name, **options)
def answer(value):
    print(json.dumps(value, default=str))
`;

/**
 * Runs a Python program against the service. `client(name, …)` makes a boto3 client; the program ends with
 * `answer(value)`.
 *
 * @returns the value
 */
export async function boto3(service: TestService, program: string, definitions = ''): Promise<unknown> {
  const { stdout } = succeeded(
    program,
    await runClient(join(await clientBin(), 'python'), ['-c', PRELUDE + definitions + program], {
      environment: service.environment,
      home: service.dataDir,
    }),
  );
  return JSON.parse(stdout);
}

function succeeded(what: string, outcome: Outcome): Outcome {
  if (outcome.code === 0) return outcome;
  throw Object.assign(new Error(`${what} ended with ${outcome.code}: ${outcome.stderr}`), outcome);
}
