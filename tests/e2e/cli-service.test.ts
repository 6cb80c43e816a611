import { type ChildProcess, spawn } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clientBin } from '../support/clients.ts';
import { endProcessesOf, processesOf, ROOT } from '../support/service.ts';
import { until } from '../support/until.ts';

const TRAINYARD = join(ROOT, 'bin/trainyard');

/** What a person could try: count lines, read a channel, fail, or wait for a file before the end. */
const SCRIPT = `
import argparse, os, sys, time
parser = argparse.ArgumentParser()
parser.add_argument('--lines', type=int, default=2)
parser.add_argument('--wait-for', default='')
parser.add_argument('--exit', type=int, default=0)
arguments = parser.parse_args()
for number in range(arguments.lines):
    print(f'line {number} loss={1 / (number + 1):.3f}', flush=True)
train = os.environ.get('SM_CHANNEL_TRAIN')
if train:
    print('channel holds', sorted(os.listdir(train)), open(os.path.join(train, 'a.csv')).read().strip(), flush=True)
while arguments.wait_for and not os.path.exists(os.path.join(train, arguments.wait_for)):
    time.sleep(0.02)
if arguments.exit:
    raise ValueError('asked to fail')
with open(os.path.join(os.environ['SM_MODEL_DIR'], 'model.txt'), 'w') as model:
    model.write('trained')
print('done', flush=True)
`;

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

interface Running {
  child: ChildProcess;
  seen: () => string;
  ended: Promise<Ended>;
}

let home: string;
let data: string;
let script: string;
let input: string;
const started: ChildProcess[] = [];

beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), 'trainyard-cli-'));
  data = join(home, 'data');
  script = join(home, 'train.py');
  input = join(home, 'input');
  mkdirSync(input);
  writeFileSync(script, SCRIPT);
  writeFileSync(join(input, 'a.csv'), '1,2\n');
});
afterAll(async () => {
  for (const child of started) child.kill('SIGKILL');
  await endProcessesOf(home);
  rmSync(home, { recursive: true, force: true });
});

/** A command line of a user whose shell knows nothing of AWS and Trainyard. */
function start(command: string, args: readonly string[], environment: Record<string, string> = {}): Running {
  const child = spawn(command, args, {
    cwd: home,
    env: { PATH: process.env['PATH'] ?? '', HOME: home, LANG: 'C.UTF-8', ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  started.push(child);
  const text = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream]!.setEncoding('utf8').on('data', (chunk: string) => {
      text[stream] += chunk;
    });
  }
  const ended = new Promise<Ended>((resolve) => child.once('close', (code) => resolve({ code, ...text })));
  return { child, seen: () => text.stdout + text.stderr, ended };
}

const trainyard = (...args: string[]): Promise<Ended> => start(TRAINYARD, args).ended;

/** Ended well. @returns standard output */
async function ok(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await trainyard(...args);
  if (code !== 0) throw new Error(`trainyard ${args.join(' ')} ended with ${code}: ${stdout}${stderr}`);
  return stdout;
}

const jsonLines = (text: string): Record<string, any>[] =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

const here = (): string[] => ['--data', data];
const read = (pid: number, file: 'cmdline' | 'stat'): string => {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1');
  } catch {
    return '';
  }
};
const services = (directory: string): number[] => {
  const found = processesOf(directory).filter((pid) =>
    read(pid, 'cmdline').includes('trainyard-service.mjs'),
  );
  // What a service has just forked has its command line until it becomes another program.
  const parentOf = (pid: number): number => Number(/^.*\) \S (\d+)/s.exec(read(pid, 'stat'))?.[1]);
  return found.filter((pid) => !found.includes(parentOf(pid)));
};

