import type {
  InstancePlacementConfig,
  OutputCompressionType,
  TrainingInputMode,
  TrainingRepositoryAccessMode,
} from '@trainyard/api';
import type { Hyperparameters } from '../estimator-options.ts';
import type { FileSystemInput, TrainingInput } from '../inputs.ts';
import type { InstanceGroup } from '../instance-groups.ts';
import type { Session } from '../session.ts';
import type { DistributedConfig } from './distributed.ts';

/** The user's code and how it is started. */
export interface SourceCode {
  /** Folder with the code, `.tar.gz` of it, or the `s3://` URI of either. */
  sourceDir?: string;
  /** Script in `sourceDir`, `.py` or `.sh`. */
  entryScript?: string;
  /** Requirements file in `sourceDir`, installed before the start. */
  requirements?: string;
  /** Shell command, instead of `entryScript`; hyperparameters are in SM_HPS. */
  command?: string;
  /** Arguments of `command`, each one word. */
  args?: readonly string[];
  /** Names that are not sent, with `*` and `?`. @default .env .git __pycache__ .DS_Store .cache .ipynb_checkpoints */
  ignorePatterns?: readonly string[];
}

/** The hosts. */
export interface Compute {
  /** @default 'ml.m5.xlarge' */
  instanceType?: string;
  /** @default 1 */
  instanceCount?: number;
  /** Size of each host's volume. @default 30 */
  volumeSizeInGb?: number;
  /** Key that encrypts the volumes. */
  volumeKmsKeyId?: string;
  /** Seconds that hosts are kept for a next job, 0 to 21600. */
  keepAlivePeriodInSeconds?: number;
  /** Groups of hosts of several types, at most 5, instead of `instanceType` and `instanceCount`. */
  instanceGroups?: readonly InstanceGroup[];
  /** ARN of a plan with reserved capacity on AWS. */
  trainingPlanArn?: string;
  /** @default false */
  enableManagedSpotTraining?: boolean;
  /** Placement in UltraServers of AWS. */
  instancePlacementConfig?: InstancePlacementConfig;
}

/** One channel. */
export interface InputData {
  channelName: string;
  /** `s3://` URI, local path, or an input object with further options. */
  dataSource: string | TrainingInput | FileSystemInput;
  /** MIME type. */
  contentType?: string;
}

export interface Networking {
  /** Given together with `securityGroupIds`. */
  subnets?: readonly string[];
  securityGroupIds?: readonly string[];
  /** Give the script no network but that between its own hosts. */
  enableNetworkIsolation?: boolean;
  enableInterContainerTrafficEncryption?: boolean;
}

export interface StoppingCondition {
  /** @default 3600 */
  maxRuntimeInSeconds?: number;
  /** Longest wait for spot capacity and run together; at least `maxRuntimeInSeconds`. */
  maxWaitTimeInSeconds?: number;
  /** Longest wait for capacity, 7200 to 2419200. */
  maxPendingTimeInSeconds?: number;
}

export interface OutputDataConfig {
  /** @default the base name in the session's default bucket */
  s3OutputPath?: string;
  /** Key that encrypts artifacts, code and uploaded inputs. */
  kmsKeyId?: string;
  /** @default 'GZIP' */
  compressionType?: OutputCompressionType;
}

export interface CheckpointConfig {
  /** @default below the job's name in the session's default bucket */
  s3Uri?: string;
  /** @default '/opt/ml/checkpoints' */
  localPath?: string;
}

export interface TrainingImageConfig {
  trainingRepositoryAccessMode: TrainingRepositoryAccessMode;
  trainingRepositoryAuthConfig?: { trainingRepositoryCredentialsProviderArn: string };
}

export interface ModelTrainerOptions {
  /** Where jobs go. @default new Session() */
  session?: Session;
  /** ARN of the IAM role that the job works with. Required on AWS. @default role `trainyard`, outside AWS */
  role?: string;
  /** Training image. Required on AWS. @default the image of PyTorch 2.8.0, outside AWS */
  trainingImage?: string;
  /** For an image in a registry of the job's own network. */
  trainingImageConfig?: TrainingImageConfig;
  /** First part of job names. @default last part of the image's repository, and `-job` */
  baseJobName?: string;
  /** The user's code; without it the image starts what it will. */
  sourceCode?: SourceCode;
  /** `new Torchrun()`, `new MPI()`, or a driver of one's own. @default the script once per host */
  distributed?: DistributedConfig;
  /** The hosts. */
  compute?: Compute;
  /** Network of the hosts. */
  networking?: Networking;
  /** How long the job may run and wait. */
  stoppingCondition?: StoppingCondition;
  /** Where artifacts go. */
  outputDataConfig?: OutputDataConfig;
  /** Channels of every `train`; one given there with the same name replaces it. */
  inputDataConfig?: readonly InputData[];
  /** Directory that is kept in S3 while the job runs. */
  checkpointConfig?: CheckpointConfig;
  /** How channels reach the hosts unless a channel says otherwise. @default 'File' */
  trainingInputMode?: TrainingInputMode;
  /** Variables that the script finds, at most 100. */
  environment?: Readonly<Record<string, string>>;
  /** Passed to the script as `--key value`, at most 100; or the path of a JSON file with them. */
  hyperparameters?: Hyperparameters | string;
  /** At most 50. */
  tags?: readonly { key: string; value: string }[];
  /** Refuse outside AWS too what holds on AWS only. @default false */
  strict?: boolean;
}

/** Names that are left out of a source folder unless the user says otherwise. */
export const IGNORED_NAMES: readonly string[] = [
  '.env',
  '.git',
  '__pycache__',
  '.DS_Store',
  '.cache',
  '.ipynb_checkpoints',
];
