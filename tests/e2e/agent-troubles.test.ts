import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ChannelPlan } from '@trainyard/api';
import { afterEach, describe, expect, test } from 'vitest';
import { until } from '../support/until.ts';
import { AgentWorld, PYTHON, run } from './agent-world.ts';

let world: AgentWorld;
afterEach(() => world.dispose());

const TORCHRUN = {
  sagemaker_torch_distributed_enabled: 'true',
  sagemaker_mpi_num_of_processes_per_host: '3',
};

describe('torchrun', () => {
  test('names the first failing rank although the others die of it, and ends ranks that ignore SIGTERM', async () => {
    world = await AgentWorld.start({ hyperParameters: TORCHRUN });
    await world.code({
      'train.py': `
import os, signal, sys, time
rank = int(os.environ["RANK"])
ready = os.environ["SM_OUTPUT_DIR"] + "/ready-"
print("rank", rank, "of", os.environ["WORLD_SIZE"], flush=True)
def fail():
    raise ValueError("bad batch 17")
if rank == 1:
    while not (os.path.exists(ready + "0") and os.path.exists(ready + "2")):
        time.sleep(0.02)
    fail()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if rank == 0:
    print("Traceback (most recent call last):\\nRuntimeError: [pair.cc:534] Connection closed by peer [127.0.0.1]", file=sys.stderr, flush=True)
open(ready + str(rank), "w").close()
time.sleep(600)
`,
    });
    world.startAgent();
    await world.phase('ready');
    world.command({ kind: 'start' });
    await world.line('bad batch 17');
    // torchrun itself would wait 30 s for ranks that ignore its SIGTERM.
    const exited = await world.report('exited', 20_000);
    expect(exited).toMatchObject({
      endedBy: 'script',
      command: expect.stringMatching(/^torchrun --nnodes 1 --nproc_per_node 3 .*train\.py$/) as string,
      failure: {
        host: 'algo-1',
        rank: 1,
        localRank: 1,
        exitCode: 1,
        signal: null,
        exception: 'ValueError: bad batch 17',
        location: 'train.py:7',
        isConsequence: false,
        sameTraceRanks: [1],
      },
    });
    expect(await world.line('rank 2 of 3')).toMatchObject({ source: 'stdout', rank: 2 });
    expect(await world.line('Rank 1 on algo-1 failed')).toMatchObject({
      source: 'agent',
      message: 'Rank 1 on algo-1 failed at train.py:7: ValueError: bad batch 17 (exit code 1)',
    });
  });

  test('a rank killed by a signal is named with it', async () => {
    world = await AgentWorld.start({ hyperParameters: TORCHRUN });
    await world.code({
      'train.py':
        'import os, time\nif os.environ["RANK"] == "2":\n    os.kill(os.getpid(), 9)\ntime.sleep(600)\n',
    });
    const exited = await world.runToExit();
    expect(exited.failure).toMatchObject({
      rank: 2,
      localRank: 2,
      exitCode: null,
      signal: 'SIGKILL',
      exception: null,
    });
  });
});

const channel = (name: string, uri: string): ChannelPlan => ({
  name,
  source: { kind: 's3', dataType: 'S3Prefix', uri, distribution: 'FullyReplicated' },
  inputMode: 'File',
  contentType: null,
  compression: 'None',
  recordWrapper: 'None',
});

