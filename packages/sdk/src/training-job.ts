import type { DescribeTrainingJobResponse } from '@trainyard/api';
import { isServiceError } from '@trainyard/api';
import { errorOfEnd } from './errors.ts';
import { followPolling } from './follow/follow-polling.ts';
import type { PollingTimes } from './follow/follow-polling.ts';
import { DEFAULT_STREAM_TIMES, followStream } from './follow/follow-stream.ts';
import { isTerminal } from './follow/job-event.ts';
import type { TrainingJobEvent } from './follow/job-event.ts';
import { LogPrinter } from './log-printer.ts';
import type { Session } from './session.ts';

export interface FollowOptions {
  /** Ends the following, not the job. */
  signal?: AbortSignal;
  /** Only events after the one with this id; not known outside Trainyard. @default null */
  after?: string | null;
  /** Where the service has no event stream. @default every 10 s */
  polling?: PollingTimes;
}

/** How long a service may be away while its job is followed: one of this machine is back at once or was stopped. */
const EMBEDDED_PATIENCE_MS = 3_000;
const REMOTE_PATIENCE_MS = 120_000;

/** A training job by its name; holds no state, so several may stand for one job. */
export class TrainingJob {
  readonly name: string;
  readonly session: Session;

  constructor(name: string, session: Session) {
    this.name = name;
    this.session = session;
  }

  /** @throws RequestRefused when there is no such job */
  async describe(): Promise<DescribeTrainingJobResponse> {
    return await this.session.use(({ sagemaker }) =>
      sagemaker.call('DescribeTrainingJob', { TrainingJobName: this.name }),
    );
  }

  /**
   * Asks the job to stop: its processes get SIGTERM and 120 s, and artifacts are uploaded. Returns before that is
   * done; stopping a job that has ended changes nothing.
   */
  async stop(): Promise<void> {
    try {
      await this.session.use(({ sagemaker }) =>
        sagemaker.call('StopTrainingJob', { TrainingJobName: this.name }),
      );
    } catch (error) {
      if (
        !isServiceError(error, 'ValidationException') ||
        !isTerminal((await this.describe()).TrainingJobStatus)
      ) {
        throw error;
      }
    }
  }

  /**
   * What happened and happens, from the first event (or `after`) up to the job's end; then it ends. Survives
   * restarts of the service without losing or repeating an event.
   *
   * ```ts no-run: needs a running job
   * for await (const event of job.events()) if (event.type === 'log') console.log(event.host, event.message);
   * ```
   */
  async *events(options: FollowOptions = {}): AsyncGenerator<TrainingJobEvent> {
    const connection = await this.session.connect();
    if (!connection.trainyard) {
      const { signal, polling: times } = options;
      yield* followPolling(connection, this.name, { signal, ...(times && { times }), withLogs: true });
      return;
    }
    const open = (lastEventId: string | null, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> =>
      this.session.useTrainyard((trainyard) => trainyard.openEvents(this.name, lastEventId, signal), {
        revive: false,
      });
    const patienceMs = connection.kind === 'embedded' ? EMBEDDED_PATIENCE_MS : REMOTE_PATIENCE_MS;
    const times = { ...DEFAULT_STREAM_TIMES, patienceMs };
    yield* followStream({ open }, { after: options.after ?? null, signal: options.signal, times });
  }

  /**
   * Waits for the end.
   * @throws TrainingFailed, TrainingStopped, MaxRuntimeExceeded, MaxWaitTimeExceeded
   */
  async wait(options: FollowOptions = {}): Promise<DescribeTrainingJobResponse> {
    const connection = await this.session.connect();
    const { signal, polling: times } = options;
    const events = connection.trainyard
      ? this.events(options)
      : followPolling(connection, this.name, { signal, ...(times && { times }), withLogs: false });
    for await (const _event of events);
    return await this.result();
  }

  /** Writes log lines and transitions to standard output up to the end, then does what {@link wait} does. */
  async logs(options: FollowOptions = {}): Promise<DescribeTrainingJobResponse> {
    const printer = new LogPrinter(process.stdout);
    for await (const event of this.events(options)) printer.print(event);
    const description = await this.describe();
    printer.printTimes(description);
    return throwUnlessCompleted(description);
  }

  /**
   * S3 URI of the model: an archive, or a prefix that ends with a slash for uncompressed output. Known from the
   * start, there once the job has ended.
   */
  async modelData(): Promise<string> {
    const { ModelArtifacts, OutputDataConfig } = await this.describe();
    const isPrefix = OutputDataConfig?.CompressionType === 'NONE';
    const base = OutputDataConfig?.S3OutputPath.replace(/\/+$/, '');
    const uri =
      ModelArtifacts?.S3ModelArtifacts ?? `${base}/${this.name}/output/model${isPrefix ? '' : '.tar.gz'}`;
    return isPrefix && !uri.endsWith('/') ? `${uri}/` : uri;
  }

  /** The description of a job that completed. @throws as {@link wait}, and Error while the job is not at its end */
  async result(): Promise<DescribeTrainingJobResponse> {
    return throwUnlessCompleted(await this.describe());
  }
}

function throwUnlessCompleted(description: DescribeTrainingJobResponse): DescribeTrainingJobResponse {
  const error = errorOfEnd(description);
  if (error) throw error;
  if (!isTerminal(description.TrainingJobStatus)) {
    throw new Error(
      `Training job ${description.TrainingJobName} is ${description.TrainingJobStatus}, not at its end.`,
    );
  }
  return description;
}
