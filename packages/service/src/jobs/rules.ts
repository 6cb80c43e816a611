import type { CreateTrainingJobRequest, ResourceConfig } from '@trainyard/api';
import { membersUsed } from './members.ts';
import { HOMOGENEOUS_GROUP, type ImageRuntime } from './spec.ts';

/** What the rules must know of the world besides the request. */
export interface RuleContext {
  /** Runtime for an image, or why there is none (with the next step). */
  runtimeFor(image: string): { runtime: ImageRuntime } | { problem: string };
  /** Registered folder of a file system, null when unknown. */
  fileSystemPath(id: string): string | null;
  /** The operator keeps jobs from writing to it. */
  fileSystemIsReadOnly(id: string): boolean;
  /** Hosts have a network of their own, which can be closed. */
  isolatesNetwork: boolean;
}

const S3_URI = /^(https|s3):\/\/([^/]+)\/?(.*)$/;
const DISTRIBUTION_GROUPS = 'sagemaker_distribution_instance_groups';
const HIGHEST_RUNTIME_S = 28 * 24 * 3600;

/**
 * Rules across members: what the model's constraints cannot say. Every problem of the request is found, each as
 * one sentence that names member, value, rule and next step.
 *
 * https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
 */
export function checkRules(
  request: CreateTrainingJobRequest,
  context: RuleContext,
): { problems: string[]; runtime: ImageRuntime | null } {
  const problems: string[] = [];
  const say = (sentence: string): void => {
    problems.push(sentence);
  };
  for (const use of membersUsed(request)) {
    if (use.treatment.treatment === 'refused') say(`${use.written} is not supported: ${use.treatment.note}.`);
  }

  let runtime: ImageRuntime | null = null;
  const algorithm = request.AlgorithmSpecification;
  if (!algorithm) {
    say('AlgorithmSpecification is missing; give TrainingImage and TrainingInputMode.');
  } else if (algorithm.TrainingImage && algorithm.AlgorithmName) {
    say('AlgorithmSpecification has both TrainingImage and AlgorithmName; give exactly one.');
  } else if (!algorithm.TrainingImage && !algorithm.AlgorithmName) {
    say('AlgorithmSpecification has neither TrainingImage nor AlgorithmName; give TrainingImage.');
  } else if (algorithm.TrainingImage) {
    const mapped = context.runtimeFor(algorithm.TrainingImage);
    if ('runtime' in mapped) runtime = mapped.runtime;
    else say(mapped.problem);
  }

  checkResources(request, say);

  if (request.EnableNetworkIsolation && !context.isolatesNetwork) {
    say(
      'EnableNetworkIsolation is true, but hosts here are plain processes with the network of this machine. ' +
        'Run the service where it can make namespaces (trainyard doctor says what is missing), or leave it out.',
    );
  }
  checkStopping(request, say);
  checkChannels(request, context, say);
  checkS3Path('OutputDataConfig.S3OutputPath', request.OutputDataConfig?.S3OutputPath, say);
  checkS3Path('CheckpointConfig.S3Uri', request.CheckpointConfig?.S3Uri, say);
  const local = request.CheckpointConfig?.LocalPath;
  if (local !== undefined && local !== null && !/^\/opt\/ml\/[^/]/.test(local)) {
    say(
      `CheckpointConfig.LocalPath is ${local}; it must be a folder below /opt/ml/, such as /opt/ml/checkpoints.`,
    );
  }
  const keys = (request.Tags ?? []).map((tag) => tag.Key);
  for (const key of new Set(keys.filter((key, index) => keys.indexOf(key) !== index))) {
    say(`Tags has the key '${key}' more than once; keys must be unique.`);
  }
  for (const key of keys.filter((key) => key.toLowerCase().startsWith('aws:'))) {
    say(`Tags has the key '${key}'; the prefix aws: is reserved.`);
  }
  return { problems, runtime };
}

function checkResources(request: CreateTrainingJobRequest, say: (sentence: string) => void): void {
  const resources = request.ResourceConfig;
  if (!resources) {
    say('ResourceConfig is missing; give InstanceType, InstanceCount and VolumeSizeInGB.');
    return;
  }
  if (resources.InstanceGroups?.length) checkInstanceGroups(resources, say);
  else if (!resources.InstancePreferences?.length) {
    if (!resources.InstanceType) say('ResourceConfig.InstanceType is missing.');
    if (resources.InstanceCount === undefined || resources.InstanceCount === null) {
      say('ResourceConfig.InstanceCount is missing.');
    } else if (resources.InstanceCount < 1) {
      say(`ResourceConfig.InstanceCount is ${resources.InstanceCount}; a job needs at least 1.`);
    }
  }
  checkGroupNames(request, say);
}

