import type {
  InstancePlacementConfig,
  MetricDefinition,
  PythonValue,
  Tag,
  TrainingInputMode,
  TrainingRepositoryAccessMode,
} from '@trainyard/api';
import type {
  DebuggerHookConfig,
  DebuggerRule,
  ProfilerConfig,
  TensorBoardOutputConfig,
} from './debugger-options.ts';
import type { InstanceGroup } from './instance-groups.ts';
import type { Session } from './session.ts';
import type { GitConfig } from './source/git-config.ts';

export type Hyperparameters = Readonly<Record<string, PythonValue>>;

/** Options of every estimator: those of SageMaker's Python SDK in camelCase. */
export interface CommonOptions {
  /**
   * Where jobs go.
   * @default new Session()
   */
  session?: Session;
  /**
   * ARN of the IAM role that the job works with. Required on AWS; elsewhere a bare name is enough.
   * @default role `trainyard` of the service's account, outside AWS
   */
  role?: string;
  /**
   * Number of hosts, at least 1.
   * @default 1
   */
  instanceCount?: number;
  /**
   * e.g. `ml.g5.2xlarge`. Required on AWS; elsewhere a label that says nothing about the hardware. `local` and
   * `local_gpu` of SageMaker's local mode are taken by the embedded service.
   * @default 'ml.m5.xlarge', outside AWS
   */
  instanceType?: string;
  /** Groups of hosts of several types, at most 5, instead of `instanceType` and `instanceCount`. */
  instanceGroups?: readonly InstanceGroup[];
  /** Passed to the script as `--key value`, at most 100. */
  hyperparameters?: Hyperparameters;
  /** Variables that the script finds, at most 100, values of at most 512 characters. */
  environment?: Readonly<Record<string, string>>;
  /**
   * Longest run in seconds, over all attempts; at most 28 days (a limit of the API).
   * @default 86400
   */
  maxRun?: number;
  /**
   * Longest wait for spot capacity and run together, in seconds; at least `maxRun`.
   * @default none
   */
  maxWait?: number;
  /** @default false */
  useSpotInstances?: boolean;
  /** Attempts after the first when a host or the platform fails, 1 to 30. */
  maxRetryAttempts?: number;
  /**
   * `s3://` URI below which artifacts are put, under the job's name.
   * @default the session's default bucket
   */
  outputPath?: string;
  /** Key that encrypts artifacts and code. */
  outputKmsKey?: string;
  /**
   * Leave the artifacts as single objects instead of `model.tar.gz`.
   * @default false
   */
  disableOutputCompression?: boolean;
  /**
   * `s3://` URI that is copied to every host before the start and kept up to date from there.
   * @default none
   */
  checkpointS3Uri?: string;
  /**
   * Directory of the checkpoints on the host; without `checkpointS3Uri` it has no effect.
   * @default '/opt/ml/checkpoints'
   */
  checkpointLocalPath?: string;
  /**
   * First part of job names; letters, digits and hyphens.
   * @default last part of the image's repository
   */
  baseJobName?: string;
  /** A list of `{ Key, Value }`, or an object; at most 50. */
  tags?: readonly Tag[] | Readonly<Record<string, string>>;
  /** Metrics read from the log: the first group of each pattern is the value. At most 40. */
  metricDefinitions?: readonly MetricDefinition[];
  /**
   * How channels reach the host unless a channel says otherwise.
   * @default 'File'
   */
  inputMode?: TrainingInputMode;
  /**
   * Size of each host's volume in GB.
   * @default 30
   */
  volumeSize?: number;
  /** Key that encrypts the volumes. */
  volumeKmsKey?: string;
  /** ARN of a plan with reserved capacity on AWS. */
  trainingPlan?: string;
  /** Placement in UltraServers of AWS. */
  instancePlacementConfig?: InstancePlacementConfig;
  /** Seconds that hosts are kept for a next job, 0 to 21600. */
  keepAlivePeriodInSeconds?: number;
  /** Given together with `securityGroupIds`. */
  subnets?: readonly string[];
  securityGroupIds?: readonly string[];
  /** @default false */
  encryptInterContainerTraffic?: boolean;
  /**
   * Give the script no network but that between its own hosts.
   * @default false
   */
  enableNetworkIsolation?: boolean;
  /** `s3://` URI or local path of a trained model, which becomes a channel. */
  modelUri?: string;
  /**
   * Name of that channel.
   * @default 'model'
   */
  modelChannelName?: string;
  /** SageMaker Debugger, or false for none. @default its defaults, where AWS's SDK sends them */
  debuggerHookConfig?: boolean | DebuggerHookConfig;
  /** Rules of SageMaker Debugger and Profiler. */
  rules?: readonly DebuggerRule[];
  /** SageMaker Profiler. @default its defaults */
  profilerConfig?: ProfilerConfig;
  /** @default false; true on Trainium and where AWS has no profiler */
  disableProfiler?: boolean;
  /** Where summaries for TensorBoard go. */
  tensorBoardOutputConfig?: TensorBoardOutputConfig;
  /** Keep metrics as time series. @default true for versions that AWS's SDK knows to do so */
  enableSageMakerMetrics?: boolean;
  /** `Vpc` for a training image in a registry of the job's own network. */
  trainingRepositoryAccessMode?: TrainingRepositoryAccessMode;
  /** ARN of a Lambda function that gives credentials for that registry. */
  trainingRepositoryCredentialsProviderArn?: string;
  /** Check hosts before training. */
  enableInfraCheck?: boolean;
  /** Let `aws ssm start-session` enter the hosts. */
  enableRemoteDebug?: boolean;
  /** Give the role's session tags to the job. */
  enableSessionTagChaining?: boolean;
  /** Replaces the image's entry point, at most 100 words of 256 characters. */
  containerEntryPoint?: readonly string[];
  containerArguments?: readonly string[];
  /**
   * Refuse exactly what SageMaker's Python SDK refuses, wherever the job goes.
   * @default false
   */
  strict?: boolean;
}

/** The user's code. */
export interface SourceOptions {
  /** Script to start: relative to `sourceDir` when there is one, else to the working directory. */
  entryPoint: string;
  /**
   * Directory that is packed and put into `/opt/ml/code`, `requirements.txt` in it is installed; or the `s3://` URI
   * of a packed one.
   * @default the script alone
   */
  sourceDir?: string;
  /** Repository in which `entryPoint`, `sourceDir` and `dependencies` are paths. */
  gitConfig?: GitConfig;
  /** Further files and directories put beside the script under their own names. */
  dependencies?: readonly string[];
  /**
   * `s3://` URI below which the packed code is put.
   * @default the output bucket
   */
  codeLocation?: string;
  /**
   * Python logging level of the launcher.
   * @default 20
   */
  containerLogLevel?: number;
}
