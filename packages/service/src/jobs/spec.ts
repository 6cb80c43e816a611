import type { CreateTrainingJobRequest, HostPlan, ResourceConfig } from '@trainyard/api';

/** A CreateTrainingJob body, compiled: no optional member is left, units are in the names. */
export interface JobSpec {
  name: string;
  roleArn: string;
  image: string;
  /** Runtime that the image maps to. */
  runtime: string;
  frameworkModule: HostPlan['frameworkModule'];
  containerEntrypoint: string[] | null;
  containerArguments: string[] | null;
  /** In the order of the request; a homogeneous cluster is one group. Hosts are numbered over all of them. */
  instanceGroups: InstanceGroupSpec[];
  /** Of all groups together. */
  instanceCount: number;
  hyperParameters: Record<string, string>;
  environment: Record<string, string>;
  channels: ChannelSpec[];
  /** `s3://bucket/prefix/<job>/output/` */
  outputS3Uri: string;
  outputCompression: 'GZIP' | 'NONE';
  checkpoint: { s3Uri: string; localPath: string } | null;
  maxRuntimeMs: number;
  /** Null: may wait for ever. */
  maxWaitMs: number | null;
  maxPendingMs: number | null;
  /** Attempts after the first that a platform fault may cost. */
  maxRetries: number;
  networkIsolated: boolean;
  metricDefinitions: { name: string; regex: string }[];
}

export interface InstanceGroupSpec {
  name: string;
  instanceType: string;
  instanceCount: number;
}

export interface ChannelSpec {
  name: string;
  source:
    | {
        kind: 's3';
        dataType: 'S3Prefix' | 'ManifestFile';
        uri: string;
        distribution: 'FullyReplicated' | 'ShardedByS3Key';
        /** Groups whose hosts get the channel; null for all. */
        instanceGroups: string[] | null;
      }
    | {
        kind: 'file_system';
        fileSystemId: string;
        /** Below the registered folder, relative, '' for the folder itself. */
        subdirectory: string;
        readOnly: boolean;
      };
  contentType: string | null;
  compression: 'None' | 'Gzip';
  recordWrapper: 'None' | 'RecordIO';
}

export const HOMOGENEOUS_GROUP = 'homogeneousCluster';
export const DEFAULT_CHECKPOINT_DIRECTORY = '/opt/ml/checkpoints';

/** Host names of a job in rank order: sorted by code point, so `algo-10` comes before `algo-2`. */
export function hostNames(instanceCount: number): string[] {
  return Array.from({ length: instanceCount }, (_, index) => `algo-${index + 1}`).sort();
}

/** The hosts of each group: numbered over all groups in their order, then sorted like {@link hostNames}. */
export function hostsOfGroups(
  groups: readonly InstanceGroupSpec[],
): (InstanceGroupSpec & { hosts: string[] })[] {
  let taken = 0;
  return groups.map((group) => {
    const hosts = Array.from({ length: group.instanceCount }, (_, index) => `algo-${taken + index + 1}`);
    taken += group.instanceCount;
    return { ...group, hosts: hosts.sort() };
  });
}

/** Types of a job's instances as a person would say them: `ml.c5.xlarge + ml.p4d.24xlarge`. */
export function instanceTypes({ instanceGroups }: JobSpec): string {
  return [...new Set(instanceGroups.map((group) => group.instanceType))].join(' + ');
}

function instanceGroupsOf(resources: ResourceConfig): InstanceGroupSpec[] {
  if (resources.InstanceGroups?.length) {
    return resources.InstanceGroups.map((group) => ({
      name: group.InstanceGroupName,
      instanceType: group.InstanceType,
      instanceCount: group.InstanceCount,
    }));
  }
  return [
    {
      name: HOMOGENEOUS_GROUP,
      instanceType: resources.InstanceType!,
      instanceCount: resources.InstanceCount!,
    },
  ];
}

/** `s3://bucket/prefix` and `s3://bucket/prefix/` both give `s3://bucket/prefix/<job>/output/`. */
export function outputUri(s3OutputPath: string, jobName: string): string {
  return `${s3OutputPath.replace(/\/+$/, '')}/${jobName}/output/`;
}

/** What an image of the operator's own runs in, as far as it decides how ranks start. */
export interface ImageRuntime {
  name: string;
  framework: string;
}

type FrameworkModule = NonNullable<HostPlan['frameworkModule']>;

const MODULE_OF_FRAMEWORK: Readonly<Record<string, FrameworkModule>> = {
  pytorch: 'sagemaker_pytorch_container.training:main',
  tensorflow: 'sagemaker_tensorflow_container.training:main',
  mxnet: 'sagemaker_mxnet_container.training:main',
};

