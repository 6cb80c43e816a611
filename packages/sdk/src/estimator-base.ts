import type { Channel, DescribeTrainingJobResponse, PythonValue } from '@trainyard/api';
import {
  encodeHyperparameters,
  formatS3Uri,
  isServiceError,
  joinS3Uri,
  parseS3Uri,
  pythonStr,
  roleArn,
} from '@trainyard/api';
import type { Connection } from './connection.ts';
import { InvalidOption, throwIfAny } from './errors.ts';
import type { CommonOptions, Hyperparameters, SourceOptions } from './estimator-options.ts';
import { checkOptions } from './estimator-rules.ts';
import type { Inputs } from './inputs.ts';
import { jobInputMode, parseInputs, s3Channel } from './inputs.ts';
import { DEFAULT_INSTANCE_TYPE, LOCAL_MODE_TYPES } from './instance-types.ts';
import { baseNameOfImage, JOB_NAME_PATTERN, timestampedName } from './job-name.ts';
import type { JobPlan, PlannedUpload } from './job-plan.ts';
import { placeInputs } from './local-inputs.ts';
import { ProblemList } from './problem.ts';
import { buildRequest } from './request.ts';
import { Session } from './session.ts';
import { TrainingJob } from './training-job.ts';
import { prepareUpload } from './uploads.ts';
import type { PreparedUpload } from './uploads.ts';

/** What one class of estimators adds to the common options. */
export interface EstimatorProfile {
  /** The training image in a region. */
  imageUri(region: string, problems: ProblemList): string;
  source: SourceOptions | null;
  isFramework: boolean;
  /** `sagemaker_*` values of the distribution, not yet encoded. */
  launchHyperparameters: Hyperparameters;
  metricsTimeSeries: boolean | undefined;
}

/** What a class of estimators may look at while it makes its profile. */
export interface ProfileContext {
  /** As the request will say it. */
  instanceType: string;
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
  /** Ends the waiting, not the job. */
  signal?: AbortSignal;
}

const SUBMIT_DIRECTORY_CHANNEL = 'code';
const SOURCE_ARCHIVE = 'sourcedir.tar.gz';
const DEFAULT_ROLE = 'trainyard';

/** What all estimators do; see {@link Estimator} and {@link PyTorch}. */
export abstract class EstimatorBase {
  readonly session: Session;
  /** The job of the last `fit`, null before. */
  latestTrainingJob: TrainingJob | null = null;
  /** The jobs of every `fit`, oldest first. */
  readonly jobs: TrainingJob[] = [];
  readonly #options: CommonOptions;
  readonly #profile: EstimatorProfile;
  readonly #instanceType: string;

