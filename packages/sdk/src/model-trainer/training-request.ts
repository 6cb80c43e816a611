import type { Channel, CreateTrainingJobRequest, TrainingInputMode } from '@trainyard/api';
import { instanceGroupMembers } from '../instance-groups.ts';
import type { TrainingSpec } from './plan-training.ts';

const DRIVERS = '/opt/ml/input/data/sm_drivers/sm_train.sh';
const MAX_RUNTIME_SECONDS = 3600;

export interface TrainingParts {
  jobName: string;
  roleArn: string;
  image: string;
  /** Null with instance groups. */
  instanceType: string | null;
  channels: Channel[];
  inputMode: TrainingInputMode;
  outputPath: string;
  checkpointUri: string | undefined;
  /** Encoded. */
  hyperparameters: Record<string, string>;
}

/** The CreateTrainingJob body that version 3 of SageMaker's Python SDK sends for the same options. */
export function trainingRequest(
  { options, later }: TrainingSpec,
  parts: TrainingParts,
): CreateTrainingJobRequest {
  const { networking = {}, checkpointConfig, environment, tags = [] } = options;
  const { subnets, securityGroupIds, enableNetworkIsolation, enableInterContainerTrafficEncryption } =
    networking;
  return {
    TrainingJobName: parts.jobName,
    RoleArn: parts.roleArn,
    AlgorithmSpecification: algorithm({ options, later }, parts),
    HyperParameters: parts.hyperparameters,
    ...(parts.channels.length > 0 && { InputDataConfig: parts.channels }),
    OutputDataConfig: {
      S3OutputPath: parts.outputPath,
      CompressionType: options.outputDataConfig?.compressionType ?? 'GZIP',
      ...(options.outputDataConfig?.kmsKeyId !== undefined && {
        KmsKeyId: options.outputDataConfig.kmsKeyId,
      }),
    },
    ResourceConfig: resources(options, parts),
    StoppingCondition: stopping(options),
    ...(subnets &&
      securityGroupIds && {
        VpcConfig: { Subnets: [...subnets], SecurityGroupIds: [...securityGroupIds] },
      }),
    ...(environment && Object.keys(environment).length > 0 && { Environment: { ...environment } }),
    ...(tags.length > 0 && { Tags: tags.map(({ key, value }) => ({ Key: key, Value: value })) }),
    ...(options.compute?.enableManagedSpotTraining !== undefined && {
      EnableManagedSpotTraining: options.compute.enableManagedSpotTraining,
    }),
    ...(enableNetworkIsolation !== undefined && { EnableNetworkIsolation: enableNetworkIsolation }),
    ...(enableInterContainerTrafficEncryption !== undefined && {
      EnableInterContainerTrafficEncryption: enableInterContainerTrafficEncryption,
    }),
    ...(parts.checkpointUri !== undefined && {
      CheckpointConfig: {
        S3Uri: parts.checkpointUri,
        LocalPath: checkpointConfig?.localPath ?? '/opt/ml/checkpoints',
      },
    }),
    ...(later.retryStrategy && {
      RetryStrategy: { MaximumRetryAttempts: later.retryStrategy.maximumRetryAttempts },
    }),
    ...(later.remoteDebugConfig && {
      RemoteDebugConfig: { EnableRemoteDebug: later.remoteDebugConfig.enableRemoteDebug },
    }),
    ...(later.infraCheckConfig && {
      InfraCheckConfig: { EnableInfraCheck: later.infraCheckConfig.enableInfraCheck },
    }),
    ...(later.sessionChainingConfig && {
      SessionChainingConfig: {
        EnableSessionTagChaining: later.sessionChainingConfig.enableSessionTagChaining,
      },
    }),
    ...(later.tensorBoardOutputConfig && {
      TensorBoardOutputConfig: {
        S3OutputPath: later.tensorBoardOutputConfig.s3OutputPath ?? parts.outputPath,
        LocalPath: later.tensorBoardOutputConfig.localPath ?? '/opt/ml/output/tensorboard',
      },
    }),
  };
}

function algorithm(
  { options, later }: Pick<TrainingSpec, 'options' | 'later'>,
  parts: TrainingParts,
): CreateTrainingJobRequest['AlgorithmSpecification'] {
  const { trainingImageConfig: access } = options;
  const provider = access?.trainingRepositoryAuthConfig?.trainingRepositoryCredentialsProviderArn;
  return {
    TrainingInputMode: parts.inputMode,
    TrainingImage: parts.image,
    ...(access && {
      TrainingImageConfig: {
        TrainingRepositoryAccessMode: access.trainingRepositoryAccessMode,
        ...(provider !== undefined && {
          TrainingRepositoryAuthConfig: { TrainingRepositoryCredentialsProviderArn: provider },
        }),
      },
    }),
    ...(later.metricDefinitions.length > 0 && {
      MetricDefinitions: later.metricDefinitions.map(({ name, regex }) => ({ Name: name, Regex: regex })),
    }),
    ...(options.sourceCode && {
      ContainerEntrypoint: ['/bin/bash'],
      ContainerArguments: ['-c', `chmod +x ${DRIVERS} && ${DRIVERS}`],
    }),
  };
}

function resources(
  { compute = {} }: TrainingSpec['options'],
  { instanceType }: TrainingParts,
): CreateTrainingJobRequest['ResourceConfig'] {
  return {
    ...(instanceType !== null && { InstanceType: instanceType, InstanceCount: compute.instanceCount ?? 1 }),
    ...(compute.instanceGroups && { InstanceGroups: instanceGroupMembers(compute.instanceGroups) }),
    VolumeSizeInGB: compute.volumeSizeInGb ?? 30,
    ...(compute.volumeKmsKeyId !== undefined && { VolumeKmsKeyId: compute.volumeKmsKeyId }),
    ...(compute.keepAlivePeriodInSeconds !== undefined && {
      KeepAlivePeriodInSeconds: compute.keepAlivePeriodInSeconds,
    }),
    ...(compute.trainingPlanArn !== undefined && { TrainingPlanArn: compute.trainingPlanArn }),
    ...(compute.instancePlacementConfig && { InstancePlacementConfig: compute.instancePlacementConfig }),
  };
}

function stopping({
  stoppingCondition = {},
}: TrainingSpec['options']): CreateTrainingJobRequest['StoppingCondition'] {
  const { maxRuntimeInSeconds, maxWaitTimeInSeconds, maxPendingTimeInSeconds } = stoppingCondition;
  return {
    MaxRuntimeInSeconds: maxRuntimeInSeconds ?? MAX_RUNTIME_SECONDS,
    ...(maxWaitTimeInSeconds !== undefined && { MaxWaitTimeInSeconds: maxWaitTimeInSeconds }),
    ...(maxPendingTimeInSeconds !== undefined && { MaxPendingTimeInSeconds: maxPendingTimeInSeconds }),
  };
}
