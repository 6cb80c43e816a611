import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT, RUNTIME_PYTHON, type TestService } from './service.ts';

const run = promisify(execFile);

/** `script/test` installs the clients here; without it, the runtime's Python and the `aws` on PATH serve. */
const CLIENTS = join(ROOT, '.trainyard/clients/aws/bin');
const PYTHON = existsSync(join(CLIENTS, 'python')) ? join(CLIENTS, 'python') : RUNTIME_PYTHON;
const AWS = existsSync(join(CLIENTS, 'aws')) ? join(CLIENTS, 'aws') : 'aws';

const PRELUDE = `
import json, os, boto3
from botocore.config import Config
from botocore.exceptions import ClientError
def client(name, **options):
    return boto3.client(name, **options)
def answer(value):
    print(json.dumps(value))
`;

/** Variables of a shell that knows nothing but the service: no profile of the developer is read. */
const environmentOf = (service: TestService): Record<string, string> => ({
  PATH: process.env['PATH'] ?? '',
  HOME: service.dataDir,
  ...service.environment,
});

/**
 * Runs a Python program against the service. `client(name, …)` makes a boto3 client; the program ends with
 * `answer(value)`.
 *
 * @returns the value
 */
export async function boto3(service: TestService, program: string, definitions = ''): Promise<unknown> {
  const { stdout } = await run(PYTHON, ['-c', PRELUDE + definitions + program], {
    env: environmentOf(service),
    maxBuffer: 64 << 20,
  });
  return JSON.parse(stdout);
}

/** Runs one command of the AWS CLI. Rejects with `code` and `stderr` unless it ends with 0. */
export function awsCli(
  service: TestService,
  args: readonly string[],
  environment: Record<string, string> = {},
): Promise<{ stdout: string; stderr: string }> {
  return run(AWS, args, {
    env: { ...environmentOf(service), AWS_PAGER: '', ...environment },
    maxBuffer: 64 << 20,
  });
}
