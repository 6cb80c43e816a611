import { throwIfAny } from '../errors.ts';
import type { Hyperparameters } from '../estimator-options.ts';
import type { JobPlan } from '../job-plan.ts';
import { ProblemList } from '../problem.ts';
import { Session } from '../session.ts';
import { submitJob } from '../submit-job.ts';
import type { TrainingJob } from '../training-job.ts';
import { checkTrainer } from './check-trainer.ts';
import type { TrainNaming } from './plan-training.ts';
import { planTraining } from './plan-training.ts';
import type { CheckpointConfig, InputData, ModelTrainerOptions } from './trainer-options.ts';

/** What the `with…` methods add. */
export interface LaterOptions {
  metricDefinitions: readonly { name: string; regex: string }[];
  retryStrategy?: { maximumRetryAttempts: number };
  remoteDebugConfig?: { enableRemoteDebug: boolean };
  infraCheckConfig?: { enableInfraCheck: boolean };
  sessionChainingConfig?: { enableSessionTagChaining: boolean };
  tensorBoardOutputConfig?: { s3OutputPath?: string; localPath?: string };
}

export interface TrainOptions {
  /** Channels of this job; one with the name of a channel of the trainer replaces it. */
  inputDataConfig?: readonly InputData[];
  /** Return when the job has ended, throwing unless it completed. @default true */
  wait?: boolean;
  /** Write log lines to standard output while waiting. @default true */
  logs?: boolean;
  /** At most 63 letters, digits and hyphens; must be new. @default base name and time */
  jobName?: string;
  /** Ends the waiting, not the job. */
  signal?: AbortSignal;
}

/**
 * A training job in the grammar of version 3 of SageMaker's Python SDK: any image that has Python runs the script, and
 * what starts it goes with the job.
 *
 * ```ts no-run: trains a model
 * const trainer = new ModelTrainer({
 *   sourceCode: { sourceDir: 'src', entryScript: 'train.py', requirements: 'requirements.txt' },
 *   compute: { instanceCount: 2 },
 *   distributed: new Torchrun({ processCountPerNode: 2 }),
 *   hyperparameters: { epochs: 3 },
 * });
 * await trainer.train({ inputDataConfig: [{ channelName: 'train', dataSource: './data' }] });
 * ```
 */
export class ModelTrainer {
  readonly session: Session;
  /** The job of the last `train`, null before. */
  latestTrainingJob: TrainingJob | null = null;
  readonly #options: ModelTrainerOptions;
  readonly #hyperparameters: Hyperparameters;
  #later: LaterOptions = { metricDefinitions: [] };

  /** @throws InvalidOption with every problem of the options */
  constructor(options: ModelTrainerOptions) {
    this.session = options.session ?? new Session();
    this.#options = { ...options };
    const problems = this.#problems();
    this.#hyperparameters = { ...checkTrainer(options, problems) };
    throwIfAny(problems.errors);
    this.session.warn(problems.warnings);
  }

  /**
   * Starts a training job and, by default, follows it to its end.
   * @returns the job; with `wait` it has completed
   * @throws as {@link EstimatorBase.fit}
   */
  async train(options: TrainOptions = {}): Promise<TrainingJob> {
    const { wait = true, logs = true, signal, jobName } = options;
    const plan = await this.render(options.inputDataConfig, jobName === undefined ? {} : { jobName });
    const job = await submitJob(plan, this.session);
    this.latestTrainingJob = job;
    if (!wait) return job;
    const follow = signal ? { signal } : {};
    if (logs) await job.logs(follow);
    else await job.wait(follow);
    return job;
  }

  /** What {@link train} would send: nothing is uploaded and no job is made. */
  async render(inputs: readonly InputData[] = [], naming: TrainNaming = {}): Promise<JobPlan> {
    const spec = { options: this.#options, later: this.#later, hyperparameters: this.#hyperparameters };
    return await planTraining(spec, this.session, this.#problems(), inputs, naming);
  }

  /** Attempts when the platform fails, 1 to 30. @returns this trainer, as all `with…` methods */
  withRetryStrategy(retryStrategy: { maximumRetryAttempts: number }): this {
    return this.#with({ retryStrategy });
  }

  /** Metrics read from the log: the first group of each pattern is the value. At most 40. */
  withMetricDefinitions(metricDefinitions: readonly { name: string; regex: string }[]): this {
    return this.#with({ metricDefinitions: [...metricDefinitions] });
  }

  withRemoteDebugConfig(remoteDebugConfig: { enableRemoteDebug: boolean }): this {
    return this.#with({ remoteDebugConfig });
  }

  withInfraCheckConfig(infraCheckConfig: { enableInfraCheck: boolean } = { enableInfraCheck: true }): this {
    return this.#with({ infraCheckConfig });
  }

  withSessionChainingConfig(
    sessionChainingConfig: { enableSessionTagChaining: boolean } = { enableSessionTagChaining: true },
  ): this {
    return this.#with({ sessionChainingConfig });
  }

  withTensorBoardOutputConfig(
    tensorBoardOutputConfig: { s3OutputPath?: string; localPath?: string } = {},
  ): this {
    return this.#with({ tensorBoardOutputConfig });
  }

  withCheckpointConfig(checkpointConfig: CheckpointConfig = {}): this {
    (this.#options as { checkpointConfig?: CheckpointConfig }).checkpointConfig = checkpointConfig;
    return this;
  }

  #with(change: Partial<LaterOptions>): this {
    this.#later = { ...this.#later, ...change };
    return this;
  }

  #problems(): ProblemList {
    return new ProblemList({
      onAws: this.session.options.on === 'aws',
      strict: this.#options.strict ?? false,
    });
  }
}
