import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { endProcessesOf, ROOT, RUNTIME_PYTHON, RUNTIMES } from '../support/service.ts';
import { until } from '../support/until.ts';

const run = promisify(execFile);
const TRAINYARD = join(ROOT, 'bin/trainyard');

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

interface Running {
  child: ChildProcess;
  stdout: () => string;
  ended: Promise<Outcome>;
}

const SCRIPTS = {
  'losses.py': `import os
for step in range(5):
    print(f"step={step} loss={1 / (step + 1):.3f}", flush=True)
open(os.path.join(os.environ["SM_MODEL_DIR"], "weights.txt"), "w").write("42")
`,
  'fails.py': `print("before", flush=True)
raise ValueError("bad batch 7")
`,
  'waits.py': `import time
print("waiting", flush=True)
while True:
    time.sleep(0.1)
`,
};

describe('the command line', () => {
  const root = mkdtempSync(join(tmpdir(), 'trainyard-cli-'));
  const data = join(root, 'data');
  const started = new Set<ChildProcess>();

  const start = (args: readonly string[], environment: Record<string, string> = {}): Running => {
    const inherited = Object.entries(process.env).filter(
      ([name]) => !/^(AWS_(?!CA_BUNDLE)|TRAINYARD_)/.test(name),
    );
    const env = {
      ...Object.fromEntries(inherited),
      TRAINYARD_RUNTIMES: RUNTIMES,
      TRAINYARD_DATA: data,
      ...environment,
    };
    const child = spawn(TRAINYARD, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] });
    started.add(child);
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const ended = new Promise<Outcome>((resolve) =>
      child.once('close', (code) => {
        started.delete(child);
        resolve({ code, stdout, stderr });
      }),
    );
    return { child, stdout: () => stdout, ended };
  };
  const trainyard = (...args: string[]): Promise<Outcome> => start(args).ended;

  beforeAll(() => {
    mkdirSync(data);
    for (const [name, text] of Object.entries(SCRIPTS)) writeFileSync(join(root, name), text);
  });
  afterAll(async () => {
    await trainyard('serve', '--stop');
    for (const child of started) child.kill('SIGKILL');
    await endProcessesOf(root);
    rmSync(root, { recursive: true });
  });

  it('shows phases, labelled lines and the loss, and ends with the path of the model', async () => {
    const { code, stdout } = await trainyard(
      'train',
      'losses.py',
      '--instances',
      '2',
      '--job-name',
      'shown',
      '--output',
      'out',
    );
    expect(stdout).toMatch(/^shown {2}2 instances\n── Starting\n/);
    expect(stdout).toMatch(/^── Training after [\d.]+ s$/m);
    expect(stdout).toMatch(/^algo-1 .*│ step=4 loss=0.200$/m);
    expect(stdout).toMatch(/^algo-2 .*│ step=4 loss=0.200$/m);
    expect(stdout).toMatch(/^[\d.]+ s: Starting [\d.]+ s, .*Training [\d.]+ s, Uploading [\d.]+ s$/m);
    expect(stdout).toMatch(/^loss 1 → 0.2 {2}[▁-█]+$/m);
    expect(stdout.trimEnd().split('\n').slice(-2)).toEqual([
      '✔ Completed shown',
      `Model: ${join(root, 'out/model.tar.gz')}`,
    ]);
    expect(code).toBe(0);
    const { stdout: files } = await run('tar', ['-xzOf', join(root, 'out/model.tar.gz'), 'weights.txt']);
    expect(files).toBe('42');
  });

  it('writes one JSON line per event and the result last with --json', async () => {
    const { code, stdout } = await trainyard('train', 'losses.py', '--json', '--job-name', 'as-json');
    const events = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(events[0]).toEqual({ event: 'created', job: 'as-json' });
    expect(
      events.filter(({ event }) => event === 'metric').map(({ name, value }) => [name, value]),
    ).toContainEqual(['loss', 0.2]);
    expect(events.at(-1)).toMatchObject({
      event: 'result',
      job: 'as-json',
      status: 'Completed',
      failureReason: null,
      modelArtifacts: expect.stringMatching(/^s3:\/\/.*\/as-json\/output\/model.tar.gz$/),
      exitCode: 0,
    });
    expect(code).toBe(0);
  });

  it('exits 1 for a failed job, with its reason and without a stack trace of ours', async () => {
    const { code, stdout, stderr } = await trainyard('train', 'fails.py', '--job-name', 'failed');
    expect(stdout).toContain('✘ Failed failed\nAlgorithmError: ExecuteUserScriptError:');
    expect(stdout).toContain('ValueError: bad batch 7');
    expect(stdout).toContain('jobs logs failed');
    expect(stdout + stderr).not.toMatch(/^\s+at .*\.(ts|mjs):\d+/m);
    expect(code).toBe(1);
  });

  it.each([
    [['train'], "missing required argument 'script'"],
    [['train', 'losses.py', '--instnaces', '2'], 'Did you mean --instances?'],
    [['train', 'losses.py', '--instances', 'two'], '--instances is two; it must be a whole number'],
    [['train', 'losses.py', '-p', 'epochs'], '-p is epochs; write -p NAME=VALUE'],
    [['train', 'nowhere.py'], 'entryPoint is nowhere.py'],
    [['train', 'losses.py', '--input', 'train=nowhere'], 'inputs.train is nowhere'],
    [['train', 'losses.py', '--instances', '900'], 'ResourceLimitExceeded'],
    [['train', 'losses.py', '--image', 'registry.example/jax:2'], '{"pattern":"jax","runtime":"pytorch"}'],
    [['train', 'losses.py', '--job-name', 'not_a_name'], 'jobName is not_a_name'],
    [['jobs', 'describe', 'nobody'], 'There is no job nobody'],
    [['download', 'nobody', 'out'], 'There is no job nobody'],
  ])('exits 2 and says what is wrong: %j', async (args, message) => {
    const { code, stdout, stderr } = await trainyard(...args);
    expect(stderr).toContain(message);
    expect(stdout + stderr).not.toMatch(/^\s+at .*\.(ts|mjs):\d+/m);
    expect(code).toBe(2);
  });

  it('exits 4 when no service answers', async () => {
    const { code, stderr } = await trainyard('jobs', 'list', '--endpoint', 'http://127.0.0.1:9');
    expect(stderr).toContain('http://127.0.0.1:9');
    expect(code).toBe(4);
  });

  it('detaches on Ctrl-C; the job goes on, can be followed again, and exits 3 once it is stopped', async () => {
    const train = start(['train', 'waits.py', '--job-name', 'left-alone']);
    await until('the script to run', () => /│ waiting$/m.test(train.stdout()), { show: train.stdout });
    train.child.kill('SIGINT');
    const { code, stdout } = await train.ended;
    expect(code).toBe(130);
    expect(stdout).toContain('Detached; left-alone goes on.');
    const [, again] = /^Come back with: (.*)$/m.exec(stdout) ?? [];
    expect(again).toMatch(/jobs logs left-alone --follow$/);

    const listed = await trainyard('jobs', 'list', '--status', 'InProgress', '--json');
    expect(JSON.parse(listed.stdout)).toMatchObject({
      TrainingJobName: 'left-alone',
      TrainingJobStatus: 'InProgress',
    });
    expect((await trainyard('jobs', 'logs', 'left-alone')).stdout).toMatch(/│ waiting$/m);
    const follow = start(['jobs', 'logs', 'left-alone', '--follow']);
    await until('the line to be shown again', () => /│ waiting$/m.test(follow.stdout()), {
      show: follow.stdout,
    });
    const stop = await trainyard('jobs', 'stop', 'left-alone', '--wait');
    expect(stop).toMatchObject({ code: 0, stdout: 'left-alone is Stopped.\n' });
    const followed = await follow.ended;
    expect(followed.stdout).toContain('■ Stopped left-alone');
    expect(followed.code).toBe(3);
  });

  it('describes a job as the wire does, and for people', async () => {
    const { stdout: json } = await trainyard('jobs', 'describe', 'shown', '--json');
    expect(JSON.parse(json)).toMatchObject({
      TrainingJobName: 'shown',
      ResourceConfig: { InstanceCount: 2 },
    });
    const { stdout } = await trainyard('jobs', 'describe', 'shown');
    expect(stdout).toMatch(/^Status +Completed \(Completed\)$/m);
    expect(stdout).toMatch(/^Script +losses.py$/m);
    expect(stdout).toMatch(/^Metrics +loss=0.2$/m);
  });

  it('prints the request instead of sending it with --dry-run', async () => {
    const { stdout } = await trainyard(
      'train',
      'losses.py',
      '--dry-run',
      '--job-name',
      'dry',
      '-p',
      'lr=1.0',
      '-p',
      'name=a b',
    );
    const request = JSON.parse(stdout) as { HyperParameters: Record<string, string> };
    expect(request).toMatchObject({ TrainingJobName: 'dry', ResourceConfig: { InstanceCount: 1 } });
    expect(request.HyperParameters).toMatchObject({ lr: '1.0', name: '"a b"' });
    expect((await trainyard('jobs', 'describe', 'dry')).code).toBe(2);
  });

  it('examines the machine', async () => {
    const { code, stdout } = await trainyard('doctor', '--json');
    const report = JSON.parse(stdout) as { isFit: boolean; service: { runtimes: { name: string }[] } };
    expect(report.isFit).toBe(true);
    expect(report.service.runtimes.map(({ name }) => name)).toContain('pytorch');
    expect(code).toBe(0);
  });

  it('takes an environment that has PyTorch as the runtime, and never another for one that was named', async () => {
    const runtimes = join(root, 'runtimes');
    const setUp = (environment: Record<string, string>): Promise<Outcome> =>
      start(['setup', '--runtimes', runtimes], environment).ended;
    const named = await setUp({ TRAINYARD_PYTHON: join(root, 'nowhere/python') });
    expect(named).toMatchObject({ code: 2, stderr: expect.stringContaining('does not run as Python') });
    expect(existsSync(runtimes)).toBe(false);
    const active = await setUp({ VIRTUAL_ENV: join(RUNTIMES, 'pytorch') });
    expect(active).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/pytorch 2\.\d+.*, from VIRTUAL_ENV/),
    });
    const manifest = JSON.parse(readFileSync(join(runtimes, 'pytorch/runtime.json'), 'utf8')) as Record<
      string,
      unknown
    >;
    expect(manifest).toMatchObject({ name: 'pytorch', framework: 'pytorch', python: RUNTIME_PYTHON });
    expect((await setUp({})).stdout).toMatch(/^ {2}runtime pytorch +pytorch 2/);
  });

  it('serves in the foreground, gives AWS clients its address by env, and ends on SIGTERM', async () => {
    const other = join(root, 'other data');
    const serve = start(['serve', '--data', other]);
    const url = await until('the URL', () => /listens on (http:\S+)/.exec(serve.stdout())?.[1], {
      show: serve.stdout,
    });
    const shell = `eval "$("$0" env --data "$1")" && echo "$AWS_ENDPOINT_URL $AWS_REGION $AWS_DEFAULT_REGION" && "$0" jobs list`;
    const { stdout } = await run('sh', ['-c', shell, TRAINYARD, other], {
      env: { ...process.env, TRAINYARD_DATA: data },
    });
    expect(stdout).toBe(`${url} us-west-2 us-west-2\nNo jobs.\n`);
    const second = await trainyard('serve', '--data', other);
    expect(second.stderr).toContain('belongs to a running service');
    expect(second.code).toBe(2);
    serve.child.kill('SIGTERM');
    expect((await serve.ended).code).toBe(0);
    expect((await trainyard('serve', '--stop', '--data', other)).stdout).toContain('No service of');
  });
});
