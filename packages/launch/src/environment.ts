import { join } from 'node:path';
import type { AccessCredentials, PythonValue } from '@trainyard/api';
import { channelVariable, compactPythonJson, hyperParameterVariable } from '@trainyard/api';
import type { Cluster } from './cluster.ts';
import type { Hardware } from './hardware.ts';
import { neuronCoresOf } from './hardware.ts';
import type { Layout } from './layout.ts';
import { inputDataConfig, resourceConfig } from './layout.ts';
import type { JobParameters } from './parameters.ts';
import { moduleName } from './parameters.ts';
import type { AttemptPlan } from './plan.ts';

/** Everything that the script's environment is made from. */
export interface EnvironmentContext {
  plan: AttemptPlan;
  layout: Layout;
  parameters: JobParameters;
  cluster: Cluster;
  hardware: Hardware;
  torchVersion: string | null;
  /** The script's arguments. */
  arguments: string[];
  master: { address: string; port: number };
  /** Site directory and programs of the job's own packages; null without. */
  layer: { site: string; bin: string; preloadable: boolean } | null;
  credentials: AccessCredentials | null;
  /** The same on all hosts of an attempt and on no other. */
  collectiveSecret: string | null;
  isolated: boolean;
  /** A rank's part of the machine that all hosts of the job share; null where a host has its machine to itself. */
  coresPerRank: number | null;
  egressEnvironment: Readonly<Record<string, string>>;
  initSocket: string;
  home: string;
  /** PATH of the host itself. */
  systemPath: string;
}

/**
 * `fixed`: ours whatever the request's Environment says, because the contract depends on it.
 * `default`: the request's Environment wins.
 */
type Strength = 'fixed' | 'default';

export interface Variable {
  /** `SM_HP_*` stands for a family. */
  name: string;
  strength: Strength;
  /** Why it is set; one sentence, shown to users. */
  reason: string;
  /** Undefined: not set in this case. A family gives its members. */
  value: (context: EnvironmentContext) => string | undefined | Record<string, string>;
}

const json = (value: unknown): string => compactPythonJson(value as PythonValue);

const TOOLKIT = 'As AWS’s training toolkit sets it';

const toolkit = (
  name: string,
  what: string,
  value: (context: EnvironmentContext) => string | undefined | Record<string, string>,
): Variable => ({ name, strength: 'fixed', reason: `${TOOLKIT}: ${what}.`, value });

const credential = (name: string, member: 'accessKeyId' | 'secretAccessKey' | 'sessionToken'): Variable => ({
  name,
  strength: 'default',
  reason: 'Credentials of this job only, which expire; absent under network isolation.',
  // The three belong together: a key of the user's own must not meet a session token of ours.
  value: ({ credentials, plan }) =>
    'AWS_ACCESS_KEY_ID' in plan.environment ? undefined : credentials?.[member],
});

const TENSORFLOW = 'sagemaker_tensorflow_container.training:main';
const MXNET = 'sagemaker_mxnet_container.training:main';

const meetsByMaster = ({ plan }: EnvironmentContext): boolean =>
  plan.frameworkModule !== TENSORFLOW && plan.frameworkModule !== MXNET;

/** What `libs/collective` needs to know of the host that it runs in. */
function collective(): Variable[] {
  const variable = (
    name: string,
    reason: string,
    value: (context: EnvironmentContext) => string | undefined,
  ): Variable => ({
    name: `TRAINYARD_COLLECTIVE_${name}`,
    strength: 'default',
    reason,
    value: (context) => (meetsByMaster(context) ? value(context) : undefined),
  });
  return [
    variable(
      'SECRET',
      'The backend smddp refuses processes that are not of this attempt of the job.',
      ({ collectiveSecret }) => collectiveSecret ?? undefined,
    ),
    variable(
      'HOST_ID',
      'Hosts may share one machine but no memory; the name in messages of the backend smddp.',
      ({ plan }) => plan.host,
    ),
    variable(
      'INTERFACE',
      'The backend smddp offers this interface to other hosts.',
      ({ plan }) => plan.networkInterfaceName,
    ),
  ];
}