describe('a script of its own', () => {
  test('that raises gives exception, place and failure file', async () => {
    world = await AgentWorld.start();
    await world.code({
      'train.py':
        'import os\nopen(os.environ["SM_OUTPUT_DIR"] + "/failure", "w").write("my reason")\nimport lib.step\n',
      'lib/step.py': 'def go():\n    return {}["loss"]\ngo()\n',
    });
    const exited = await world.runToExit();
    expect(exited).toMatchObject({
      exitCode: 1,
      failureFile: 'my reason',
      failure: { rank: null, exception: "KeyError: 'loss'", location: 'lib/step.py:2' },
    });
  });

  test('as a shell script runs with its arguments whole', async () => {
    world = await AgentWorld.start({
      hyperParameters: { sagemaker_program: '"run.sh"', text: '"a  b; echo no"' },
    });
    await world.code({ 'run.sh': 'for word in "$@"; do echo "<$word>"; done\n' });
    await world.runToExit();
    await world.finish();
    expect(world.stdout()).toEqual(['<--text>', '<a  b; echo no>']);
  });

  test('as ContainerEntrypoint runs as given, without a source archive', async () => {
    world = await AgentWorld.start({
      hyperParameters: { sagemaker_program: 'null', sagemaker_submit_directory: 'null' },
      containerEntrypoint: ['/bin/sh', '-c'],
      containerArguments: ['echo "$TRAINING_JOB_NAME in $SM_CURRENT_HOST"; exit 7'],
    });
    expect(await world.runToExit()).toMatchObject({ exitCode: 7 });
    await world.line('job in algo-1');
  });

  test('under network isolation comes through a channel and gets no credentials', async () => {
    world = await AgentWorld.start({
      networkIsolated: true,
      hyperParameters: { sagemaker_submit_directory: '"/opt/ml/input/data/code/sourcedir.tar.gz"' },
      channels: [channel('code', 's3://b/source/')],
    });
    await world.code({
      'train.py': 'import os\nprint([k for k in os.environ if "KEY" in k or "TOKEN" in k])\n',
    });
    await world.runToExit();
    await world.line('[]');
  });
});

describe('requirements.txt', () => {
  /** A wheel is a zip with a record of itself. */
  const WHEEL = (name: string, version: string, folder: string): string => `
import zipfile
with zipfile.ZipFile("${folder}/${name}-${version}-py3-none-any.whl", "w") as wheel:
    info = "${name}-${version}.dist-info/"
    wheel.writestr("${name}.py", "VERSION = '${version}'\\n")
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: ${name}\\nVersion: ${version}\\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr(info + "RECORD", "")
`;

  test('goes into a layer of the job: what the runtime has stays, a newer version wins, the runtime is untouched', async () => {
    world = await AgentWorld.start();
    const wheels = join(world.root, 'wheels');
    mkdirSync(wheels);
    const make = join(world.root, 'make.py');
    // The runtime has an older filelock; the job's must win without replacing it.
    writeFileSync(make, WHEEL('trainyard_probe', '1.5', wheels) + WHEEL('filelock', '999.0', wheels));
    await run(PYTHON, [make]);
    await world.code({
      'train.py': `
import filelock, numpy, trainyard_probe, sys
print(trainyard_probe.VERSION, filelock.VERSION, numpy.__file__.startswith(sys.prefix))
`,
      'requirements.txt': `--no-index\n--find-links ${wheels}\ntrainyard_probe>=1\nfilelock>=999\nnumpy\n`,
    });
    expect(await world.runToExit()).toMatchObject({ exitCode: 0 });
    await world.finish();
    expect(world.stdout().at(-1)).toBe('1.5 999.0 True');
    await world.line('Installed filelock 999.0, trainyard-probe 1.5 in');
    await run(PYTHON, ['-c', 'import filelock; assert not hasattr(filelock, "VERSION")']);
  });

  test('that cannot be installed ends the job with pip’s words', async () => {
    world = await AgentWorld.start({ networkIsolated: true });
    await world.code({ 'train.py': '', 'requirements.txt': 'no-such-package-here==1.0\n' });
    world.startAgent();
    const failed = await world.report('failed');
    expect(failed.failureClass).toBe('ClientError');
    expect(failed.message).toMatch(
      /^InstallRequirementsError:\nExitCode 1\nErrorMessage "ERROR: .*no-such-package-here==1\.0/s,
    );
    expect(failed.message).toContain('EnableNetworkIsolation');
    await world.end();
    expect(world.agentExit).toBe(0);
  });
});

