import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { driverUploads } from './drivers.ts';
import { MPI } from './distributed.ts';
import type { DistributedConfig } from './distributed.ts';
import type { SourceCode } from './trainer-options.ts';

interface Golden {
  request: { HyperParameters: Record<string, string> };
  'sourcecode.json': { entry_script: string | null };
  'distributed.json': object;
  launched: Record<string, Launched>;
}

interface Launched {
  'sm_training.env': string[];
  launched_argv: string[] | null;
  env_added_by_driver: Record<string, string>;
}

const run = promisify(execFile);
const GOLDEN = join(import.meta.dirname, '../golden');
const read = (name: string): Golden =>
  JSON.parse(readFileSync(join(GOLDEN, `${name}.json`), 'utf8')) as Golden;

/** Prints what it was called with. */
const RECORDER = `#!/usr/bin/env python3
import json, os, sys
if sys.argv[1:] == ['--version']:
    print('mpirun (Open MPI) 4.1.7')
else:
    print('LAUNCHED ' + json.dumps({'argv': [os.path.basename(sys.argv[0])] + sys.argv[1:], 'env': dict(os.environ), 'cwd': os.getcwd()}))
    sys.exit(int(os.environ.get('RECORDER_EXIT', '0')))
`;

let directory: string;
let ml: string;
let bin: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'trainyard-drivers-'));
  ml = join(directory, 'opt/ml');
  bin = join(directory, 'bin');
  mkdirSync(bin);
  for (const name of ['torchrun', 'mpirun']) writeFileSync(join(bin, name), RECORDER, { mode: 0o755 });
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function stub(name: string, text: string): void {
  writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
}

/** The instance as the capture had it: 8 GPUs or 32 NeuronCores come from stand-ins of the vendors' programs. */
function prepare(golden: Golden, host: string): Record<string, string> {
  rmSync(ml, { recursive: true, force: true });
  for (const folder of ['input/config', 'input/data/code', 'output'])
    mkdirSync(join(ml, folder), { recursive: true });
  cpSync(join(import.meta.dirname, '../../drivers'), join(ml, 'input/data/sm_drivers'), { recursive: true });
  const variables = variablesOf(golden.launched[host] as Launched);
  const put = (path: string, value: unknown): void =>
    writeFileSync(join(ml, 'input', path), JSON.stringify(value));
  put('config/hyperparameters.json', golden.request.HyperParameters);
  put('config/resourceconfig.json', JSON.parse(variables['SM_RESOURCE_CONFIG'] as string));
  put('config/inputdataconfig.json', JSON.parse(variables['SM_INPUT_DATA_CONFIG'] as string));
  put('data/sm_drivers/sourcecode.json', golden['sourcecode.json']);
  put('data/sm_drivers/distributed.json', golden['distributed.json']);
  writeFileSync(join(ml, 'input/data/code/train.py'), RECORDER);
  stub('nvidia-smi', `for i in $(seq ${variables['SM_NUM_GPUS']}); do echo "GPU $i: x"; done`);
  stub('neuron-ls', `echo '[{"nc_count": ${variables['SM_NUM_NEURONS']}}]'`);
  const trainingEnv = JSON.parse(variables['SM_TRAINING_ENV'] as string) as { job_name: string };
  return { PATH: `${bin}${delimiter}${process.env['PATH']}`, TRAINING_JOB_NAME: trainingEnv.job_name };
}

function variablesOf({ 'sm_training.env': lines }: Launched): Record<string, string> {
  return Object.fromEntries(
    lines.map((line) => /^export (\w+)='(.*)'$/s.exec(line)?.slice(1, 3) as [string, string]),
  );
}

const at = (...path: string[]): string => join(ml, 'input/data/sm_drivers', ...path);

/** Makes the environment as `sm_train.sh` does, and runs a driver in it. */
async function launch(driver: string, env: Record<string, string>): Promise<{ stdout: string }> {
  const script = `python3 ${at('scripts/environment.py')} && . ${join(ml, 'input/sm_training.env')} && cd ${join(ml, 'input/data/code')} && exec python3 ${at('distributed_drivers', driver)}`;
  return await run('/bin/bash', ['-c', script], { env });
}

