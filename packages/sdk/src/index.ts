export { PythonFloat } from '@trainyard/api';
export type {
  Credentials,
  CredentialsSource,
  DescribeTrainingJobResponse,
  PythonValue,
} from '@trainyard/api';
export type { AttachOptions } from './attach.ts';
export type { Connection } from './connection.ts';
export type {
  DebuggerHookConfig,
  DebuggerRule,
  ProfilerConfig,
  TensorBoardOutputConfig,
} from './debugger-options.ts';
export type {
  AnyDistribution,
  CompilerDistribution,
  DataParallel,
  HuggingFaceDistribution,
  InstanceGroupChoice,
  ModelParallel,
  ModelParallelParameters,
  Mpi,
  MpiOptions,
  MultiWorkerMirroredStrategy,
  MXNetDistribution,
  ParameterServer,
  PyTorchDdp,
  PyTorchDistribution,
  PyTorchXla,
  SmDistributed,
  TensorFlowDistribution,
  TorchDistributed,
} from './distribution/distribution.ts';
export {
  defaultDataDirectory,
  readServiceCredentials,
  readServiceRecord,
} from './embedded/data-directory.ts';
export type { ServiceCredentials, ServiceRecord } from './embedded/data-directory.ts';
export type { Environment } from './environment.ts';
export {
  InvalidOption,
  MaxRuntimeExceeded,
  MaxWaitTimeExceeded,
  RequestRefused,
  ServiceUnavailable,
  TrainingDidNotComplete,
  TrainingFailed,
  TrainingStopped,
} from './errors.ts';
export { Estimator } from './estimator.ts';
export type { EstimatorOptions } from './estimator.ts';
export type { EstimatorBase, FitOptions } from './estimator-base.ts';
export type { CommonOptions, Hyperparameters, SourceOptions } from './estimator-options.ts';
export type { TrainingJobEvent } from './follow/job-event.ts';
export { HuggingFace } from './frameworks/hugging-face.ts';
export type { HuggingFaceOptions } from './frameworks/hugging-face.ts';
export { MXNet } from './frameworks/mxnet.ts';
export type { MXNetOptions } from './frameworks/mxnet.ts';
export { PyTorch } from './frameworks/pytorch.ts';
export type { PyTorchOptions } from './frameworks/pytorch.ts';
export { TensorFlow } from './frameworks/tensorflow.ts';
export type { TensorFlowOptions } from './frameworks/tensorflow.ts';
export type { TrainingCompilerConfig } from './frameworks/training-compiler.ts';
export { FileSystemInput, TrainingInput } from './inputs.ts';
export type { FileSystemInputOptions, Input, Inputs, TrainingInputOptions } from './inputs.ts';
export type { InstanceGroup } from './instance-groups.ts';
export type { JobPlan, PlannedUpload } from './job-plan.ts';
export { MPI, SMP, Torchrun } from './model-trainer/distributed.ts';
export type {
  DistributedConfig,
  MPIOptions,
  SMPOptions,
  TorchrunOptions,
} from './model-trainer/distributed.ts';
export { ModelTrainer } from './model-trainer/model-trainer.ts';
export type { TrainOptions } from './model-trainer/model-trainer.ts';
export type {
  CheckpointConfig,
  Compute,
  InputData,
  ModelTrainerOptions,
  Networking,
  OutputDataConfig,
  SourceCode,
  StoppingCondition,
  TrainingImageConfig,
} from './model-trainer/trainer-options.ts';
export type { ExperimentOptions, NamingOptions } from './plan-job.ts';
export { LogPrinter } from './log-printer.ts';
export type { PrintTarget } from './log-printer.ts';
export type { Problem, WarningHandler } from './problem.ts';
export { PROBLEMS } from './problem-catalogue.ts';
export type { ProblemId } from './problem-catalogue.ts';
export { Session } from './session.ts';
export type { SessionOptions } from './session.ts';
export type { GitConfig } from './source/git-config.ts';
export { TrainingJob } from './training-job.ts';
export type { FollowOptions } from './training-job.ts';
export type { TrainyardApi, TrainyardJob } from './trainyard-api.ts';
