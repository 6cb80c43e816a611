/**
 * The instance contract: what a training script finds on its host. Paths are relative to the host's root of
 * `/opt/ml`, which is a private directory where there are no mount namespaces.
 */
export const ML_ROOT = '/opt/ml';

export const ML_PATHS = {
  input: 'input',
  inputConfig: 'input/config',
  inputData: 'input/data',
  hyperParameters: 'input/config/hyperparameters.json',
  resourceConfig: 'input/config/resourceconfig.json',
  inputDataConfig: 'input/config/inputdataconfig.json',
  checkpointConfig: 'input/config/checkpointconfig.json',
  trainingJobConfig: 'input/config/trainingjobconfig.json',
  initConfig: 'input/config/init-config.json',
  metricDefinitionRegex: 'input/config/metric-definition-regex.json',
  upstreamOutputDataConfig: 'input/config/upstreamoutputdataconfig.json',
  debugHookConfig: 'input/config/debughookconfig.json',
  profilerConfig: 'input/config/profilerconfig.json',
  tensorBoardOutputConfig: 'input/config/tensorboardoutputconfig.json',
  code: 'code',
  model: 'model',
  output: 'output',
  outputData: 'output/data',
  outputIntermediate: 'output/intermediate',
  outputTensors: 'output/tensors',
  outputProfiler: 'output/profiler',
  outputTensorBoard: 'output/tensorboard',
  failure: 'output/failure',
  success: 'output/success',
  checkpoints: 'checkpoints',
  errors: 'errors',
} as const;

/** Where a channel's data lies, relative to the root. */
export const channelPath = (channel: string): string => `${ML_PATHS.inputData}/${channel}`;

/** The resolved list of objects beside a channel's directory. */
export const channelManifestPath = (channel: string): string => `${ML_PATHS.inputData}/${channel}-manifest`;

/** Upper-cased; hyphen and dot stay, as in AWS's toolkit. */
export const channelVariable = (channel: string): string => `SM_CHANNEL_${channel.toUpperCase()}`;
export const hyperParameterVariable = (key: string): string => `SM_HP_${key.toUpperCase()}`;

/** `algo-1` for index 0. */
export const hostName = (index: number): string => `algo-${index + 1}`;

/** The order of `hosts` in resourceconfig.json on every host; a host's rank is its place. `algo-10` before `algo-2`. */
export const sortHosts = (hosts: readonly string[]): string[] => [...hosts].sort();

export const HOMOGENEOUS_GROUP = 'homogeneousCluster';
export const DEFAULT_NETWORK_INTERFACE = 'eth0';

/** Characters of `output/failure` that reach FailureReason, and the limit of FailureReason itself. */
export const FAILURE_REASON_MAX = 1024;

/** Between SIGTERM and SIGKILL on AWS. */
export const STOP_GRACE_MS = 120_000;

/** `resourceconfig.json`. */
export interface ResourceConfigFile {
  current_host: string;
  current_instance_type: string;
  current_group_name: string;
  hosts: string[];
  instance_groups: { instance_group_name: string; instance_type: string; hosts: string[] }[];
  network_interface_name: string;
}

/** One channel in `inputdataconfig.json`. */
export interface InputDataConfigEntry {
  /** Left out when the request had none. */
  ContentType?: string;
  TrainingInputMode: string;
  S3DistributionType: string;
  RecordWrapperType: string;
}

/** Variables of AWS's training toolkit, without the families `SM_CHANNEL_*` and `SM_HP_*`. */
export const SM_VARIABLES = [
  'SM_CHANNELS',
  'SM_CURRENT_HOST',
  'SM_CURRENT_INSTANCE_GROUP',
  'SM_CURRENT_INSTANCE_GROUP_HOSTS',
  'SM_CURRENT_INSTANCE_TYPE',
  'SM_DISTRIBUTION_INSTANCE_GROUPS',
  'SM_DLC_TORCH_VERSION',
  'SM_FRAMEWORK_MODULE',
  'SM_FRAMEWORK_PARAMS',
  'SM_HOSTS',
  'SM_HPS',
  'SM_INPUT_CONFIG_DIR',
  'SM_INPUT_DATA_CONFIG',
  'SM_INPUT_DIR',
  'SM_INSTANCE_GROUPS',
  'SM_INSTANCE_GROUPS_DICT',
  'SM_IS_HETERO',
  'SM_LOG_LEVEL',
  'SM_MODEL_DIR',
  'SM_MODULE_DIR',
  'SM_MODULE_NAME',
  'SM_NETWORK_INTERFACE_NAME',
  'SM_NUM_CPUS',
  'SM_NUM_GPUS',
  'SM_NUM_NEURONS',
  'SM_OUTPUT_DATA_DIR',
  'SM_OUTPUT_DIR',
  'SM_OUTPUT_INTERMEDIATE_DIR',
  'SM_RESOURCE_CONFIG',
  'SM_TOPOLOGY',
  'SM_TRAINING_ENV',
  'SM_USER_ARGS',
  'SM_USER_ENTRY_POINT',
] as const;

export type SmVariable = (typeof SM_VARIABLES)[number];

/** Hyperparameters that drive the toolkit and are hidden from the script. */
export const RESERVED_HYPERPARAMETERS = [
  'sagemaker_program',
  'sagemaker_submit_directory',
  'sagemaker_enable_cloudwatch_metrics',
  'sagemaker_region',
  'sagemaker_container_log_level',
  'sagemaker_job_name',
  'default_user_module_name',
  '_tuning_objective_metric',
  'sagemaker_s3_output',
] as const;

/** Other keys with this prefix go to `SM_FRAMEWORK_PARAMS`, not to the script. */
export const FRAMEWORK_HYPERPARAMETER_PREFIX = 'sagemaker_';
