import type {
  Channel,
  CreateTrainingJobRequest,
  ExperimentConfig,
  ResourceConfig,
  Tag,
  TrainingInputMode,
} from '@trainyard/api';
import { debuggerMembers } from './debugger-options.ts';
import type { HookPolicy } from './debugger-options.ts';
import type { CommonOptions } from './estimator-options.ts';
import { instanceGroupMembers } from './instance-groups.ts';

/** What the estimator's own class and the session decided. */
export interface RequestParts {
  jobName: string;
  roleArn: string;
  region: string;
  image: string;
  /** Null with instance groups. */
  instanceType: string | null;
  /** Ends with a slash when it is a bare bucket. */
  outputPath: string;
  inputMode: TrainingInputMode;
  channels: Channel[];
  /** Encoded. */
  hyperparameters: Record<string, string>;
  metricsTimeSeries: boolean | undefined;
  hookPolicy: HookPolicy;
  experiment: ExperimentConfig | null;
}

/**
 * The CreateTrainingJob body that SageMaker's Python SDK sends for the same options.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/session.py (`_get_train_request`)
 */
export function buildRequest(options: CommonOptions, parts: RequestParts): CreateTrainingJobRequest {
  const tags = tagList(options.tags);
  return {
    TrainingJobName: parts.jobName,
    RoleArn: parts.roleArn,
    AlgorithmSpecification: algorithm(options, parts),
    OutputDataConfig: {
      S3OutputPath: parts.outputPath,
      ...(options.outputKmsKey !== undefined && { KmsKeyId: options.outputKmsKey }),
      ...(options.disableOutputCompression && { CompressionType: 'NONE' as const }),
    },
    ResourceConfig: resources(options, parts),
    StoppingCondition: {
      MaxRuntimeInSeconds: options.maxRun ?? 86_400,
      ...(options.maxWait && { MaxWaitTimeInSeconds: options.maxWait }),
    },
    ...(parts.channels.length > 0 && { InputDataConfig: parts.channels }),
    ...(Object.keys(parts.hyperparameters).length > 0 && { HyperParameters: parts.hyperparameters }),
    ...(options.environment && { Environment: { ...options.environment } }),
    ...(tags.length > 0 && { Tags: tags }),
    ...(options.subnets &&
      options.securityGroupIds && {
        VpcConfig: { Subnets: [...options.subnets], SecurityGroupIds: [...options.securityGroupIds] },
      }),
    ...(parts.experiment && { ExperimentConfig: parts.experiment }),
    ...(options.enableNetworkIsolation && { EnableNetworkIsolation: true }),
    ...(options.encryptInterContainerTraffic && { EnableInterContainerTrafficEncryption: true }),
    ...(options.useSpotInstances && { EnableManagedSpotTraining: true }),
    ...(options.checkpointS3Uri !== undefined && {
      CheckpointConfig: {
        S3Uri: options.checkpointS3Uri,
        ...(options.checkpointLocalPath !== undefined && { LocalPath: options.checkpointLocalPath }),
      },
    }),
    ...(options.maxRetryAttempts !== undefined && {
      RetryStrategy: { MaximumRetryAttempts: options.maxRetryAttempts },
    }),
    ...(options.enableInfraCheck !== undefined && {
      InfraCheckConfig: { EnableInfraCheck: options.enableInfraCheck },
    }),
    ...(options.enableRemoteDebug !== undefined && {
      RemoteDebugConfig: { EnableRemoteDebug: options.enableRemoteDebug },
    }),
    ...(options.enableSessionTagChaining !== undefined && {
      SessionChainingConfig: { EnableSessionTagChaining: options.enableSessionTagChaining },
    }),
    ...debuggerMembers(options, {
      region: parts.region,
      outputPath: parts.outputPath,
      instanceType: parts.instanceType,
      hostCount: hostCountOf(options),
      policy: parts.hookPolicy,
    }),
  };
}

export function hostCountOf({ instanceGroups, instanceCount = 1 }: CommonOptions): number {
  return instanceGroups?.reduce((sum, group) => sum + group.instanceCount, 0) ?? instanceCount;
}

export function tagList(tags: CommonOptions['tags']): Tag[] {
  if (Array.isArray(tags)) return [...(tags as readonly Tag[])];
  return Object.entries(tags ?? {}).map(([Key, Value]) => ({ Key, Value: Value as string }));
}

function algorithm(
  options: CommonOptions,
  parts: RequestParts,
): CreateTrainingJobRequest['AlgorithmSpecification'] {
  const { trainingRepositoryAccessMode: access, trainingRepositoryCredentialsProviderArn: provider } =
    options;
  return {
    TrainingInputMode: parts.inputMode,
    TrainingImage: parts.image,
    ...(access && {
      TrainingImageConfig: {
        TrainingRepositoryAccessMode: access,
        ...(provider !== undefined && {
          TrainingRepositoryAuthConfig: { TrainingRepositoryCredentialsProviderArn: provider },
        }),
      },
    }),
    ...(options.metricDefinitions?.length && { MetricDefinitions: [...options.metricDefinitions] }),
    ...(parts.metricsTimeSeries !== undefined && {
      EnableSageMakerMetricsTimeSeries: parts.metricsTimeSeries,
    }),
    ...(options.containerEntryPoint && { ContainerEntrypoint: [...options.containerEntryPoint] }),
    ...(options.containerArguments && { ContainerArguments: [...options.containerArguments] }),
  };
}

function resources(options: CommonOptions, { instanceType }: RequestParts): ResourceConfig {
  const { instanceGroups, instanceCount = 1 } = options;
  return {
    ...(instanceType !== null && { InstanceType: instanceType, InstanceCount: instanceCount }),
    ...(instanceGroups && { InstanceGroups: instanceGroupMembers(instanceGroups) }),
    VolumeSizeInGB: options.volumeSize ?? 30,
    ...(options.volumeKmsKey !== undefined && { VolumeKmsKeyId: options.volumeKmsKey }),
    ...(options.keepAlivePeriodInSeconds !== undefined && {
      KeepAlivePeriodInSeconds: options.keepAlivePeriodInSeconds,
    }),
    ...(options.trainingPlan !== undefined && { TrainingPlanArn: options.trainingPlan }),
    ...(options.instancePlacementConfig && { InstancePlacementConfig: options.instancePlacementConfig }),
  };
}
