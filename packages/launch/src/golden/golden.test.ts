import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ResourceConfigFile } from '@trainyard/api';
import { describe, expect, it, test } from 'vitest';
import { scriptArguments } from '../arguments.ts';
import { readCluster } from '../cluster.ts';
import type { EnvironmentContext } from '../environment.ts';
import { masterOf, scriptEnvironment } from '../environment.ts';
import { TCP } from '../fabric.ts';
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
    ResourceConfig: {
      InstanceType?: string;
      InstanceCount?: number;
      InstanceGroups?: { InstanceGroupName: string; InstanceType: string; InstanceCount: number }[];
    };
    HyperParameters: Record<string, string>;
    InputDataConfig?: { ChannelName: string }[];
  };
  launched: Record<string, Launched | null>;
}

const read = <T>(name: string): T => JSON.parse(readFileSync(join(import.meta.dirname, name), 'utf8')) as T;

/** As the captures' README says, five were added for `launched`. */
const USER = { epochs: '3', lr: '0.1', name: '"abc"', flag: 'true', list: '[1, 2]' };

const HOSTS = ['algo-1', 'algo-2'];
const TENSORFLOW = 'sagemaker_tensorflow_container.training:main';
const MXNET = 'sagemaker_mxnet_container.training:main';
const PROGRAM = { sagemaker_program: '"train.py"' };

interface Group {
  name: string;
  instanceType: string;
  hosts: string[];
}

function planOf(
  host: string,
  instanceGroups: readonly Group[],
  hyperParameters: Record<string, string>,
  channels: readonly string[] = ['training'],
): AttemptPlan {
  const hosts = instanceGroups.flatMap((group) => group.hosts);
  const { name: groupName, instanceType } = instanceGroups.find((group) => group.hosts.includes(host))!;
  return {
    planVersion: 1,
    jobName: 'job',
    jobArn: 'arn:aws:sagemaker:us-west-2:123456789012:training-job/job',
    attempt: 1,
    host,
    hosts,
    instanceType,
    groupName,
    instanceGroups: [...instanceGroups],
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
    channels: channels.map((name) => ({
      name,
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
    })),
    outputS3Uri: 's3://b/job/output/',
    outputCompression: 'GZIP',
    checkpoint: null,
    maxRuntimeMs: 86_400_000,
    stopGraceMs: 120_000,
    runtime: { name: 'pytorch', python: '<python>', binDirs: ['/runtime/bin'], preload: true },
    request: {},
  };
}

const homogeneous = (instanceType: string, hosts = HOSTS): Group[] => [
  { name: 'homogeneousCluster', instanceType, hosts },
];

/** The hosts that AWS gives a request: numbered through the groups in their order. */
function groupsOf({ ResourceConfig: resources }: Golden['request']): Group[] {
  if (!resources.InstanceGroups) {
    const count = resources.InstanceCount!;
    return homogeneous(resources.InstanceType!, hostNames(1, count));
  }
  let next = 1;
  return resources.InstanceGroups.map((group) => {
    const hosts = hostNames(next, group.InstanceCount);
    next += group.InstanceCount;
    return { name: group.InstanceGroupName, instanceType: group.InstanceType, hosts };
  });
}

const hostNames = (first: number, count: number): string[] =>
  Array.from({ length: count }, (_, index) => `algo-${first + index}`);

/** The captures simulated AWS's hardware: eight GPUs or 32 Neuron cores, EFA on the instance types that have it. */
function hardwareOf(instanceType: string): Hardware {
  const isGpu = /^ml\.[pg]/.test(instanceType);
  const isNeuron = instanceType.startsWith('ml.trn');
  return {
    cpuCount: 2,
    gpuCount: isGpu ? (instanceType === 'ml.g5.12xlarge' ? 4 : 8) : 0,
    neuronCoreCount: isNeuron ? 32 : 0,
    fabric: hasEfa(instanceType) ? { ...TCP, kind: 'efa', hasRdma: true } : TCP,
  };
}

const hasEfa = (instanceType: string): boolean =>
  ['ml.p4d.24xlarge', 'ml.trn1.32xlarge'].includes(instanceType);

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
    collectiveSecret: 'secret',
    coresPerRank: null,
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
    reach: (name) => name,
    ipOf: (name) => `<ip of ${name}>`,
    portOf: (_host, port) => port,
    hasLegacyKeras: false,
    compilesForNeuron: false,
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
    const plan = planOf(host, homogeneous('ml.p4d.24xlarge'), config['hyperparameters.json']);
    expect(resourceConfig(plan)).toEqual(config['resourceconfig.json']);
    const { launch, environment } = launchOf(plan);
    expectVariables({ ...environment, ...launch.env }, env);
    expect(launch.command).toBe(launched_argv.join(' '));
    expect(launch.cwd).toBe(cwd);
  });
});

