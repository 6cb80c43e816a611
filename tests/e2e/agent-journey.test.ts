import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { until } from '../support/until.ts';
import { AgentWorld } from './agent-world.ts';

let world: AgentWorld;
afterEach(() => world.dispose());

test('a script gets its data, arguments and environment, and its files come back as archives', async () => {
  world = await AgentWorld.start({
    hyperParameters: { epochs: '3', lr: '1e-05', note: '"two words; $HOME"', flag: 'true' },
    environment: { MY_OWN: 'value' },
    channels: [
      {
        name: 'train',
        source: {
          kind: 's3',
          dataType: 'S3Prefix',
          uri: 's3://b/data/train',
          distribution: 'FullyReplicated',
        },
        inputMode: 'File',
        contentType: null,
        compression: 'None',
        recordWrapper: 'None',
      },
    ],
  });
  world.objects.set('b/data/train/a.csv', Buffer.from('1,2\n'));
  world.objects.set('b/data/train/deep/b.csv', Buffer.from('3\n'));
  await world.code({
    'train.py': `
import json, os, sys
print(json.dumps(sys.argv))
print(open(os.environ["SM_CHANNEL_TRAIN"] + "/deep/b.csv").read().strip(), os.environ["MY_OWN"], os.getcwd() == os.environ["PYTHONPATH"])
print("warned", file=sys.stderr)
os.makedirs(os.environ["SM_MODEL_DIR"] + "/sub")
open(os.environ["SM_MODEL_DIR"] + "/sub/weights.bin", "w").write("w" * 1000)
open(os.environ["SM_OUTPUT_DATA_DIR"] + "/metrics.json", "w").write("{}")
os.symlink("/etc/passwd", os.environ["SM_MODEL_DIR"] + "/leak")
`,
  });
  const exited = await world.runToExit();
  expect(exited).toMatchObject({
    endedBy: 'script',
    exitCode: 0,
    signal: null,
    failure: null,
    failureFile: null,
  });
  expect(exited.model).toEqual([{ path: 'sub/weights.bin', sizeBytes: 1000 }]);
  expect(exited.output).toEqual([{ path: 'metrics.json', sizeBytes: 2 }]);
  await world.finish();

  const [argv, facts] = world.stdout();
  expect(JSON.parse(argv!)).toEqual([
    'train.py',
    '--epochs',
    '3',
    '--flag',
    'True',
    '--lr',
    '1e-05',
    '--note',
    'two words; $HOME',
  ]);
  expect(facts).toBe('3 value True');
  expect(world.lines).toContainEqual(
    expect.objectContaining({ source: 'stderr', rank: null, message: 'warned' }),
  );
  expect(world.lines.map(({ message }) => message)).toContainEqual(
    expect.stringMatching(/^Downloaded channel train: 2 files, 6 B in \d+\.\d s$/),
  );
  const phases = world.reports.map((report) => (report.kind === 'phase' ? report.phase : report.kind));
  expect(phases).toEqual([
    'registered',
    'downloading',
    'ready',
    'training',
    'exited',
    'uploading',
    'uploaded',
  ]);
  expect(world.agentExit).toBe(0);
  expect(world.initRequests()).toEqual(['list', 'environment', 'spawn main', 'wait main', 'signal *']);

  const archive = join(world.root, 'model.tar.gz');
  writeFileSync(archive, world.objects.get('b/out/job/output/model.tar.gz')!);
  expect(execFileSync('tar', ['-tzf', archive], { encoding: 'utf8' })).toBe('sub/weights.bin\n');
  expect(execFileSync('tar', ['-xzOf', archive], { encoding: 'utf8' })).toBe('w'.repeat(1000));
  expect(world.objects.has('b/out/job/output/output.tar.gz')).toBe(true);
});