function launched(stdout: string): { argv: string[]; env: Record<string, string>; cwd: string } {
  const line = stdout.split('\n').find((text) => text.startsWith('LAUNCHED '));
  return JSON.parse(line?.slice('LAUNCHED '.length) ?? 'null') as never;
}

const names = [
  'v3-none',
  'v3-command',
  'v3-torchrun',
  'v3-cpu-torchrun',
  'v3-trn1-torchrun',
  'v3-torchrun-smp',
  'v3-mpi',
];
/** The second host is the one that differs; the first is compared once. */
const hosts = [['v3-none', 'algo-1'], ...names.map((name) => [name, 'algo-2'])] as [string, string][];

test.each(hosts)('the variables of golden/%s.json on %s', async (name, host) => {
  const golden = read(name);
  await run('python3', [at('scripts/environment.py')], { env: prepare(golden, host) });
  const written = readFileSync(join(ml, 'input/sm_training.env'), 'utf8').replaceAll(ml, '/opt/ml');
  const count = cpus().length;
  const here = (line: string): string =>
    line
      .replace(`SM_NUM_CPUS='${count}'`, "SM_NUM_CPUS='2'")
      .replace(`"num_cpus": ${count}`, '"num_cpus": 2');
  expect(written.trimEnd().split('\n').map(here)).toEqual(golden.launched[host]?.['sm_training.env']);
});

/** Where no EFA device is found we set none of its variables; theirs follow a list of instance types. */
const EFA = ['FI_PROVIDER', 'FI_EFA_USE_DEVICE_RDMA', 'RDMAV_FORK_SAFE'];

test.each(hosts.filter(([name]) => name.includes('torchrun')))(
  'the torchrun of golden/%s.json on %s',
  async (name, host) => {
    const golden = read(name);
    const expected = golden.launched[host] as Launched;
    const { argv, env, cwd } = launched((await launch('torchrun_driver.py', prepare(golden, host))).stdout);
    expect(argv).toEqual(expected.launched_argv);
    expect(cwd.replace(ml, '/opt/ml')).toBe('/opt/ml/input/data/code');
    for (const [variable, value] of Object.entries(expected.env_added_by_driver)) {
      expect(env[variable]).toBe(EFA.includes(variable) ? undefined : value);
    }
  },
);

test('the script of golden/v3-none.json', async () => {
  const golden = read('v3-none');
  const { argv } = launched((await launch('basic_script_driver.py', prepare(golden, 'algo-2'))).stdout);
  expect(argv).toEqual(golden.launched['algo-2']?.launched_argv);
});

test('the mpirun of golden/v3-mpi.json, over all ranks', async () => {
  const golden = read('v3-mpi');
  const env = { ...prepare(golden, 'algo-1'), TRAINYARD_INIT_SOCKET: join(directory, 'run/init.sock') };
  mkdirSync(join(directory, 'run/bin'), { recursive: true });
  writeFileSync(join(directory, 'run/bin/trainyard-rsh'), '#!/bin/sh\nexit 0\n', { mode: 0o755 });
  const { argv, env: added } = launched((await launch('mpi_driver.py', env)).stdout);
  const theirs = golden.launched['algo-1']?.launched_argv as string[];
  const total = theirs.map((word, index) => (theirs[index - 1] === '-np' ? '16' : word));
  const noEfa = total.filter(
    (word, index) =>
      !/^(FI_|NCCL_PROTO)/.test(word) && !(word === '-x' && /^(FI_|NCCL_PROTO)/.test(total[index + 1] ?? '')),
  );
  const options = noEfa.slice(0, noEfa.indexOf('<python>'));
  // It names a variable only where there is one, else mpirun warns.
  const present = options.filter(
    (word, index) =>
      word !== 'LD_LIBRARY_PATH' && !(word === '-x' && options[index + 1] === 'LD_LIBRARY_PATH'),
  );
  expect(argv.slice(0, present.length)).toEqual(present);
  expect(argv.slice(argv.indexOf('train.py'))).toEqual(theirs.slice(theirs.indexOf('train.py')));
  expect(added['PRTE_MCA_plm_ssh_agent']).toBe(join(directory, 'run/bin/trainyard-rsh'));
});