/** Every capture of SDK v2 in which the toolkit was run; v3's drivers run in the host and start their ranks themselves. */
const CAPTURES = readdirSync(import.meta.dirname).filter((name) => /^v2-.*\.json$/.test(name));

test('all 17 captures of what the toolkit launched are here', () => {
  expect(CAPTURES).toHaveLength(17);
});

describe.each(CAPTURES)('%s', (file) => {
  const golden = read<Golden>(file);
  const groups = groupsOf(golden.request);
  const channels = golden.request.InputDataConfig?.map(({ ChannelName }) => ChannelName);
  const planFor = (host: string): AttemptPlan =>
    planOf(host, groups, { ...USER, ...golden.request.HyperParameters }, channels);

  it.each(Object.keys(golden.launched))('on %s the command and the environment equal AWS’s', (host) => {
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
    const isPlain = words[0] === 'train.py';
    const command = isPlain ? `<python> ${words.join(' ')}` : words.join(' ');
    expect(comparable(launch.command, golden)).toEqual(comparable(command, golden));
    // The script's arguments reach it whole: "[1, 2]" is one.
    const script = launched.launched_argv.slice(launched.launched_argv.indexOf('train.py'));
    expect(launch.argv.slice(-script.length)).toEqual(script);
    if (launch.launcher === 'torchrun') expect(launch.argv.slice(3)).toEqual(launched.launched_argv.slice(1));
    for (const name of Object.keys(launch.env)) expect(LAUNCHER_VARIABLES).toHaveProperty(name);
  });
});

describe('toolkit-ps-config.json', () => {
  type Configs = Record<string, Record<string, Record<string, unknown>>>;
  const { sources: _, ...cases } = read<Record<string, Configs>>('toolkit-ps-config.json');
  const launch = (
    host: string,
    count: number,
    module: AttemptPlan['frameworkModule'],
    flag: string,
  ): Launch => {
    const plan = planOf(host, homogeneous('ml.m5.large', hostNames(1, count)), {
      [flag]: 'true',
      ...PROGRAM,
    });
    return launchOf({ ...plan, frameworkModule: module }).launch;
  };

  describe.each(Object.entries(cases))('%s', (name, configs) => {
    const count = Number.parseInt(name, 10);

    it.each(hostNames(1, count))('TensorFlow’s TF_CONFIG on %s', (host) => {
      const servers = launch(host, count, TENSORFLOW, 'sagemaker_parameter_server_enabled');
      const golden = configs['tensorflow_parameter_server']![host] as {
        training_process_TF_CONFIG: unknown;
        ps_process: unknown;
      };
      const taskOf = (config: string): unknown => (JSON.parse(config) as { task: unknown }).task;
      // On one host the toolkit never calls the function that was captured: it starts the script alone.
      if (count === 1) expect(servers.env).not.toHaveProperty('TF_CONFIG');
      else expect(JSON.parse(servers.env.TF_CONFIG!)).toEqual(golden.training_process_TF_CONFIG);
      expect(servers.companions?.[0] ? taskOf(servers.companions[0].env.TF_CONFIG!) : null).toEqual(
        golden.ps_process,
      );
      const mirrored = launch(host, count, TENSORFLOW, 'sagemaker_multi_worker_mirrored_strategy_enabled');
      expect(JSON.parse(mirrored.env.TF_CONFIG!)).toEqual(configs['tensorflow_multi_worker_mirrored']![host]);
    });

    it.each(hostNames(1, count))('MXNet’s processes and their variables on %s', (host) => {
      const { companions, env } = launch(host, count, MXNET, 'sagemaker_parameter_server_enabled');
      const golden = configs['mxnet_parameter_server']![host] as {
        processes: string[];
        env: Record<string, Record<string, string>>;
      };
      expect([...companions!.map(({ id }) => id), 'worker']).toEqual(golden.processes);
      for (const companion of companions!)
        expect({ ...env, ...companion.env }).toMatchObject(golden.env[companion.id]!);
      expect(env).toMatchObject(golden.env['worker']!);
    });
  });
});

/**
 * Leaves out what differs on purpose: the shim for gethostname (our hosts have names of their own), keys of the
 * capturing machine, and the order in which variables are named.
 */
function comparable(command: string, golden: Golden): unknown {
  const exported = [...command.matchAll(/ -x (\S+)/g)].map((match) => match[1]!);
  // AWS asks for EFA under SMDDP whatever the host has; without such a device libfabric would find no provider.
  const isEfa = groupsOf(golden.request).some(({ instanceType }) => hasEfa(instanceType));
  const named = exported.filter(
    (name) => !/^(LD_PRELOAD=|AWS_)/.test(name) && (isEfa || name !== 'FI_PROVIDER=efa'),
  );
  return { words: command.replace(/ -x \S+/g, ''), exported: named.toSorted() };
}