describe('without a service', () => {
  it('two commands at once start one, that both use', async () => {
    const both = await Promise.all([ok('jobs', 'list', ...here()), ok('jobs', 'list', ...here())]);
    expect(both).toEqual(['No jobs.\n', 'No jobs.\n']);
    expect(services(data)).toHaveLength(1);
  });

  it('train reads a local folder in place, says each event as JSON, and leaves the model', async () => {
    const [service] = services(data);
    const out = join(home, 'out');
    const text = await ok(
      'train',
      script,
      '--input',
      `train=${input}`,
      '--job-name',
      'cli-json',
      '--output',
      out,
      '-p',
      'lines=3',
      '--json',
      ...here(),
    );
    const events = jsonLines(text);
    expect(events[0]).toEqual({ event: 'created', job: 'cli-json' });
    expect(events.filter(({ event }) => event === 'transition').map(({ status }) => status)).toEqual([
      'Starting',
      'Starting',
      'Downloading',
      'Training',
      'Uploading',
      'Completed',
    ]);
    const messages = events.filter(({ event }) => event === 'log').map(({ message }) => message);
    expect(messages).toEqual(
      expect.arrayContaining(['line 0 loss=1.000', "channel holds ['a.csv'] 1,2", 'done']),
    );
    expect(events.filter(({ event }) => event === 'metric').map(({ value }) => value)).toEqual([
      1, 0.5, 0.333,
    ]);
    expect(events.at(-1)).toEqual({
      event: 'result',
      job: 'cli-json',
      status: 'Completed',
      secondaryStatus: 'Completed',
      failureReason: null,
      modelArtifacts: expect.stringMatching(/^s3:\/\/.*\/cli-json\/output\/model\.tar\.gz$/),
      modelPath: join(out, 'model.tar.gz'),
      exitCode: 0,
    });
    expect(existsSync(join(out, 'model.tar.gz'))).toBe(true);
    const job = JSON.parse(await ok('jobs', 'describe', 'cli-json', '--json', ...here()));
    // Used where it lies: neither copied into the object store nor changed.
    expect(Object.keys(job.InputDataConfig[0].DataSource)).toEqual(['FileSystemDataSource']);
    expect(readdirSync(input)).toEqual(['a.csv']);
    expect(services(data)).toEqual([service]);
  });

  it('the last line of train can be pasted and fetches the model', async () => {
    const text = await ok('train', script, '--job-name', 'cli-plain', ...here());
    const [, fetchCommand] = /^Fetch it with: (.*)$/m.exec(text)!;
    expect(text.trimEnd().split('\n').at(-1)).toBe(`Fetch it with: ${fetchCommand}`);
    const pasted = await start('sh', ['-c', fetchCommand!]).ended;
    expect(pasted).toMatchObject({ code: 0, stderr: '' });
    expect(existsSync(join(home, 'model.tar.gz'))).toBe(true);
  });

  it('a time limit exits 3, a name that is taken 2, and stopping what has ended is no mistake', async () => {
    const limited = ['train', script, '--job-name', 'cli-limit', '--input', `train=${input}`];
    const stopped = await trainyard(...limited, '-p', 'wait-for=never', '--max-run', '1', ...here());
    expect(stopped.code).toBe(3);
    expect(stopped.stdout).toContain('Stopped at its time limit');
    const again = await trainyard(...limited, ...here());
    expect(again.code).toBe(2);
    expect(again.stderr).toMatch(
      /^trainyard: The service refused the request \(ResourceInUse\): .*already exists/,
    );
    expect(again.stderr.trim().split('\n')).toHaveLength(1);
    expect(await ok('jobs', 'stop', 'cli-limit', ...here())).toBe('cli-limit is Stopped.\n');
  });

  it('Ctrl-C leaves the job alone and says how to come back; following again ends with the job', async () => {
    const train = start(TRAINYARD, [
      'train',
      script,
      '--job-name',
      'cli-detached',
      '--input',
      `train=${input}`,
      '-p',
      'wait-for=go-on',
      ...here(),
    ]);
    await until('the job to print', () => train.seen().includes('channel holds'), { show: train.seen });
    train.child.kill('SIGINT');
    const detached = await train.ended;
    expect(detached.code).toBe(130);
    expect(detached.stdout).toContain('Detached; cli-detached goes on.');
    const [, back] = /^Come back with: (.*)$/m.exec(detached.stdout)!;
    const job = JSON.parse(await ok('jobs', 'describe', 'cli-detached', '--json', ...here()));
    expect(job.TrainingJobStatus).toBe('InProgress');
    const follow = start('sh', ['-c', `exec ${back}`]);
    await until('earlier lines to be shown', () => follow.seen().includes('channel holds'), {
      show: follow.seen,
    });
    writeFileSync(join(input, 'go-on'), '');
    const followed = await follow.ended;
    rmSync(join(input, 'go-on'));
    expect(followed.code).toBe(0);
    expect(followed.stdout).toMatch(/done[^]*✔ Completed cli-detached/);
  });

  it('stop ends a job that another command follows, which then says stopped', async () => {
    const train = start(TRAINYARD, [
      'train',
      script,
      '--job-name',
      'cli-stopped',
      '--input',
      `train=${input}`,
      '-p',
      'wait-for=never',
      ...here(),
    ]);
    await until('the job to print', () => train.seen().includes('channel holds'), { show: train.seen });
    expect(await ok('jobs', 'stop', 'cli-stopped', '--wait', ...here())).toBe('cli-stopped is Stopped.\n');
    expect((await train.ended).code).toBe(3);
    const lines = await ok('jobs', 'logs', 'cli-stopped', ...here());
    expect(lines).toContain('line 1 loss=0.500');
    const jobs = jsonLines(
      await ok('jobs', 'list', '--json', '--max', '2', '--status', 'Stopped', ...here()),
    );
    expect(jobs.map(({ TrainingJobName }) => TrainingJobName)).toEqual(['cli-stopped', 'cli-limit']);
    expect(await ok('jobs', 'list', ...here())).toMatch(/^cli-stopped +Stopped /m);
  });

  it('env points the AWS CLI at the service', async () => {
    const aws = `${await clientBin()}/aws`;
    const command = `eval "$('${TRAINYARD}' env --data '${data}')" && '${aws}' sagemaker list-training-jobs --max-items 1`;
    const { code, stdout, stderr } = await start('sh', ['-c', command]).ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(JSON.parse(stdout).TrainingJobSummaries[0].TrainingJobName).toBe('cli-stopped');
  });

  it('serve --stop ends it, and says so when there is none', async () => {
    expect(await ok('serve', '--stop', ...here())).toBe(`The service of ${data} has ended.\n`);
    expect(services(data)).toEqual([]);
    expect(await ok('serve', '--stop', ...here())).toBe(`No service of ${data} was running.\n`);
    // Nothing stays behind: no fork server, no host.
    await until('every process to end', () => processesOf(data).length === 0, {
      show: () => processesOf(data),
    });
  });
});

