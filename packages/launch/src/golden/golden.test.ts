import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ResourceConfigFile } from '@trainyard/api';
import { describe, expect, it } from 'vitest';
import { scriptArguments } from '../arguments.ts';
import { readCluster } from '../cluster.ts';
import type { EnvironmentContext } from '../environment.ts';
import { masterOf, scriptEnvironment } from '../environment.ts';
import type { Hardware } from '../hardware.ts';
import { chooseLauncher, processesPerHost } from '../launchers/choose.ts';
import type { Launch } from '../launchers/launcher.ts';
import { LAUNCHER_VARIABLES } from '../launchers/launcher.ts';
import { Layout, resourceConfig } from '../layout.ts';
import { readParameters } from '../parameters.ts';
import type { AttemptPlan } from '../plan.ts';

interface Launched {
  launched_argv: string[];
  cwd: string;
  env_added: Record<string, string>;
}

interface Golden {
  request: {
    TrainingJobName: string;
    ResourceConfig: { InstanceType: string };
    HyperParameters: Record<string, string>;
  };
  launched: Record<string, Launched | null>;
}

const read = <T>(name: string): T => JSON.parse(readFileSync(join(import.meta.dirname, name), 'utf8')) as T;

/** As the captures' README says, five were added for `launched`. */
const USER = { epochs: '3', lr: '0.1', name: '"abc"', flag: 'true', list: '[1, 2]' };

const HOSTS = ['algo-1', 'algo-2'];

function planOf(host: string, instanceType: string, hyperParameters: Record<string, string>): AttemptPlan {
  return {
    planVersion: 1,
    jobName: 'job',
    jobArn: 'arn:aws:sagemaker:us-west-2:123456789012:training-job/job',
    attempt: 1,
    host,
    hosts: HOSTS,
    instanceType,
    groupName: 'homogeneousCluster',
    instanceGroups: [{ name: 'homogeneousCluster', instanceType, hosts: HOSTS }],
    networkInterfaceName: 'eth0',
    region: 'us-west-2',
    accountId: '123456789012',
    endpointUrl: 'http://10.77.0.1:9400',
    s3EndpointUrl: 'http://10.77.0.1:9400',
    networkIsolated: false,
    image: 'pytorch-training:2.3.0-gpu-py311',
    containerEntrypoint: null,
    containerArguments: null,
    frameworkModule: 'sagemaker_pytorch_container.training:main',
    hyperParameters,
    environment: {},
    channels: [
      {
        name: 'training',
        source: {
          kind: 's3',
          dataType: 'S3Prefix',
          uri: 's3://my-bucket/train',
          distribution: 'FullyReplicated',
        },
        inputMode: 'File',
        contentType: null,
        compression: 'None',
        recordWrapper: 'None',
      },
    ],
    outputS3Uri: 's3://b/job/output/',
    outputCompression: 'GZIP',
    checkpoint: null,
    maxRuntimeMs: 86_400_000,
    stopGraceMs: 120_000,
    runtime: { name: 'pytorch', python: '<python>', binDirs: ['/runtime/bin'], preload: true },
    request: {},
  };
}

/** The captures simulated AWS's hardware: eight GPUs or 32 Neuron cores, EFA on the instance types that have it. */
function hardwareOf(instanceType: string): Hardware {
  const isGpu = instanceType.startsWith('ml.p');
  const isNeuron = instanceType.startsWith('ml.trn');
  return {
    cpuCount: 2,
    gpuCount: isGpu ? 8 : 0,
    neuronCoreCount: isNeuron ? 32 : 0,
    fabric: ['ml.p4d.24xlarge', 'ml.trn1.32xlarge'].includes(instanceType) ? 'efa' : 'tcp',
  };
}

function contextOf(plan: AttemptPlan): EnvironmentContext {
  const parameters = readParameters(plan);
  const cluster = readCluster(plan, parameters);
  return {
    plan,
    layout: new Layout('/opt/ml'),
    parameters,
    cluster,
    hardware: hardwareOf(plan.instanceType),
    torchVersion: '2.15.0+cu132',
    arguments: scriptArguments(parameters.user),
    master: masterOf(plan, cluster, { isolated: true, hostAddresses: {} }),
    layer: null,
    credentials: { accessKeyId: 'A', secretAccessKey: 'S', sessionToken: 'T', expiresAt: 0 },
    isolated: true,
    egressEnvironment: {},
    initSocket: '/run/trainyard/init.sock',
    home: '/root',
    systemPath: '/usr/bin',
  };
}