/** https://docs.aws.amazon.com/sagemaker/latest/dg/train-heterogeneous-cluster.html */
function checkInstanceGroups(resources: ResourceConfig, say: (sentence: string) => void): void {
  const groups = resources.InstanceGroups ?? [];
  for (const member of ['InstanceType', 'InstanceCount', 'KeepAlivePeriodInSeconds'] as const) {
    const value = resources[member];
    if (value !== undefined && value !== null && value !== 0) {
      say(`ResourceConfig.${member} is ${value}, but InstanceGroups are given too; leave out one of them.`);
    }
  }
  groups.forEach((group, index) => {
    const at = `ResourceConfig.InstanceGroups[${index}]`;
    if (groups.findIndex((other) => other.InstanceGroupName === group.InstanceGroupName) < index) {
      say(
        `${at}.InstanceGroupName is '${group.InstanceGroupName}', as that of another group; names must be unique.`,
      );
    }
    if (group.InstanceCount < 1) {
      say(
        `${at}.InstanceCount is ${group.InstanceCount}; the group '${group.InstanceGroupName}' needs at least 1.`,
      );
    }
  });
}

/** Channels name groups all or none, in AWS's words. */
function checkGroupNames(request: CreateTrainingJobRequest, say: (sentence: string) => void): void {
  const groups = (request.ResourceConfig?.InstanceGroups ?? []).map((group) => group.InstanceGroupName);
  const existing = groups.length > 0 ? groups : [HOMOGENEOUS_GROUP];
  for (const name of distributionGroups(request)) {
    if (existing.includes(name)) continue;
    say(
      `HyperParameters.${DISTRIBUTION_GROUPS} has '${name}'; the groups of this job are ${existing.join(', ')}.`,
    );
  }
  const assigned: string[] = [];
  const others: string[] = [];
  (request.InputDataConfig ?? []).forEach((channel, index) => {
    const names = channel.DataSource?.S3DataSource?.InstanceGroupNames ?? [];
    (names.length > 0 ? assigned : others).push(channel.ChannelName);
    for (const name of names.filter((each) => !groups.includes(each))) {
      say(
        `InputDataConfig[${index}] (channel '${channel.ChannelName}'): InstanceGroupNames has '${name}'; ` +
          (groups.length > 0
            ? `the groups of ResourceConfig.InstanceGroups are ${groups.join(', ')}.`
            : 'ResourceConfig has no InstanceGroups.'),
      );
    }
  });
  if (assigned.length > 0 && others.length > 0) {
    say(
      `Some channels have assigned instance groups: [${assigned.join(', ')}] while others not: [${others.join(', ')}]`,
    );
  }
}

/** Groups on which the toolkits start the distribution; what is no list of names is the toolkits' affair. */
function distributionGroups(request: CreateTrainingJobRequest): string[] {
  const text = request.HyperParameters?.[DISTRIBUTION_GROUPS];
  if (text === undefined) return [];
  try {
    const value: unknown = JSON.parse(text);
    return Array.isArray(value) ? value.filter((name) => typeof name === 'string') : [];
  } catch {
    return [];
  }
}

function checkStopping(request: CreateTrainingJobRequest, say: (sentence: string) => void): void {
  const stopping = request.StoppingCondition ?? {};
  const runtime = stopping.MaxRuntimeInSeconds ?? 86_400;
  if (runtime > HIGHEST_RUNTIME_S) {
    say(
      `StoppingCondition.MaxRuntimeInSeconds is ${runtime}; the highest value is ${HIGHEST_RUNTIME_S} (28 days).`,
    );
  }
  const wait = stopping.MaxWaitTimeInSeconds;
  if (wait !== undefined && wait !== null && !request.EnableManagedSpotTraining) {
    say('Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true');
  }
  if (request.EnableManagedSpotTraining && (wait === undefined || wait === null)) {
    say(
      'EnableManagedSpotTraining is true but StoppingCondition.MaxWaitTimeInSeconds is missing; give one at least as large as MaxRuntimeInSeconds.',
    );
  }
  if (request.EnableManagedSpotTraining && wait !== undefined && wait !== null && wait < runtime) {
    say(
      `Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds; got ${wait} and ${runtime}.`,
    );
  }
  if (request.EnableManagedSpotTraining && request.ResourceConfig?.KeepAlivePeriodInSeconds) {
    say('ResourceConfig.KeepAlivePeriodInSeconds cannot be combined with EnableManagedSpotTraining.');
  }
}

