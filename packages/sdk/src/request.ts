import type { Channel, CreateTrainingJobRequest, TrainingInputMode } from '@trainyard/api';
import type { CommonOptions } from './estimator-options.ts';

/** Regions without SageMaker Debugger and Profiler. */
const NO_DEBUGGER: readonly string[] = [
  'us-iso-east-1',
  'us-isob-east-1',
  'ap-southeast-3',
  'ap-southeast-4',
  'eu-south-2',
  'me-central-1',
  'ap-south-2',
  'eu-central-2',
  'us-gov-east-1',
];

/** What the estimator's own class and the session decided. */
export interface RequestParts {
  jobName: string;
  roleArn: string;
  region: string;
  image: string;
  instanceType: string;
  instanceCount: number;
  /** Ends with a slash when it is a bare bucket. */
  outputPath: string;
  inputMode: TrainingInputMode;
  channels: Channel[];
  /** Encoded. */
  hyperparameters: Record<string, string>;
  metricsTimeSeries: boolean | undefined;
  /** AWS's SDK leaves the debugger out of framework jobs that keep checkpoints. */
  isFramework: boolean;
}

/**
 * The CreateTrainingJob body that SageMaker's Python SDK sends for the same options.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/session.py (`_get_train_request`)
 */
export function buildRequest(options: CommonOptions, parts: RequestParts): CreateTrainingJobRequest {
  return {
    TrainingJobName: parts.jobName,
    RoleArn: parts.roleArn,
    AlgorithmSpecification: {
      TrainingInputMode: parts.inputMode,
      TrainingImage: parts.image,
      ...(options.metricDefinitions?.length && { MetricDefinitions: [...options.metricDefinitions] }),
      ...(parts.metricsTimeSeries && { EnableSageMakerMetricsTimeSeries: true }),
      ...(options.containerEntryPoint && { ContainerEntrypoint: [...options.containerEntryPoint] }),
      ...(options.containerArguments && { ContainerArguments: [...options.containerArguments] }),
    },
    OutputDataConfig: {
      S3OutputPath: parts.outputPath,
      ...(options.outputKmsKey !== undefined && { KmsKeyId: options.outputKmsKey }),
      ...(options.disableOutputCompression && { CompressionType: 'NONE' as const }),
    },
    ResourceConfig: {
      InstanceType: parts.instanceType,
      InstanceCount: parts.instanceCount,
      VolumeSizeInGB: options.volumeSize ?? 30,
      ...(options.volumeKmsKey !== undefined && { VolumeKmsKeyId: options.volumeKmsKey }),
      ...(options.keepAlivePeriodInSeconds !== undefined && {
        KeepAlivePeriodInSeconds: options.keepAlivePeriodInSeconds,
      }),
    },
    StoppingCondition: {
      MaxRuntimeInSeconds: options.maxRun ?? 86_400,
      ...(options.maxWait && { MaxWaitTimeInSeconds: options.maxWait }),
    },
    ...(parts.channels.length > 0 && { InputDataConfig: parts.channels }),
    ...(Object.keys(parts.hyperparameters).length > 0 && { HyperParameters: parts.hyperparameters }),
    ...(options.environment && { Environment: { ...options.environment } }),
    ...(options.tags?.length && { Tags: [...options.tags] }),
    ...(options.subnets &&
      options.securityGroupIds && {
        VpcConfig: { Subnets: [...options.subnets], SecurityGroupIds: [...options.securityGroupIds] },
      }),
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
    ...debuggerMembers(options, parts),
  };
}

/** Sent even when the user says nothing. */
function debuggerMembers(
  options: CommonOptions,
  parts: RequestParts,
): Pick<CreateTrainingJobRequest, 'DebugHookConfig' | 'ProfilerConfig'> {
  const isSupported = !NO_DEBUGGER.includes(parts.region);
  const keepsCheckpoints =
    parts.isFramework && options.checkpointS3Uri !== undefined && options.checkpointLocalPath !== undefined;
  const hasHook = isSupported && !keepsCheckpoints && options.debuggerHookConfig !== false;
  const isProfiled = isSupported && !options.disableProfiler && !parts.instanceType.startsWith('ml.trn');
  return {
    ...(hasHook && { DebugHookConfig: { S3OutputPath: parts.outputPath, CollectionConfigurations: [] } }),
    ProfilerConfig: isProfiled
      ? { S3OutputPath: parts.outputPath, DisableProfiler: false }
      : { DisableProfiler: true },
  };
}