/** Every variable that the agent sets for the script, besides the launcher's own (`LAUNCHER_VARIABLES`). */
export const VARIABLES: readonly Variable[] = [
  {
    name: 'PATH',
    strength: 'fixed',
    reason: 'The job’s own programs, then the runtime’s, then the request’s PATH or the host’s.',
    value: ({ layer, plan, systemPath }) =>
      [...(layer ? [layer.bin] : []), ...plan.runtime.binDirs, plan.environment.PATH ?? systemPath].join(':'),
  },
  {
    name: 'PYTHONPATH',
    strength: 'fixed',
    reason:
      'The code directory first, as AWS’s toolkit has it; then packages of requirements.txt, then the request’s PYTHONPATH.',
    value: ({ layout, layer, plan }) =>
      [layout.of('code'), ...(layer ? [layer.site] : []), plan.environment.PYTHONPATH ?? '']
        .filter((path) => path !== '')
        .join(':'),
  },
  {
    name: 'HOME',
    strength: 'default',
    reason: 'Private to the host and removed with it, so that jobs do not meet in caches.',
    value: ({ home }) => home,
  },
  {
    name: 'HOSTNAME',
    strength: 'default',
    reason: 'The host’s name in the job.',
    value: ({ plan }) => plan.host,
  },
  {
    name: 'LANG',
    strength: 'default',
    reason: 'Python writes UTF-8, as in AWS’s images.',
    value: () => 'C.UTF-8',
  },
  {
    name: 'PYTHONUNBUFFERED',
    strength: 'default',
    reason: 'Lines reach the log when they are printed, as in AWS’s images.',
    value: () => '1',
  },
  {
    name: 'TRAINING_JOB_NAME',
    strength: 'fixed',
    reason: 'As the platform sets it on AWS.',
    value: ({ plan }) => plan.jobName,
  },
  {
    name: 'TRAINING_JOB_ARN',
    strength: 'fixed',
    reason: 'As the platform sets it on AWS.',
    value: ({ plan }) => plan.jobArn,
  },
  {
    name: 'SAGEMAKER_TRAINING_MODULE',
    strength: 'default',
    reason: 'As AWS’s framework images have it.',
    value: ({ plan }) => plan.frameworkModule ?? undefined,
  },
  ...['AWS_REGION', 'AWS_DEFAULT_REGION'].map(
    (name): Variable => ({
      name,
      strength: 'default',
      reason: 'AWS clients in the script use the job’s region.',
      value: ({ plan }) => plan.region,
    }),
  ),
  {
    name: 'AWS_ENDPOINT_URL',
    strength: 'default',
    reason: 'AWS clients in the script reach the service that runs the job.',
    value: ({ plan }) => plan.endpointUrl,
  },
  {
    name: 'AWS_ENDPOINT_URL_S3',
    strength: 'default',
    reason: 'S3 clients in the script reach the store of this service.',
    value: ({ plan }) => plan.s3EndpointUrl,
  },
  {
    name: 'S3_ENDPOINT_URL',
    strength: 'default',
    reason: 'AWS’s toolkit and older code read this name for the S3 endpoint.',
    value: ({ plan }) => plan.s3EndpointUrl,
  },
  credential('AWS_ACCESS_KEY_ID', 'accessKeyId'),
  credential('AWS_SECRET_ACCESS_KEY', 'secretAccessKey'),
  credential('AWS_SESSION_TOKEN', 'sessionToken'),
  ...['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'http_proxy', 'https_proxy', 'no_proxy'].map(
    (name): Variable => ({
      name,
      strength: 'default',
      reason: 'The way to the internet from the job’s own network; absent under network isolation.',
      value: ({ egressEnvironment }) => egressEnvironment[name],
    }),
  ),
  {
    name: 'TRAINYARD_INIT_SOCKET',
    strength: 'fixed',
    reason: 'The remote shell of mpirun and the fork server are reached through the host’s init.',
    value: ({ initSocket }) => initSocket,
  },
  {
    name: 'TRAINYARD_PYTHON',
    strength: 'fixed',
    reason: 'The interpreter that runs the script.',
    value: ({ plan }) => plan.runtime.python,
  },
  {
    name: 'TRAINYARD_PRELOAD',
    strength: 'default',
    reason:
      '0 where ranks must not be forked from the preloaded server: switched off, or requirements.txt replaced a preloaded package.',
    value: ({ plan, layer }) => (plan.runtime.preload && (layer?.preloadable ?? true) ? undefined : '0'),
  },
  {
    name: 'OMP_NUM_THREADS',
    strength: 'default',
    reason:
      'Hosts of this executor share one machine: each rank gets its part of the cores instead of all of them.',
    value: ({ coresPerRank }) => coresPerRank?.toString(),
  },
  {
    name: 'GLOO_SOCKET_IFNAME',
    strength: 'default',
    reason: 'Hosts that share the machine’s network meet on its loopback interface.',
    value: ({ isolated, plan }) => (isolated ? undefined : plan.networkInterfaceName),
  },
  {
    name: 'MASTER_ADDR',
    strength: 'fixed',
    reason: `${TOOLKIT}: the first host of the distribution. Not with TensorFlow and MXNet, which have their own.`,
    value: (context) => (meetsByMaster(context) ? context.master.address : undefined),
  },
  {
    name: 'MASTER_PORT',
    strength: 'fixed',
    reason: `${TOOLKIT}: 7777; another one only where hosts share the machine’s network.`,
    value: (context) => (meetsByMaster(context) ? String(context.master.port) : undefined),
  },
  {
    name: 'TF_CPP_MIN_LOG_LEVEL',
    strength: 'default',
    reason: 'As AWS’s TensorFlow toolkit sets it: no lines of information from C++.',
    value: ({ plan }) => (plan.frameworkModule === TENSORFLOW ? '1' : undefined),
  },
  {
    name: 'S3_REGION',
    strength: 'default',
    reason: 'As AWS’s TensorFlow toolkit sets it: region of the bucket of model_dir.',
    value: ({ plan }) => (plan.frameworkModule === TENSORFLOW ? plan.region : undefined),
  },
  {
    name: 'S3_USE_HTTPS',
    strength: 'default',
    reason: 'As AWS’s TensorFlow toolkit sets it; 0 where the object store speaks plain HTTP.',
    value: ({ plan }) =>
      plan.frameworkModule !== TENSORFLOW ? undefined : plan.s3EndpointUrl.startsWith('https:') ? '1' : '0',
  },
  {
    name: 'S3_ENDPOINT',
    strength: 'default',
    reason: 'TensorFlow’s file system for s3:// reads the endpoint’s host and port from here.',
    value: ({ plan }) => (plan.frameworkModule === TENSORFLOW ? new URL(plan.s3EndpointUrl).host : undefined),
  },
  {
    name: 'DMLC_INTERFACE',
    strength: 'default',
    reason: 'As the platform sets it on AWS: MXNet’s processes offer the address of this interface.',
    value: ({ plan }) => (plan.frameworkModule === MXNET ? plan.networkInterfaceName : undefined),
  },
  ...collective(),
  {
    name: 'NCCL_SOCKET_IFNAME',
    strength: 'default',
    reason: `${TOOLKIT}: the interface between the hosts.`,
    value: (context) => (meetsByMaster(context) ? context.plan.networkInterfaceName : undefined),
  },
  {
    name: 'NCCL_IB_DISABLE',
    strength: 'default',
    reason: `${TOOLKIT}; not set where InfiniBand devices were found.`,
    value: (context) =>
      meetsByMaster(context) && context.hardware.fabric.kind !== 'infiniband' ? '1' : undefined,
  },
  {
    name: 'NCCL_DEBUG',
    strength: 'default',
    reason: `${TOOLKIT}.`,
    value: (context) => (meetsByMaster(context) ? 'WARN' : undefined),
  },
  {
    name: 'CCOM_SOCKET_IFNAME',
    strength: 'default',
    reason: 'Neuron cores were found: their collectives use this interface between hosts.',
    value: ({ hardware, plan }) => (hardware.neuronCoreCount > 0 ? plan.networkInterfaceName : undefined),
  },
  toolkit('CURRENT_HOST', 'this host’s name', ({ plan }) => plan.host),
  toolkit('SAGEMAKER_JOB_NAME', 'the job’s name', ({ parameters }) => parameters.jobName),
  toolkit('SAGEMAKER_REGION', 'the job’s region', ({ parameters }) => parameters.region),
  toolkit('SM_CHANNELS', 'names of the input channels', ({ plan }) => json(channelNames(plan))),
  toolkit('SM_CHANNEL_*', 'directory of each channel', ({ plan, layout }) =>
    Object.fromEntries(plan.channels.map(({ name }) => [channelVariable(name), layout.channel(name)])),
  ),
  toolkit('SM_CURRENT_HOST', 'this host’s name', ({ plan }) => plan.host),
  toolkit('SM_CURRENT_INSTANCE_GROUP', 'this host’s group', ({ plan }) => plan.groupName),
  toolkit('SM_CURRENT_INSTANCE_GROUP_HOSTS', 'hosts of this host’s group', ({ cluster }) =>
    json(cluster.groupHosts),
  ),
  toolkit('SM_CURRENT_INSTANCE_TYPE', 'this host’s instance type', ({ plan }) => plan.instanceType),
  toolkit('SM_DISTRIBUTION_INSTANCE_GROUPS', 'groups that take part in the distribution', ({ cluster }) =>
    json(cluster.distributionGroups),
  ),
  {
    name: 'SM_DLC_TORCH_VERSION',
    strength: 'fixed',
    reason: 'As AWS’s PyTorch images set it: the version of torch.',
    value: ({ torchVersion }) => torchVersion ?? undefined,
  },
  toolkit(
    'SM_FRAMEWORK_MODULE',
    'the framework’s entry of the toolkit',
    ({ plan }) => plan.frameworkModule ?? '',
  ),
  toolkit('SM_FRAMEWORK_PARAMS', 'hyperparameters that steer launchers', ({ parameters }) =>
    json(parameters.framework),
  ),
  toolkit('SM_HOSTS', 'all hosts of the job', ({ plan }) => json(plan.hosts)),
  toolkit('SM_HPS', 'the user’s hyperparameters', ({ parameters }) => json(parameters.user)),
  toolkit('SM_HP_*', 'each of the user’s hyperparameters', ({ parameters }) =>
    Object.fromEntries(
      Object.entries(parameters.user).map(([key, value]) => [
        hyperParameterVariable(key),
        variableText(value),
      ]),
    ),
  ),
  toolkit('SM_INPUT_CONFIG_DIR', 'directory of the configuration files', ({ layout }) =>
    layout.of('inputConfig'),
  ),
  toolkit('SM_INPUT_DATA_CONFIG', 'inputdataconfig.json', ({ plan }) => json(inputDataConfig(plan))),
  toolkit('SM_INPUT_DIR', 'directory of all input', ({ layout }) => layout.of('input')),
  toolkit('SM_INSTANCE_GROUPS', 'names of the instance groups', ({ plan }) => json(groupNames(plan))),
  toolkit('SM_INSTANCE_GROUPS_DICT', 'the instance groups', ({ plan }) => json(groupsByName(plan))),
  toolkit('SM_IS_HETERO', 'whether there is more than one group', ({ plan }) =>
    json(plan.instanceGroups.length > 1),
  ),
  toolkit('SM_LOG_LEVEL', 'log level of the toolkit', ({ parameters }) => json(parameters.logLevel)),
  toolkit('SM_MODEL_DIR', 'what is left here becomes model.tar.gz', ({ layout }) => layout.of('model')),
  toolkit('SM_MODULE_DIR', 'where the code came from', (context) => moduleDirectory(context)),
  toolkit('SM_MODULE_NAME', 'the entry point as a module', ({ parameters }) =>
    moduleName(parameters.program ?? ''),
  ),
  toolkit(
    'SM_NETWORK_INTERFACE_NAME',
    'the interface between the hosts',
    ({ plan }) => plan.networkInterfaceName,
  ),
  toolkit('SM_NUM_CPUS', 'logical CPUs of this host', ({ hardware }) => json(hardware.cpuCount)),
  toolkit('SM_NUM_GPUS', 'GPUs found on this host', ({ hardware }) => json(hardware.gpuCount)),
  toolkit('SM_NUM_NEURONS', 'Neuron cores found on this host', (context) => json(neuronCores(context))),
  toolkit('SM_OUTPUT_DATA_DIR', 'what is left here becomes output.tar.gz', ({ layout }) =>
    layout.of('outputData'),
  ),
  toolkit('SM_OUTPUT_DIR', 'directory of all output', ({ layout }) => layout.of('output')),
  toolkit('SM_OUTPUT_INTERMEDIATE_DIR', 'output that is uploaded while the job runs', ({ layout }) =>
    layout.of('outputIntermediate'),
  ),
  toolkit('SM_RESOURCE_CONFIG', 'resourceconfig.json', ({ plan }) => json(resourceConfig(plan))),
  toolkit('SM_TRAINING_ENV', 'all of the above in one object', (context) =>
    json(trainingEnvironment(context)),
  ),
  toolkit('SM_USER_ARGS', 'the script’s arguments', (context) => json(context.arguments)),
  toolkit('SM_USER_ENTRY_POINT', 'the script', ({ parameters }) => parameters.program ?? ''),
];

