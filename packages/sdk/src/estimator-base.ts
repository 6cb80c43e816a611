import type { DescribeTrainingJobResponse } from '@trainyard/api';
import { InvalidOption, throwIfAny } from './errors.ts';
import type { CommonOptions } from './estimator-options.ts';
import { checkOptions } from './estimator-rules.ts';
import type { Inputs } from './inputs.ts';
import { DEFAULT_INSTANCE_TYPE, LOCAL_MODE_TYPES } from './instance-types.ts';
import type { JobPlan } from './job-plan.ts';
import type { EstimatorProfile, EstimatorSpec, ExperimentOptions, NamingOptions } from './plan-job.ts';
import { planJob } from './plan-job.ts';
import { ProblemList } from './problem.ts';
import { Session } from './session.ts';
import { submitJob } from './submit-job.ts';
import type { TrainingJob } from './training-job.ts';

/** What a class of estimators may look at while it makes its profile. */
export interface ProfileContext {
  /** As the request will say it; null with instance groups. */
  instanceType: string | null;
  problems: ProblemList;
}

export interface FitOptions {
  /**
   * Return when the job has ended, throwing unless it completed.
   * @default true
   */
  wait?: boolean;
  /**
   * Write log lines to standard output while waiting.
   * @default true
   */
  logs?: boolean | 'All' | 'Training' | 'None';
  /**
   * At most 63 letters, digits and hyphens; must be new.
   * @default base name and time
   */
  jobName?: string;
  /** Experiment and trial of SageMaker that the job belongs to. */
  experimentConfig?: ExperimentOptions;
  /** Ends the waiting, not the job. */
  signal?: AbortSignal;
}

/** What all estimators do; see {@link Estimator} and {@link PyTorch}. */
export abstract class EstimatorBase {
  readonly session: Session;
  /** The job of the last `fit`, null before. */
  latestTrainingJob: TrainingJob | null = null;
  /** The jobs of every `fit`, oldest first. */
  readonly jobs: TrainingJob[] = [];
  readonly #spec: EstimatorSpec;

  protected constructor(options: CommonOptions, makeProfile: (context: ProfileContext) => EstimatorProfile) {
    this.session = options.session ?? new Session();
    const problems = problemsFor(this.session, options);
    checkOptions(options, problems);
    const type = options.instanceType ?? DEFAULT_INSTANCE_TYPE;
    const instanceType = options.instanceGroups ? null : (LOCAL_MODE_TYPES[type] ?? type);
    const profile = makeProfile({ instanceType, problems });
    throwIfAny(problems.errors);
    this.session.warn(problems.warnings);
    const hyperparameters = { ...options.hyperparameters };
    this.#spec = { options: { ...options, hyperparameters }, profile, instanceType };
  }

  /**
   * Starts a training job and, by default, follows it to its end.
   *
   * @param inputs an S3 URI, a local path or an input object for the channel `training`, or channels by name
   * @returns the job; with `wait` it has completed
   * @throws InvalidOption before anything is sent; RequestRefused, ServiceUnavailable; with `wait` also TrainingFailed,
   * TrainingStopped, MaxRuntimeExceeded, MaxWaitTimeExceeded
   */
  async fit(inputs?: Inputs, options: FitOptions = {}): Promise<TrainingJob> {
    const { wait = true, logs = true, signal, jobName, experimentConfig } = options;
    const plan = await this.render(inputs, {
      ...(jobName !== undefined && { jobName }),
      ...(experimentConfig && { experimentConfig }),
    });
    const job = await submitJob(plan, this.session);
    this.latestTrainingJob = job;
    this.jobs.push(job);
    if (!wait) return job;
    const follow = signal ? { signal } : {};
    if (logs === false || logs === 'None') await job.wait(follow);
    else await job.logs(follow);
    return job;
  }

  /**
   * What {@link fit} would send: nothing is uploaded and no job is made. A local directory that the embedded service
   * will use in place is registered there.
   */
  async render(inputs?: Inputs, naming: NamingOptions = {}): Promise<JobPlan> {
    const problems = problemsFor(this.session, this.#spec.options);
    return await planJob(this.#spec, this.session, problems, inputs, naming);
  }

  /** Follows the latest job's log to its end. @throws as `fit` with `wait` */
  async logs(): Promise<DescribeTrainingJobResponse> {
    return await this.#latest().logs();
  }

  /** Waits for the latest job's end. @throws as `fit` with `wait` */
  async wait(): Promise<DescribeTrainingJobResponse> {
    return await this.#latest().wait();
  }

  /** Asks the latest job to stop. */
  async stop(): Promise<void> {
    await this.#latest().stop();
  }

  async describe(): Promise<DescribeTrainingJobResponse> {
    return await this.#latest().describe();
  }

  /** S3 URI of the latest job's model. */
  async modelData(): Promise<string> {
    return await this.#latest().modelData();
  }

  /** Makes an earlier job the latest one and, unless told otherwise, waits for its end. @internal */
  protected async adopt(job: TrainingJob, options: { wait?: boolean }): Promise<void> {
    this.latestTrainingJob = job;
    this.jobs.push(job);
    if (options.wait ?? true) await job.wait();
  }

  #latest(): TrainingJob {
    if (this.latestTrainingJob) return this.latestTrainingJob;
    const [rule, nextStep] = [
      'This estimator has no job yet.',
      'Call fit first, or use attach for an earlier job.',
    ];
    throw new InvalidOption([{ id: 'E-NO-JOB', field: 'latestTrainingJob', value: null, rule, nextStep }]);
  }
}

function problemsFor(session: Session, { strict = false }: CommonOptions): ProblemList {
  return new ProblemList({ onAws: session.options.on === 'aws', strict });
}
