/**
 * The life of a job as tables. `Stage` is where the current attempt stands; it decides what the reconcile loop
 * does next. `TrainingJobStatus` and `SecondaryStatus` are what AWS clients see and follow from it.
 */
export type TrainingJobStatus = 'InProgress' | 'Completed' | 'Failed' | 'Stopping' | 'Stopped' | 'Deleting';

export type SecondaryStatus =
  | 'Starting'
  | 'Pending'
  | 'Downloading'
  | 'Training'
  | 'Uploading'
  | 'Restarting'
  | 'Stopping'
  | 'Stopped'
  | 'MaxRuntimeExceeded'
  | 'MaxWaitTimeExceeded'
  | 'Completed'
  | 'Failed';

export type Stage =
  | 'queued' // waits for hosts
  | 'launching' // hosts are reserved; the executor starts them
  | 'preparing' // agents bring data and code
  | 'training' // ranks run
  | 'ending' // some rank or host ended, or a stop was asked for: every host must come to `exited`
  | 'uploading' // artifacts
  | 'closing' // the end is decided; hosts are being removed
  | 'done';

/** Which stage may follow which; the store refuses anything else. */
export const NEXT_STAGES: Record<Stage, readonly Stage[]> = {
  queued: ['launching', 'closing', 'done'],
  launching: ['preparing', 'ending', 'closing'],
  preparing: ['training', 'ending', 'closing'],
  training: ['ending', 'closing'],
  ending: ['uploading', 'closing'],
  uploading: ['closing'],
  closing: ['done', 'queued'], // queued again: another attempt
  done: [],
};

/** Stages in which an attempt holds hosts. */
export const HOLDS_HOSTS: Record<Stage, boolean> = {
  queued: false,
  launching: true,
  preparing: true,
  training: true,
  ending: true,
  uploading: true,
  closing: true,
  done: false,
};

/**
 * The transitions clients see, in AWS's words where those are known.
 * https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_SecondaryStatusTransition.html
 */
export const TRANSITIONS = {
  accepted: { status: 'InProgress', secondary: 'Starting', message: 'Starting the training job' },
  pending: { status: 'InProgress', secondary: 'Pending', message: 'Waiting for hosts' },
  launching: {
    status: 'InProgress',
    secondary: 'Starting',
    message: 'Preparing the instances for training',
  },
  downloading: { status: 'InProgress', secondary: 'Downloading', message: 'Downloading input data' },
  training: {
    status: 'InProgress',
    secondary: 'Training',
    message: 'Training image download completed. Training in progress.',
  },
  uploading: {
    status: 'InProgress',
    secondary: 'Uploading',
    message: 'Uploading generated training model',
  },
  restarting: { status: 'InProgress', secondary: 'Restarting', message: 'Restarting the training job' },
  stopping: { status: 'Stopping', secondary: 'Stopping', message: 'Stopping the training job' },
  stoppingUpload: {
    status: 'Stopping',
    secondary: 'Uploading',
    message: 'Uploading generated training model',
  },
  completed: { status: 'Completed', secondary: 'Completed', message: 'Training job completed' },
  failed: { status: 'Failed', secondary: 'Failed', message: 'Training job failed' },
  stopped: { status: 'Stopped', secondary: 'Stopped', message: 'Training job stopped' },
  maxRuntime: {
    status: 'Stopped',
    secondary: 'MaxRuntimeExceeded',
    message: 'Training job runtime exceeded MaxRuntimeInSeconds provided',
  },
  maxWait: {
    status: 'Stopped',
    secondary: 'MaxWaitTimeExceeded',
    message: 'Training job wait time exceeded MaxWaitTimeInSeconds provided',
  },
} as const satisfies Record<
  string,
  { status: TrainingJobStatus; secondary: SecondaryStatus; message: string }
>;

export type TransitionName = keyof typeof TRANSITIONS;

/** How an attempt ended; the reconcile loop turns it into the last transition or another attempt. */
export type Outcome =
  | { kind: 'completed' }
  | { kind: 'failed'; reason: string; retryable: boolean }
  | { kind: 'stopped' }
  | { kind: 'max_runtime' }
  | { kind: 'max_wait' };

export const OUTCOME_TRANSITION: Record<Outcome['kind'], TransitionName> = {
  completed: 'completed',
  failed: 'failed',
  stopped: 'stopped',
  max_runtime: 'maxRuntime',
  max_wait: 'maxWait',
};

export function isTerminal(status: TrainingJobStatus): boolean {
  return status === 'Completed' || status === 'Failed' || status === 'Stopped';
}