describe('bad input ends the job before the script', () => {
  const failed = async (): Promise<string> => {
    world.startAgent();
    const { failureClass, message } = await world.report('failed');
    return `${failureClass}: ${message}`;
  };

  test('an entry point that is not in the archive', async () => {
    world = await AgentWorld.start({ hyperParameters: { sagemaker_program: '"trian.py"' } });
    await world.code({ 'train.py': '' });
    expect(await failed()).toBe(
      'ClientError: The entry point trian.py is not in the source folder; it holds train.py. Name a file relative to the root of the source folder as entry point.',
    );
  });

  test('an archive with a link out of its folder', async () => {
    world = await AgentWorld.start();
    await world.code({ 'train.py': '' });
    const folder = join(world.root, 'source');
    await run('ln', ['-s', '/etc/passwd', join(folder, 'link')]);
    await world.code({});
    expect(await failed()).toMatch(
      /ClientError: The archive s3:\/\/b\/source\/sourcedir\.tar\.gz has the entry "\.\/link", which is a symbolic link/,
    );
  });

  test('an archive that is not there', async () => {
    world = await AgentWorld.start();
    expect(await failed()).toMatch(
      /^ClientError: Failed to download the code s3:\/\/b\/source\/sourcedir\.tar\.gz: NoSuchKey/,
    );
  });

  test.each([
    [
      'an empty channel',
      {},
      /no objects found under s3:\/\/b\/data\/\. Please ensure that there is at least one object/,
    ],
    ['a key that climbs out', { 'b/data/../x': 'x' }, /the key "data\/\.\.\/x" has a "\." or "\.\."/],
    [
      'a key that is file and folder',
      { 'b/data/a': 'x', 'b/data/a/b': 'y' },
      /"data\/a" and "data\/a\/b" need a as a file and as a folder/,
    ],
  ])('%s', async (_, objects, message) => {
    world = await AgentWorld.start({ channels: [channel('train', 's3://b/data/')] });
    await world.code({ 'train.py': '' });
    for (const [key, value] of Object.entries(objects)) world.objects.set(key, Buffer.from(value));
    expect(await failed()).toMatch(message);
  });
});

test('checkpoints are restored, saved while the script runs, and removed only where this host put them', async () => {
  world = await AgentWorld.start({ checkpoint: { s3Uri: 's3://b/ckpt', localPath: '/opt/ml/checkpoints' } });
  world.objects.set('b/ckpt/epoch-0/model.bin', Buffer.from('old'));
  const next = join(world.root, 'next');
  await world.code({
    'train.py': `
import os, time
root = "${join(world.root, 'ml/checkpoints')}"
print(open(root + "/epoch-0/model.bin").read(), flush=True)
def wait(name):
    while not os.path.exists("${next}-" + name): time.sleep(0.02)
os.makedirs(root + "/epoch-1")
open(root + "/epoch-1/model.bin", "w").write("one")
open(root + "/shared", "w").write("mine")
wait("delete")
os.remove(root + "/epoch-1/model.bin")
os.remove(root + "/epoch-0/model.bin")
os.remove(root + "/shared")
open(root + "/epoch-2", "w").write("two")
wait("end")
open(root + "/final", "w").write("last moment")
`,
  });
  world.startAgent();
  await world.phase('ready');
  world.command({ kind: 'start' });
  await world.line('old');
  await until(
    'the first checkpoint',
    () => world.objects.has('b/ckpt/epoch-1/model.bin') && world.objects.has('b/ckpt/shared'),
  );
  await world.checkpointsKept('epoch-1/model.bin', 'shared');
  // Another host writes the same key: then it is that host's.
  world.objects.set('b/ckpt/shared', Buffer.from('the other host’s'));
  await world.killAgent();
  world.startAgent();
  writeFileSync(`${next}-delete`, '');
  await until('the deletion', () => !world.objects.has('b/ckpt/epoch-1/model.bin'));
  await until('the second checkpoint', () => world.objects.has('b/ckpt/epoch-2'));
  writeFileSync(`${next}-end`, '');
  await world.finish();
  expect(
    Object.fromEntries(
      [...world.objects]
        .filter(([key]) => key.startsWith('b/ckpt/'))
        .map(([key, value]) => [key, value.toString()]),
    ),
  ).toEqual({
    'b/ckpt/epoch-0/model.bin': 'old',
    'b/ckpt/epoch-2': 'two',
    'b/ckpt/final': 'last moment',
    'b/ckpt/shared': 'the other host’s',
  });
  expect(world.deletedKeys).toEqual(['b/ckpt/epoch-1/model.bin']);
});