/** The script's full environment, without the launcher's variables. */
export function scriptEnvironment(context: EnvironmentContext): Record<string, string> {
  const of = (strength: Strength): Record<string, string> =>
    Object.assign(
      {},
      ...VARIABLES.filter((variable) => variable.strength === strength).map(({ name, value }) => {
        const found = value(context);
        return typeof found === 'object' ? found : found === undefined ? {} : { [name]: found };
      }),
    ) as Record<string, string>;
  return { ...of('default'), ...context.plan.environment, ...of('fixed') };
}

/** Strings as they are, null as nothing, the rest as compact JSON. */
function variableText(value: PythonValue): string {
  if (value === null) return '';
  return typeof value === 'string' ? value : compactPythonJson(value);
}

const channelNames = (plan: AttemptPlan): string[] => plan.channels.map(({ name }) => name).sort();
const groupNames = (plan: AttemptPlan): string[] => plan.instanceGroups.map(({ name }) => name);
const groupsByName = (plan: AttemptPlan) =>
  Object.fromEntries(resourceConfig(plan).instance_groups.map((group) => [group.instance_group_name, group]));
const moduleDirectory = ({ parameters, layout }: EnvironmentContext): string =>
  parameters.submitDirectory ?? layout.of('code');
const neuronCores = ({ plan, hardware }: EnvironmentContext): number =>
  neuronCoresOf(plan.instanceType, hardware.neuronCoreCount, plan.environment);