test('an agent killed again and again loses no line, doubles none and does not disturb the script', async () => {
  world = await AgentWorld.start();
  const enough = join(world.root, 'enough');
  await world.code({
    'train.py': `
import os, time
number = 0
while not os.path.exists("${enough}"):
    for _ in range(20):
        print("line", number, "x" * (number % 300), flush=True)
        number += 1
    time.sleep(0.005)
print("last, without an end", end="", flush=True)
`,
  });
  world.startAgent();
  await world.phase('ready');
  world.command({ kind: 'start' });
  await world.line('line 10');
  const pid = world.mainPid();
  for (let round = 0; round < 4; round += 1) {
    await world.killAgent();
    expect(world.isRunning(pid)).toBe(true);
    const before = world.lines.length;
    world.startAgent();
    await until('more lines', () => world.lines.length > before + 50, { show: () => world.agentOutput });
  }
  writeFileSync(enough, '');
  await world.finish();
  const numbers = world.stdout().filter((line) => line.startsWith('line '));
  expect(numbers.length).toBeGreaterThan(200);
  expect(numbers).toEqual(numbers.map((_, number) => `line ${number} ${'x'.repeat(number % 300)}`));
  expect(world.stdout().at(-1)).toBe('last, without an end');
  expect(world.reports.map(({ seq }) => seq)).toEqual(world.reports.map((_, index) => index));
  expect(world.registrations.filter(({ resumed }) => resumed).length).toBeGreaterThan(0);
});

test('a stop gives the script SIGTERM, time to save, and keeps its model', async () => {
  world = await AgentWorld.start();
  await world.code({
    'train.py': `
import os, signal, sys, time
def save(*_):
    print("saving", flush=True)
    time.sleep(0.3)
    open(os.environ["SM_MODEL_DIR"] + "/last", "w").write("x")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("running", flush=True)
time.sleep(600)
`,
  });
  world.startAgent();
  await world.phase('ready');
  world.command({ kind: 'start' });
  await world.line('running');
  world.command({ kind: 'stop', reason: 'user', graceMs: 30_000 });
  const exited = await world.report('exited');
  expect(exited).toMatchObject({ endedBy: 'stop', exitCode: 0, model: [{ path: 'last', sizeBytes: 1 }] });
  await world.finish();
  expect(world.stdout()).toEqual(['running', 'saving']);
});

test('a script that ignores SIGTERM is killed when its time is over', async () => {
  world = await AgentWorld.start();
  await world.code({
    'train.py':
      'import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint("running", flush=True)\ntime.sleep(600)\n',
  });
  world.startAgent();
  await world.phase('ready');
  world.command({ kind: 'start' });
  await world.line('running');
  world.command({ kind: 'stop', reason: 'user', graceMs: 300 });
  expect(await world.report('exited')).toMatchObject({ endedBy: 'stop', exitCode: null, signal: 'SIGKILL' });
});

test('MaxRuntime ends the script while the service is away, and the report waits for it', async () => {
  // Long enough for the script to be seen before its time is over, also where a machine stands still for seconds.
  world = await AgentWorld.start({ maxRuntimeMs: 6000, stopGraceMs: 5000 });
  await world.code({ 'train.py': 'import time\nprint("running", flush=True)\ntime.sleep(600)\n' });
  world.startAgent();
  await world.phase('ready');
  world.command({ kind: 'start' });
  await world.line('running');
  world.isAway = true;
  const pid = world.mainPid();
  await until('the script to end', () => !world.isRunning(pid));
  expect(world.reports.some(({ kind }) => kind === 'exited')).toBe(false);
  world.isAway = false;
  expect(await world.report('exited')).toMatchObject({ endedBy: 'max_runtime', signal: 'SIGTERM' });
});

test('a stop before the start ends the host without a script', async () => {
  world = await AgentWorld.start();
  await world.code({ 'train.py': 'print("never")\n' });
  world.startAgent();
  await world.phase('ready');
  world.command({ kind: 'stop', reason: 'user', graceMs: 1000 });
  expect(await world.report('exited')).toMatchObject({
    endedBy: 'stop',
    exitCode: null,
    signal: null,
    model: [],
  });
  await world.end();
  expect(world.stdout()).toEqual([]);
});
