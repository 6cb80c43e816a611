import type { DescribeTrainingJobResponse, PythonValue } from '@trainyard/api';
import { decodeHyperparameter } from '@trainyard/api';
import type { CommonOptions, SourceOptions } from './estimator-options.ts';
import { baseOfJobName } from './job-name.ts';
import { Session } from './session.ts';
import { TrainingJob } from './training-job.ts';

export interface AttachOptions {
  /** @default new Session() */
  session?: Session;
  /**
   * Return when the job has ended, throwing unless it completed.
   * @default true
   */
  wait?: boolean;
}

export interface AttachedJob {
  job: TrainingJob;
  common: CommonOptions;
  /** Null when the job has no script. */
  source: SourceOptions | null;
  imageUri: string;
  /** The decoded `sagemaker_*` hyperparameters. */
  flags: Record<string, PythonValue>;
}

/** The options that a job was made with, as far as its description holds them. */
export async function attachOptions(jobName: string, options: AttachOptions): Promise<AttachedJob> {
  const session = options.session ?? new Session();
  const job = new TrainingJob(jobName, session);
  const description = await job.describe();
  const tags = await session.use(({ sagemaker }) =>
    sagemaker.call('ListTags', { ResourceArn: description.TrainingJobArn }),
  );
  const flags: Record<string, PythonValue> = {};
  const hyperparameters: Record<string, PythonValue> = {};
  for (const [key, value] of Object.entries(description.HyperParameters ?? {})) {
    if (key === '_tuning_objective_metric') continue;
    (key.startsWith('sagemaker_') ? flags : hyperparameters)[key] = decodeHyperparameter(value);
  }
  // With the flag of AWS's libraries they are those of model parallelism and come back as `distribution`.
  if (
    'sagemaker_distributed_dataparallel_enabled' in flags &&
    hyperparameters['mp_parameters'] !== undefined
  ) {
    flags['mp_parameters'] = hyperparameters['mp_parameters'];
    delete hyperparameters['mp_parameters'];
  }
  return {
    job,
    common: { ...commonOptions(description), session, hyperparameters, tags: tags.Tags ?? [] },
    source: sourceOptions(flags, description),
    imageUri: description.AlgorithmSpecification?.TrainingImage ?? '',
    flags,
  };
}

function commonOptions(job: DescribeTrainingJobResponse): CommonOptions {
  const { AlgorithmSpecification: algorithm, OutputDataConfig: output, ResourceConfig: resources } = job;
  const { VpcConfig: vpc, CheckpointConfig: checkpoint, StoppingCondition: stopping } = job;
  return {
    baseJobName: baseOfJobName(job.TrainingJobName),
    maxRun: stopping.MaxRuntimeInSeconds,
    maxWait: stopping.MaxWaitTimeInSeconds,
    role: job.RoleArn,
    ...hostsOf(resources),
    volumeSize: resources?.VolumeSizeInGB,
    volumeKmsKey: resources?.VolumeKmsKeyId,
    keepAlivePeriodInSeconds: resources?.KeepAlivePeriodInSeconds,
    inputMode: algorithm?.TrainingInputMode,
    metricDefinitions: algorithm?.MetricDefinitions,
    enableSageMakerMetrics: algorithm?.EnableSageMakerMetricsTimeSeries,
    containerEntryPoint: algorithm?.ContainerEntrypoint,
    containerArguments: algorithm?.ContainerArguments,
    outputPath: output?.S3OutputPath,
    outputKmsKey: output?.KmsKeyId || undefined,
    disableOutputCompression: output?.CompressionType === 'NONE',
    checkpointS3Uri: checkpoint?.S3Uri,
    checkpointLocalPath: checkpoint?.LocalPath,
    environment: job.Environment,
    subnets: vpc?.Subnets,
    securityGroupIds: vpc?.SecurityGroupIds,
    enableNetworkIsolation: job.EnableNetworkIsolation,
    encryptInterContainerTraffic: job.EnableInterContainerTrafficEncryption,
    useSpotInstances: job.EnableManagedSpotTraining,
    maxRetryAttempts: job.RetryStrategy?.MaximumRetryAttempts,
    // A hook that AWS's SDK leaves out by itself is left out again.
    debuggerHookConfig: job.DebugHookConfig !== undefined,
    disableProfiler: job.ProfilerConfig?.DisableProfiler,
    trainingPlan: resources?.TrainingPlanArn,
    trainingRepositoryAccessMode: algorithm?.TrainingImageConfig?.TrainingRepositoryAccessMode,
    trainingRepositoryCredentialsProviderArn:
      algorithm?.TrainingImageConfig?.TrainingRepositoryAuthConfig?.TrainingRepositoryCredentialsProviderArn,
    enableInfraCheck: job.InfraCheckConfig?.EnableInfraCheck,
    enableRemoteDebug: job.RemoteDebugConfig?.EnableRemoteDebug,
  };
}

function hostsOf(
  resources: DescribeTrainingJobResponse['ResourceConfig'],
): Pick<CommonOptions, 'instanceCount' | 'instanceType' | 'instanceGroups'> {
  const groups = resources?.InstanceGroups;
  if (!groups || groups.length === 0)
    return { instanceCount: resources?.InstanceCount, instanceType: resources?.InstanceType };
  return {
    instanceGroups: groups.map((group) => ({
      instanceGroupName: group.InstanceGroupName,
      instanceType: group.InstanceType,
      instanceCount: group.InstanceCount,
    })),
  };
}

function sourceOptions(
  flags: Readonly<Record<string, PythonValue>>,
  job: DescribeTrainingJobResponse,
): SourceOptions | null {
  const program = flags['sagemaker_program'];
  // Under network isolation the directory is a path on the host, and the code's address that of a channel.
  const codeChannel =
    job.EnableNetworkIsolation && job.InputDataConfig?.find((channel) => channel.ChannelName === 'code');
  const directory =
    (codeChannel && codeChannel.DataSource.S3DataSource?.S3Uri) || flags['sagemaker_submit_directory'];
  const level = flags['sagemaker_container_log_level'];
  if (typeof program !== 'string') return null;
  return {
    entryPoint: program,
    ...(typeof directory === 'string' && { sourceDir: directory }),
    ...(typeof level === 'number' && { containerLogLevel: level }),
  };
}