/** `SM_TRAINING_ENV`: all properties of the toolkit's Environment object. */
function trainingEnvironment(context: EnvironmentContext) {
  const { plan, layout, parameters, cluster, hardware } = context;
  return {
    additional_framework_parameters: parameters.framework,
    channel_input_dirs: Object.fromEntries(plan.channels.map(({ name }) => [name, layout.channel(name)])),
    current_host: plan.host,
    current_instance_group: plan.groupName,
    current_instance_group_hosts: cluster.groupHosts,
    current_instance_type: plan.instanceType,
    distribution_hosts: cluster.distributionHosts,
    distribution_instance_groups: cluster.distributionGroups,
    framework_module: plan.frameworkModule,
    hosts: plan.hosts,
    hyperparameters: parameters.user,
    input_config_dir: layout.of('inputConfig'),
    input_data_config: inputDataConfig(plan),
    input_dir: layout.of('input'),
    instance_groups: groupNames(plan),
    instance_groups_dict: groupsByName(plan),
    is_hetero: plan.instanceGroups.length > 1,
    is_master: plan.host === cluster.master,
    is_modelparallel_enabled: null,
    is_smddpmprun_installed: false,
    is_smddprun_installed: false,
    job_name: parameters.jobName,
    log_level: parameters.logLevel,
    master_hostname: cluster.master,
    model_dir: layout.of('model'),
    module_dir: moduleDirectory(context),
    module_name: parameters.program === null ? null : moduleName(parameters.program),
    network_interface_name: plan.networkInterfaceName,
    num_cpus: hardware.cpuCount,
    num_gpus: hardware.gpuCount,
    num_neurons: neuronCores(context),
    output_data_dir: layout.of('outputData'),
    output_dir: layout.of('output'),
    output_intermediate_dir: layout.of('outputIntermediate'),
    resource_config: resourceConfig(plan),
    topology: [],
    user_entry_point: parameters.program,
  };
}

