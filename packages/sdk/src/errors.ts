import { ServiceError } from '@trainyard/api';
import type { DescribeTrainingJobResponse } from '@trainyard/api';
import { describeProblem } from './problem.ts';
import type { Problem } from './problem.ts';
import type { ProblemId } from './problem-catalogue.ts';

/** The service answered with an error: `code`, `status` and `actor` say which and who must act. */
export { ServiceError as RequestRefused };

/** One or more options of an estimator, of `fit` or of a session cannot be used; nothing was sent. */
export class InvalidOption extends Error {
  override readonly name = 'InvalidOption';
  /** Every problem found; the fields below are those of the first. */
  readonly problems: readonly Problem[];
  readonly id: ProblemId;
  readonly field: string;
  readonly value: unknown;
  readonly rule: string;
  readonly nextStep: string;

  constructor(problems: readonly [Problem, ...Problem[]], options?: ErrorOptions) {
    super(problems.map(describeProblem).join('\n'), options);
    this.problems = problems;
    const [first] = problems;
    this.id = first.id;
    this.field = first.field;
    this.value = first.value;
    this.rule = first.rule;
    this.nextStep = first.nextStep;
  }
}

/** @throws InvalidOption when there is any problem. */
export function throwIfAny(problems: readonly Problem[]): void {
  const [first, ...rest] = problems;
  if (first) throw new InvalidOption([first, ...rest]);
}

/** A training job that ended otherwise than Completed. */
export abstract class TrainingDidNotComplete extends Error {
  readonly jobName: string;
  /** As DescribeTrainingJob answered after the end. */
  readonly description: DescribeTrainingJobResponse;
  /** `FailureReason`, or the message of the last transition. */
  readonly reason: string;

  constructor(description: DescribeTrainingJobResponse, ended: string) {
    const reason =
      description.FailureReason ?? description.SecondaryStatusTransitions?.at(-1)?.StatusMessage ?? '';
    super(`Training job ${description.TrainingJobName} ${ended}${reason ? `: ${reason}` : ''}`);
    this.jobName = description.TrainingJobName;
    this.description = description;
    this.reason = reason;
  }
}

/** The script or something around it failed; `reason` starts with who must act, as on AWS. */
export class TrainingFailed extends TrainingDidNotComplete {
  override readonly name = 'TrainingFailed';

  constructor(description: DescribeTrainingJobResponse) {
    super(description, 'failed');
  }
}

/** Somebody stopped the job; what it had written was uploaded. */
export class TrainingStopped extends TrainingDidNotComplete {
  override readonly name = 'TrainingStopped';

  constructor(description: DescribeTrainingJobResponse) {
    super(description, 'was stopped');
  }
}

/** The job reached `maxRun` and was stopped; what it had written was uploaded. */
export class MaxRuntimeExceeded extends TrainingDidNotComplete {
  override readonly name = 'MaxRuntimeExceeded';

  constructor(description: DescribeTrainingJobResponse) {
    super(
      description,
      `ran longer than ${description.StoppingCondition.MaxRuntimeInSeconds ?? '?'} s (maxRun)`,
    );
  }
}

/** The job waited for capacity longer than `maxWait`. */
export class MaxWaitTimeExceeded extends TrainingDidNotComplete {
  override readonly name = 'MaxWaitTimeExceeded';

  constructor(description: DescribeTrainingJobResponse) {
    super(
      description,
      `waited longer than ${description.StoppingCondition.MaxWaitTimeInSeconds ?? '?'} s (maxWait)`,
    );
  }
}

/** The typed error for a terminal description; null when the job completed. */
export function errorOfEnd(description: DescribeTrainingJobResponse): TrainingDidNotComplete | null {
  switch (description.SecondaryStatus) {
    case 'MaxRuntimeExceeded':
      return new MaxRuntimeExceeded(description);
    case 'MaxWaitTimeExceeded':
      return new MaxWaitTimeExceeded(description);
    default:
      break;
  }
  switch (description.TrainingJobStatus) {
    case 'Failed':
      return new TrainingFailed(description);
    case 'Stopped':
      return new TrainingStopped(description);
    default:
      return null;
  }
}

/** No service answered at the endpoint, or the embedded one could not be started. */
export class ServiceUnavailable extends Error {
  override readonly name = 'ServiceUnavailable';
  /** URL, or the data directory of the embedded service. */
  readonly endpoint: string;
  /** Last lines of the embedded service's log, oldest first; empty when there are none. */
  readonly logTail: readonly string[];

  constructor(
    endpoint: string,
    problem: string,
    options: { logTail?: readonly string[]; cause?: unknown } = {},
  ) {
    const logTail = options.logTail ?? [];
    super([problem, ...logTail.map((line) => `  ${line}`)].join('\n'), { cause: options.cause });
    this.endpoint = endpoint;
    this.logTail = logTail;
  }
}