/** Names of image repositories that tell the framework. */
const FRAMEWORK_OF_REPOSITORY: readonly [RegExp, string][] = [
  [/pytorch|smdistributed-modelparallel/, 'pytorch'],
  [/tensorflow/, 'tensorflow'],
  [/mxnet/, 'mxnet'],
];

/**
 * Which AWS toolkit module the image runs (its `SAGEMAKER_TRAINING_MODULE`): the framework in its name, else that of
 * its runtime, because an image that the operator maps to a framework's runtime is one of that framework.
 */
export function frameworkModuleOf(image: string, framework: string): HostPlan['frameworkModule'] {
  const repository = image.split('/').at(-1)?.split(':')[0] ?? '';
  const named = FRAMEWORK_OF_REPOSITORY.find(([pattern]) => pattern.test(repository))?.[1];
  return MODULE_OF_FRAMEWORK[named ?? framework] ?? null;
}

/** FSx for Lustre paths begin with the file system's mount name, EFS paths do not. */
export function subdirectoryOf(type: string, directoryPath: string): string {
  const parts = directoryPath.split('/').filter((part) => part !== '' && part !== '.');
  return (type === 'FSxLustre' ? parts.slice(1) : parts).join('/');
}

/** @param request a body that passed the model's constraints and {@link checkRules} */
export function compileJobSpec(request: CreateTrainingJobRequest, runtime: ImageRuntime): JobSpec {
  const algorithm = request.AlgorithmSpecification!;
  const image = algorithm.TrainingImage!;
  const instanceGroups = instanceGroupsOf(request.ResourceConfig!);
  const isSet = (value: unknown): value is NonNullable<unknown> => value !== undefined && value !== null;
  return {
    name: request.TrainingJobName,
    roleArn: request.RoleArn,
    image,
    runtime: runtime.name,
    frameworkModule: frameworkModuleOf(image, runtime.framework),
    containerEntrypoint: algorithm.ContainerEntrypoint ?? null,
    containerArguments: algorithm.ContainerArguments ?? null,
    instanceGroups,
    instanceCount: instanceGroups.reduce((sum, group) => sum + group.instanceCount, 0),
    hyperParameters: request.HyperParameters ?? {},
    environment: request.Environment ?? {},
    channels: (request.InputDataConfig ?? []).map((channel): ChannelSpec => {
      const s3 = channel.DataSource?.S3DataSource;
      const folder = channel.DataSource?.FileSystemDataSource;
      return {
        name: channel.ChannelName,
        source: s3
          ? {
              kind: 's3',
              dataType: s3.S3DataType === 'ManifestFile' ? 'ManifestFile' : 'S3Prefix',
              uri: s3.S3Uri,
              distribution:
                s3.S3DataDistributionType === 'ShardedByS3Key' ? 'ShardedByS3Key' : 'FullyReplicated',
              instanceGroups: s3.InstanceGroupNames?.length ? s3.InstanceGroupNames : null,
            }
          : {
              kind: 'file_system',
              fileSystemId: folder!.FileSystemId,
              subdirectory: subdirectoryOf(folder!.FileSystemType, folder!.DirectoryPath),
              readOnly: folder!.FileSystemAccessMode !== 'rw',
            },
        contentType: channel.ContentType ?? null,
        compression: channel.CompressionType === 'Gzip' ? 'Gzip' : 'None',
        recordWrapper: channel.RecordWrapperType === 'RecordIO' ? 'RecordIO' : 'None',
      };
    }),
    outputS3Uri: outputUri(request.OutputDataConfig.S3OutputPath, request.TrainingJobName),
    outputCompression: request.OutputDataConfig.CompressionType === 'NONE' ? 'NONE' : 'GZIP',
    checkpoint: isSet(request.CheckpointConfig)
      ? {
          s3Uri: request.CheckpointConfig.S3Uri,
          localPath: request.CheckpointConfig.LocalPath ?? DEFAULT_CHECKPOINT_DIRECTORY,
        }
      : null,
    maxRuntimeMs: (request.StoppingCondition?.MaxRuntimeInSeconds ?? 86_400) * 1000,
    maxWaitMs: isSet(request.StoppingCondition?.MaxWaitTimeInSeconds)
      ? request.StoppingCondition.MaxWaitTimeInSeconds * 1000
      : null,
    maxPendingMs: isSet(request.StoppingCondition?.MaxPendingTimeInSeconds)
      ? request.StoppingCondition.MaxPendingTimeInSeconds * 1000
      : null,
    maxRetries: request.RetryStrategy?.MaximumRetryAttempts ?? 0,
    networkIsolated: request.EnableNetworkIsolation ?? false,
    metricDefinitions: (algorithm.MetricDefinitions ?? []).map((metric) => ({
      name: metric.Name,
      regex: metric.Regex,
    })),
  };
}