const AWS_MASTER_PORT = 7777;
const SHARED_PORTS = { first: 20_000, count: 10_000 };

/**
 * Where the ranks of the distribution meet. With a network of its own a job uses AWS's port; hosts that share the
 * machine's network use one derived from job and attempt, so that jobs beside each other do not clash.
 */
export function masterOf(
  plan: Pick<AttemptPlan, 'jobName' | 'attempt'>,
  cluster: Pick<Cluster, 'master'>,
  host: { isolated: boolean; hostAddresses: Readonly<Record<string, string>> },
): { address: string; port: number } {
  if (host.isolated) return { address: cluster.master, port: AWS_MASTER_PORT };
  return { address: host.hostAddresses[cluster.master] ?? '127.0.0.1', port: sharedPort(plan) };
}

/** The first of the job's own ports where hosts share the machine's network. */
function sharedPort({ jobName, attempt }: Pick<AttemptPlan, 'jobName' | 'attempt'>): number {
  const hash = Array.from(`${jobName}/${attempt}`).reduce(
    (sum, char) => (sum * 31 + char.charCodeAt(0)) >>> 0,
    7,
  );
  return SHARED_PORTS.first + (hash % SHARED_PORTS.count);
}

const AWS_PORTS = [2222, 2223, 8000, 8890];

/**
 * The port of a host that stands for one of AWS's fixed ports. Where hosts share the machine's network each host has
 * ports of its own: servers listen on all addresses, so that different addresses alone would not keep them apart.
 */
export function portOf(
  plan: Pick<AttemptPlan, 'jobName' | 'attempt' | 'hosts'>,
  isolated: boolean,
  host: string,
  port: number,
): number {
  if (isolated) return port;
  const index = plan.hosts.indexOf(host) * AWS_PORTS.length + AWS_PORTS.indexOf(port);
  return sharedPort(plan) + 1 + index;
}

/** Directory of the layer's interpreter-specific packages. */
export const layerSite = (root: string, pythonName: string): string =>
  join(root, 'lib', pythonName, 'site-packages');