function checkChannels(
  request: CreateTrainingJobRequest,
  context: RuleContext,
  say: (sentence: string) => void,
): void {
  const channels = request.InputDataConfig ?? [];
  const names = channels.map((channel) => channel.ChannelName);
  for (const name of new Set(names.filter((name, index) => names.indexOf(name) !== index))) {
    say(`InputDataConfig has two channels named '${name}'; channel names must be unique.`);
  }
  channels.forEach((channel, index) => {
    const at = `InputDataConfig[${index}] (channel '${channel.ChannelName}')`;
    if (channel.ChannelName === '.' || channel.ChannelName === '..') {
      say(`${at}: the name '${channel.ChannelName}' is not a folder name; choose another.`);
    }
    const mode = channel.InputMode ?? request.AlgorithmSpecification?.TrainingInputMode ?? 'File';
    if (mode === 'Pipe') say(`${at}: input mode Pipe is not supported yet; use File or FastFile.`);
    if (mode !== 'Pipe' && channel.CompressionType === 'Gzip') {
      say(`${at}: CompressionType Gzip is only allowed in Pipe mode; the input mode is ${mode}.`);
    }
    if (mode !== 'Pipe' && channel.RecordWrapperType === 'RecordIO') {
      say(`${at}: RecordWrapperType RecordIO is only allowed in Pipe mode; the input mode is ${mode}.`);
    }
    const sources = Object.entries(channel.DataSource ?? {}).filter(
      ([, value]) => value !== undefined && value !== null,
    );
    if (sources.length !== 1) {
      say(
        `${at}: DataSource has ${sources.length === 0 ? 'no member' : sources.map(([name]) => name).join(' and ')}; give exactly one of S3DataSource and FileSystemDataSource.`,
      );
      return;
    }
    const s3 = channel.DataSource.S3DataSource;
    const folder = channel.DataSource.FileSystemDataSource;
    if (s3) {
      checkS3Path(`${at}.DataSource.S3DataSource.S3Uri`, s3.S3Uri, say);
      if (s3.S3DataType !== 'S3Prefix' && s3.S3DataType !== 'ManifestFile') {
        say(`${at}: S3DataType ${s3.S3DataType} is not supported; use S3Prefix or ManifestFile.`);
      }
      if (mode === 'FastFile' && s3.S3DataType === 'ManifestFile') {
        say(`${at}: FastFile needs S3DataType S3Prefix; got ManifestFile.`);
      }
    } else if (folder) {
      if (mode !== 'File') say(`${at}: a file system needs input mode File; got ${mode}.`);
      if (!folder.DirectoryPath.startsWith('/') || folder.DirectoryPath.split('/').includes('..')) {
        say(`${at}: DirectoryPath is ${folder.DirectoryPath}; it must be absolute and without '..'.`);
      }
      if (context.fileSystemPath(folder.FileSystemId) === null) {
        say(
          `${at}: FileSystemId ${folder.FileSystemId} is not known here; name its folder in "fileSystems" of config.json, or register it (see docs/channels.md, "Folders in place").`,
        );
      } else if (folder.FileSystemAccessMode === 'rw' && context.fileSystemIsReadOnly(folder.FileSystemId)) {
        say(
          `${at}: FileSystemAccessMode is rw, but the operator offers ${folder.FileSystemId} read-only; use ro.`,
        );
      }
    }
  });
}

function checkS3Path(
  member: string,
  value: string | undefined | null,
  say: (sentence: string) => void,
): void {
  if (value === undefined || value === null) return;
  const match = S3_URI.exec(value);
  if (!match || match[1] !== 's3') say(`${member} is ${value}; it must have the form s3://bucket/prefix.`);
  else if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(match[2]!)) {
    say(`${member} is ${value}; '${match[2]}' is not a bucket name (3 to 63 of a-z, 0-9, '.', '-').`);
  } else if (/(^|\/)\.\.?(\/|$)/.test(match[3]!)) {
    say(`${member} is ${value}; a path with '.' or '..' cannot be a key here, choose another.`);
  }
}
