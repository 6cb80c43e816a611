import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { PyTorch, RequestRefused, ServiceUnavailable, Session, TrainingJob } from '@trainyard/sdk';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { ROOT, startService, type TestService } from '../support/service.ts';

const run = promisify(execFile);
const SCRIPT = `
import os
for root, _, files in sorted(os.walk(os.environ['SM_CHANNEL_TRAIN'])):
    for name in sorted(files):
        print('found', os.path.relpath(os.path.join(root, name), os.environ['SM_CHANNEL_TRAIN']))
`;

describe('a service named by AWS settings', () => {
  let service: TestService;
  let directory: string;

  beforeAll(async () => {
    service = await startService();
    directory = mkdtempSync(join(tmpdir(), 'trainyard-remote-'));
    writeFileSync(join(directory, 'list.py'), SCRIPT);
    mkdirSync(join(directory, 'data/deep'), { recursive: true });
    writeFileSync(join(directory, 'data/a.txt'), 'a');
    writeFileSync(join(directory, 'data/deep/b c+ü.txt'), 'b');
  });
  afterEach(() => vi.unstubAllEnvs());
  afterAll(async () => {
    await service?.dispose();
    rmSync(directory, { recursive: true, force: true });
  });

  function useEnvironment(change: Record<string, string | undefined> = {}): void {
    for (const name of ['AWS_PROFILE', 'TRAINYARD_ENDPOINT']) vi.stubEnv(name, undefined);
    for (const [name, value] of Object.entries({ ...service.environment, ...change }))
      vi.stubEnv(name, value);
  }

  it('trains with uploaded folders, its own bucket and its account', async () => {
    useEnvironment();
    const session = new Session();
    const connection = await session.connect();
    expect(connection).toMatchObject({ kind: 'service', region: 'us-west-2', sharesFiles: false });
    const estimator = new PyTorch({ entryPoint: join(directory, 'list.py'), session });
    const job = await estimator.fit({ train: join(directory, 'data') }, { logs: false });
    const { InputDataConfig } = await job.describe();
    const bucket = await connection.defaultBucket();
    expect(bucket).toBe(`sagemaker-us-west-2-${await connection.accountId()}`);
    expect(InputDataConfig?.[0]?.DataSource.S3DataSource?.S3Uri).toBe(
      `s3://${bucket}/${job.name}/input/train/`,
    );
    const lines: string[] = [];
    for await (const event of job.events()) if (event.type === 'log') lines.push(event.message);
    expect(lines.filter((line) => line.startsWith('found '))).toEqual([
      'found a.txt',
      'found deep/b c+ü.txt',
    ]);
  });

  it('takes keys and endpoint from a profile, in a process that has only that', async () => {
    const [config, credentials] = [join(directory, 'config'), join(directory, 'credentials')];
    writeFileSync(config, `[profile yard]\nregion = us-west-2\nendpoint_url = ${service.url}\n`);
    const { accessKeyId, secretAccessKey } = service.credentials;
    writeFileSync(
      credentials,
      `[yard]\naws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secretAccessKey}\n`,
    );
    const code = `
      import { Session } from '@trainyard/sdk';
      const connection = await new Session({ profile: 'yard' }).connect();
      console.log(connection.kind, await connection.accountId());`;
    const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', code], {
      cwd: ROOT,
      env: { PATH: process.env['PATH'], AWS_CONFIG_FILE: config, AWS_SHARED_CREDENTIALS_FILE: credentials },
    });
    expect(stdout).toMatch(/^service \d{12}\n$/);
  });

  it('refuses a wrong secret with its code, and an unknown job', async () => {
    useEnvironment({ AWS_SECRET_ACCESS_KEY: 'wrong' });
    const error = await new TrainingJob('x', new Session()).describe().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(RequestRefused);
    expect(error).toMatchObject({ code: 'InvalidSignatureException', status: 403, actor: 'caller' });
    useEnvironment();
    await expect(new TrainingJob('x', new Session()).describe()).rejects.toMatchObject({
      code: 'ValidationException',
    });
  });

  it('that does not answer is named by its URL', async () => {
    useEnvironment({ AWS_ENDPOINT_URL: 'http://127.0.0.1:1' });
    const error = await new Session().connect().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ServiceUnavailable);
    expect((error as Error).message).toContain('http://127.0.0.1:1');
  });
});