describe('serve', () => {
  it('stays in the foreground at its port, serves other commands, and refuses a second one', async () => {
    const own = join(home, 'served');
    const free = createServer().listen(0, '127.0.0.1');
    await new Promise((listening) => free.once('listening', listening));
    const { port } = free.address() as AddressInfo;
    await new Promise((closed) => free.close(closed));
    const serve = start(TRAINYARD, ['serve', '--port', String(port), '--data', own]);
    await until('its URL', () => serve.seen().includes(`http://127.0.0.1:${port}`), { show: serve.seen });
    expect(await ok('jobs', 'list', '--data', own)).toBe('No jobs.\n');
    expect(services(own)).toEqual([serve.child.pid]);

    const second = await trainyard('serve', '--data', own);
    expect(second.code).toBe(2);
    expect(second.stderr).toContain(own);
    expect(second.stderr).not.toMatch(/\n\s+at /);
    const taken = await trainyard('serve', '--port', String(port), '--data', join(home, 'other'));
    expect(taken.code).toBe(2);
    expect(taken.stderr).toMatch(new RegExp(`cannot listen: .*${port}.*Give another --port`));
    const wrong = await trainyard('serve', '--port', 'http', '--data', join(home, 'other'));
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain("--port is 'http'; give a whole number from 0 to 65535.");

    serve.child.kill('SIGTERM');
    expect((await serve.ended).code).toBe(0);
    await until('every process to end', () => processesOf(own).length === 0);
  });
});