  protected constructor(options: CommonOptions, makeProfile: (context: ProfileContext) => EstimatorProfile) {
    this.session = options.session ?? new Session();
    this.#options = { ...options, hyperparameters: { ...options.hyperparameters } };
    const problems = this.#problems();
    checkOptions(options, problems);
    const type = options.instanceType ?? DEFAULT_INSTANCE_TYPE;
    this.#instanceType = LOCAL_MODE_TYPES[type] ?? type;
    this.#profile = makeProfile({ instanceType: this.#instanceType, problems });
    throwIfAny(problems.errors);
    this.session.warn(problems.warnings);
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
    const { wait = true, logs = true, signal } = options;
    const plan = await this.render(inputs, options.jobName === undefined ? {} : { jobName: options.jobName });
    await this.#upload(plan);
    await this.#create(plan);
    const job = new TrainingJob(plan.request.TrainingJobName, this.session);
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
  async render(inputs?: Inputs, options: { jobName?: string; now?: Date } = {}): Promise<JobPlan> {
    const parsed = parseInputs(inputs);
    const connection = await this.session.connect();
    const { region } = connection;
    const keyPrefix = this.session.defaultKeyPrefix;
    const problems = this.#problems();
    this.#checkPlace(connection, problems);
    const image = this.#profile.imageUri(region, problems);
    throwIfAny(problems.errors);
    const jobName = options.jobName ?? this.#makeJobName(image, options.now ?? new Date());
    checkJobName(jobName);

    // Its name may cost a call to STS, so it is asked for only when something goes there.
    let usedBucket: string | null = null;
    const defaultBucket = async (): Promise<string> => {
      usedBucket = await connection.defaultBucket();
      return usedBucket;
    };
    const outputPath = this.#options.outputPath ?? `s3://${await defaultBucket()}/${keyPrefix}`;
    const inputMode = jobInputMode(inputs) ?? this.#options.inputMode ?? 'File';
    const placed = await placeInputs(parsed, {
      jobName,
      jobInputMode: inputMode,
      defaultBucket,
      keyPrefix,
      registerFolder: registration(connection, this.session),
    });
    const code = this.#planCode(jobName, outputPath, keyPrefix);
    const channels = [...placed.channels, ...code.channels];
    checkChannelNames(channels);
    const request = buildRequest(this.#options, {
      jobName,
      roleArn: await this.#roleArn(connection),
      region,
      image,
      instanceType: this.#instanceType,
      instanceCount: this.#options.instanceCount ?? 1,
      outputPath,
      inputMode,
      channels,
      hyperparameters: this.#hyperparameters(jobName, code.submitDirectory, region),
      metricsTimeSeries: this.#options.enableSageMakerMetrics ?? this.#profile.metricsTimeSeries,
      isFramework: this.#profile.isFramework,
    });
    return { request, uploads: [...code.uploads, ...placed.uploads], defaultBucket: usedBucket };
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

  #problems(): ProblemList {
    return new ProblemList({
      onAws: this.session.options.on === 'aws',
      strict: this.#options.strict ?? false,
    });
  }