function launchOf(plan: AttemptPlan): { launch: Launch; environment: Record<string, string> } {
  const context = contextOf(plan);
  const { parameters, cluster, hardware } = context;
  const environment = scriptEnvironment(context);
  const launch = chooseLauncher(plan, parameters, cluster).plan({
    host: plan.host,
    instanceType: plan.instanceType,
    cluster,
    parameters,
    entry: { kind: 'program', program: parameters.program! },
    arguments: context.arguments,
    processesPerHost: processesPerHost(parameters, hardware, plan.instanceType),
    networkInterface: plan.networkInterfaceName,
    fabric: hardware.fabric,
    master: context.master,
    isolated: true,
    codeDirectory: '/opt/ml/code',
    rankLogDirectory: '/run/trainyard/state/logs/ranks',
    stopGraceMs: plan.stopGraceMs,
    python: '/run/trainyard/bin/trainyard-python',
    interpreter: plan.runtime.python,
    remoteShell: '/run/trainyard/bin/trainyard-rsh',
    mpi: { major: 4, hasMpi4py: true },
    torchMajor: 2,
    containerCommand: null,
    environmentNames: [...Object.keys(environment), 'LD_LIBRARY_PATH'],
  });
  return { launch, environment };
}

/**
 * Variables whose value differs on purpose. PYTHONPATH: AWS lists the interpreter's own path, which it finds by
 * itself; we put only the code directory before it.
 */
const DIFFERS = new Set(['PYTHONPATH']);

function expectVariables(ours: Record<string, string>, golden: Record<string, string>): void {
  for (const [name, value] of Object.entries(golden)) {
    if (!DIFFERS.has(name)) expect(`${name}=${ours[name]}`).toBe(`${name}=${value}`);
  }
  const missing = Object.keys(golden).filter((name) => !(name in ours));
  expect(missing).toEqual([]);
  const extra = Object.keys(ours).filter((name) => name.startsWith('SM_') && !(name in golden));
  expect(extra).toEqual([]);
  expect(ours.PYTHONPATH).toBe('/opt/ml/code');
}

describe('toolkit-env.json', () => {
  interface ToolkitEnv {
    config: { 'resourceconfig.json': ResourceConfigFile; 'hyperparameters.json': Record<string, string> };
    launched_argv: string[];
    cwd: string;
    env: Record<string, string>;
  }
  const golden = read<Record<string, ToolkitEnv>>('toolkit-env.json');

  it.each(HOSTS)('on %s every variable, argument and the resource config equal AWS’s', (host) => {
    const { config, env, launched_argv, cwd } = golden[host]!;
    const plan = planOf(host, 'ml.p4d.24xlarge', config['hyperparameters.json']);
    expect(resourceConfig(plan)).toEqual(config['resourceconfig.json']);
    const { launch, environment } = launchOf(plan);
    expectVariables({ ...environment, ...launch.env }, env);
    expect(launch.command).toBe(launched_argv.join(' '));
    expect(launch.cwd).toBe(cwd);
  });
});

const TORCHRUN = ['torch_distributed', 'smmodelparallel-v2-torch_distributed', 'trn1-torch_distributed'];
const MPI = [
  'mpi',
  'cpu-mpi',
  'pytorchddp',
  'pytorchddp-custom-mpi-options',
  'smdataparallel',
  'smmodelparallel-v1-mpi',
];

describe.each(['none', ...TORCHRUN, ...MPI].map((name) => `v2-pytorch-${name}.json`))('%s', (file) => {
  const golden = read<Golden>(file);
  const type = golden.request.ResourceConfig.InstanceType;
  const planFor = (host: string): AttemptPlan =>
    planOf(host, type, { ...USER, ...golden.request.HyperParameters });

  it.each(HOSTS)('on %s the command and the environment equal AWS’s', (host) => {
    const { launch, environment } = launchOf(planFor(host));
    const launched = golden.launched[host];
    if (!launched?.env_added) {
      // AWS starts nothing here either: the lead host's mpirun does.
      expect(launch.role).toBe('wait');
      return;
    }
    expect(launch.role).toBe('run');
    expectVariables({ ...environment, ...launch.env }, launched.env_added);
    expect(launch.cwd).toBe(launched.cwd);
    const words = launched.launched_argv.map(String);
    // The recorder of plain jobs was the script itself: it saw no interpreter.
    const command = file.includes('none') ? `<python> ${words.join(' ')}` : words.join(' ');
    expect(comparable(launch.command)).toEqual(comparable(command));
    // The script's arguments reach it whole: "[1, 2]" is one.
    const script = launched.launched_argv.slice(launched.launched_argv.indexOf('train.py'));
    expect(launch.argv.slice(-script.length)).toEqual(script);
    if (launch.launcher === 'torchrun') expect(launch.argv.slice(3)).toEqual(launched.launched_argv.slice(1));
    for (const name of Object.keys(launch.env)) expect(LAUNCHER_VARIABLES).toHaveProperty(name);
  });
});

/**
 * Leaves out what differs on purpose: the shim for gethostname (our hosts have names of their own), keys of the
 * capturing machine, and the order in which variables are named.
 */
function comparable(command: string): unknown {
  const exported = [...command.matchAll(/ -x (\S+)/g)].map((match) => match[1]!);
  const named = exported.filter((name) => !/^(LD_PRELOAD=|AWS_)/.test(name));
  return { words: command.replace(/ -x \S+/g, ''), exported: named.toSorted() };
}