test('a launcher that fails leaves its last words as the reason, unless the script wrote one', async () => {
  const golden = read('v3-none');
  const env = prepare(golden, 'algo-1');
  const script = join(ml, 'input/data/code/train.py');
  writeFileSync(script, 'import sys\nsys.exit("disk is on fire")\n');
  await expect(launch('basic_script_driver.py', env)).rejects.toMatchObject({ code: 1 });
  const reason = readFileSync(join(ml, 'output/failure'), 'utf8');
  expect(reason).toMatch(/ended with exit code 1\ndisk is on fire\n$/);
  writeFileSync(join(ml, 'output/failure'), 'mine');
  await expect(launch('basic_script_driver.py', env)).rejects.toMatchObject({ code: 1 });
  expect(readFileSync(join(ml, 'output/failure'), 'utf8')).toBe('mine');
});

/** `sm_train.sh` as it is sent. */
async function trainScript(sourceCode: SourceCode, distributed?: DistributedConfig): Promise<string> {
  const uploads = await driverUploads('s3://b/sm_drivers', sourceCode, distributed);
  const script = uploads.find((upload) => upload.key.endsWith('sm_train.sh'));
  return script?.kind === 'text' ? script.body : '';
}

async function train(sourceCode: SourceCode, env: Record<string, string>): Promise<{ stdout: string }> {
  writeFileSync(at('sm_train.sh'), await trainScript(sourceCode), { mode: 0o755 });
  return await run('/bin/bash', ['-c', `chmod +x ${at('sm_train.sh')} && ${at('sm_train.sh')}`], { env });
}

test('the whole start: environment, code, and a command whose words stay whole', async () => {
  const env = prepare(read('v3-command'), 'algo-1');
  const command = 'echo "in $(basename "$PWD") of $SM_CURRENT_HOST:"';
  const { stdout } = await train({ sourceDir: 'src', command, args: ["it's", 'a b'] }, env);
  expect(stdout).toMatch(/\nin code of algo-1: it's a b\n$/);
});

test('the code may be an archive', async () => {
  const env = prepare(read('v3-none'), 'algo-1');
  const code = join(ml, 'input/data/code');
  await run('tar', ['-czf', join(directory, 'code.tar.gz'), '-C', code, 'train.py']);
  rmSync(join(code, 'train.py'));
  cpSync(join(directory, 'code.tar.gz'), join(code, 'code.tar.gz'));
  const { stdout } = await train({ sourceDir: `${dirname(code)}/code.tar.gz`, entryScript: 'train.py' }, env);
  expect(launched(stdout).argv[0]).toBe('train.py');
});

test('a start that fails says at which step', async () => {
  const env = prepare(read('v3-none'), 'algo-1');
  const broken = { sourceDir: 'src', entryScript: 'train.py', requirements: 'absent.txt' };
  await expect(train(broken, env)).rejects.toMatchObject({ code: 1 });
  expect(readFileSync(join(ml, 'output/failure'), 'utf8')).toBe('The code has no file absent.txt.');
});

test('a driver of the user lies beside the others and is the one that runs', async () => {
  const own = join(directory, 'own');
  mkdirSync(own);
  writeFileSync(join(own, 'my_driver.py'), '');
  const driver = { driverDir: own, driverScript: 'my_driver.py', config: () => ({ shards: 2 }) };
  const uploads = await driverUploads(
    's3://b/sm_drivers',
    { sourceDir: 'src', entryScript: 'train.py' },
    driver,
  );
  const keys = uploads.map(({ key }) => key);
  expect(keys).toContain('sm_drivers/distributed_drivers/my_driver.py');
  expect(keys).toContain('sm_drivers/common/utils.py');
  expect(await trainScript({ sourceDir: 'src', entryScript: 'train.py' }, driver)).toMatch(
    /\nenter_code\nrun_driver my_driver\.py\n$/,
  );
  expect(await trainScript({ entryScript: 'x.py' }, new MPI())).toMatch(/\nrun_driver mpi_driver\.py\n$/);
});