  #checkPlace({ kind }: Connection, problems: ProblemList): void {
    const { instanceType } = this.#options;
    if (instanceType === undefined || !(instanceType in LOCAL_MODE_TYPES) || kind === 'embedded')
      return;
    problems.refuse({
      id: 'E-LOCAL-SESSION',
      field: 'instanceType',
      value: instanceType,
      rule: 'It names this machine, but the session goes to a service elsewhere.',
      nextStep: "Pass on: 'embedded' to the session, or choose an ml.* type.",
    });
  }

  #makeJobName(image: string, now: Date): string {
    // A repository may hold characters that a job name may not; a base that the user gave is checked instead.
    const base = this.#options.baseJobName ?? baseNameOfImage(image).replace(/[^a-zA-Z0-9]+/g, '-');
    return timestampedName(base, now);
  }

  async #roleArn({ region, accountId }: Connection): Promise<string> {
    const role = this.#options.role ?? DEFAULT_ROLE;
    return role.includes('/') ? role : roleArn({ region, accountId: await accountId() }, role);
  }

  #planCode(
    jobName: string,
    outputPath: string,
    keyPrefix: string,
  ): { submitDirectory: string | null; channels: Channel[]; uploads: PlannedUpload[] } {
    const { source } = this.#profile;
    if (!source) return { submitDirectory: null, channels: [], uploads: [] };
    const uploads: PlannedUpload[] = [];
    let uri = source.sourceDir;
    if (!uri?.startsWith('s3://')) {
      const prefix = this.#options.outputPath === undefined ? keyPrefix : '';
      const base = source.codeLocation ?? formatS3Uri({ bucket: parseS3Uri(outputPath).bucket, key: prefix });
      uri = joinS3Uri(base, jobName, 'source', SOURCE_ARCHIVE);
      const selection = {
        entryPoint: source.entryPoint,
        sourceDir: source.sourceDir ?? null,
        dependencies: source.dependencies ?? [],
      };
      uploads.push({ kind: 'source', ...parseS3Uri(uri), selection });
    }
    if (!this.#options.enableNetworkIsolation) return { submitDirectory: uri, channels: [], uploads };
    // Without a network the launcher cannot fetch its code; it then comes as a channel.
    const channel = s3Channel(SUBMIT_DIRECTORY_CHANNEL, uri, {});
    const submitDirectory = `/opt/ml/input/data/${SUBMIT_DIRECTORY_CHANNEL}/${SOURCE_ARCHIVE}`;
    return { submitDirectory, channels: [channel], uploads };
  }

  #hyperparameters(jobName: string, submitDirectory: string | null, region: string): Record<string, string> {
    const user = this.#options.hyperparameters ?? {};
    const { source } = this.#profile;
    if (!source || submitDirectory === null) {
      return Object.fromEntries(Object.entries(user).map(([key, value]) => [key, pythonStr(value)]));
    }
    const isPath = source.sourceDir !== undefined;
    const script: Record<string, PythonValue> = {
      sagemaker_submit_directory: submitDirectory,
      sagemaker_program: isPath
        ? source.entryPoint
        : (source.entryPoint.split('/').at(-1) ?? source.entryPoint),
      sagemaker_container_log_level: source.containerLogLevel ?? 20,
      sagemaker_job_name: jobName,
      sagemaker_region: region,
    };
    return encodeHyperparameters({ ...user, ...script, ...this.#profile.launchHyperparameters });
  }

  async #upload(plan: JobPlan): Promise<void> {
    const uploads: PreparedUpload[] = [];
    for (const upload of plan.uploads) {
      uploads.push(await prepareUpload(upload, (warning) => this.session.warn([warning])));
    }
    if (plan.defaultBucket !== null) await this.session.ensureDefaultBucket();
    for (const upload of uploads) {
      await this.session.use(({ s3, kind }) =>
        upload.send(s3, kind === 'aws' ? this.#encryptionHeaders(upload.bucket) : {}),
      );
    }
  }

  /** AWS's SDK encrypts code with KMS: with the output's key when it lies in the output's bucket. */
  #encryptionHeaders(bucket: string): Record<string, string> {
    const { outputKmsKey, outputPath } = this.#options;
    const isOutputBucket = outputPath === undefined || parseS3Uri(outputPath).bucket === bucket;
    return {
      'x-amz-server-side-encryption': 'aws:kms',
      ...(outputKmsKey !== undefined &&
        isOutputBucket && { 'x-amz-server-side-encryption-aws-kms-key-id': outputKmsKey }),
    };
  }

  async #create({ request }: JobPlan): Promise<void> {
    const startedAt = Date.now();
    await this.session.use(async ({ sagemaker }) => {
      try {
        await sagemaker.call('CreateTrainingJob', request);
      } catch (error) {
        if (!isServiceError(error, 'ResourceInUse')) throw error;
        // The answer to an earlier try may have been lost: then the job that has this name is this one.
        const found = await sagemaker.call('DescribeTrainingJob', {
          TrainingJobName: request.TrainingJobName,
        });
        const isOurs =
          found.CreationTime.getTime() >= startedAt - 1000 &&
          JSON.stringify(found.HyperParameters) === JSON.stringify(request.HyperParameters ?? {});
        if (!isOurs) throw error;
      }
    });
  }
}

function registration(connection: Connection, session: Session): ((path: string) => Promise<string>) | null {
  if (!connection.sharesFiles || !connection.trainyard) return null;
  return (path) =>
    session.use(({ trainyard }) => {
      if (!trainyard) throw new TypeError('The endpoint is no longer a Trainyard service.');
      return trainyard.registerFolder(path);
    });
}

function checkJobName(jobName: string): void {
  if (JOB_NAME_PATTERN.test(jobName)) return;
  const rule = 'It has at most 63 letters, digits and hyphens, and neither begins nor ends with a hyphen.';
  const nextStep = 'Choose such a name.';
  throw new InvalidOption([{ id: 'E-JOB-NAME', field: 'jobName', value: jobName, rule, nextStep }]);
}

function checkChannelNames(channels: readonly Channel[]): void {
  const names = channels.map((channel) => channel.ChannelName);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice === undefined) return;
  const rule = 'Under network isolation this channel carries the code.';
  const nextStep = 'Give the input another name.';
  throw new InvalidOption([{ id: 'E-CHANNEL-DUP', field: `inputs.${twice}`, value: twice, rule, nextStep }]);
}
