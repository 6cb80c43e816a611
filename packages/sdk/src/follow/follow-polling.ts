import { setTimeout as sleep } from 'node:timers/promises';
import type { AwsClient, DescribeTrainingJobResponse } from '@trainyard/api';
import { isServiceError } from '@trainyard/api';
import { isTerminal } from './job-event.ts';
import type { TrainingJobEvent } from './job-event.ts';

export const TRAINING_LOG_GROUP = '/aws/sagemaker/TrainingJobs';
/** Streams that one listing returns at most; AWS's SDK asks for no more either. */
const MAX_STREAMS = 50;

export interface PollingTimes {
  /** Between two looks at the logs and the job. SageMaker's Python SDK looks every 10 s. */
  pauseMs: number;
}

export const DEFAULT_POLLING_TIMES: PollingTimes = { pauseMs: 10_000 };

/**
 * The events of a job up to its end where the service has no stream of them: DescribeTrainingJob for transitions,
 * CloudWatch Logs for lines. Lines are in the order of their time within one look.
 */
export async function* followPolling(
  clients: Pick<AwsClient, 'sagemaker' | 'logs'>,
  jobName: string,
  options: { signal?: AbortSignal | undefined; times?: PollingTimes; withLogs: boolean },
): AsyncGenerator<TrainingJobEvent> {
  const tokens = new Map<string, string | undefined>();
  let transitionsSeen = 0;
  let statusSeen = '';
  for (;;) {
    options.signal?.throwIfAborted();
    const call = options.signal ? { signal: options.signal } : {};
    const job = await clients.sagemaker.call('DescribeTrainingJob', { TrainingJobName: jobName }, call);
    const transitions = job.SecondaryStatusTransitions ?? [];
    for (const transition of transitions.slice(transitionsSeen)) {
      const at = transition.StartTime.getTime();
      yield {
        type: 'transition',
        id: null,
        at,
        status: transition.Status,
        message: transition.StatusMessage ?? '',
      };
    }
    transitionsSeen = transitions.length;
    // After the end one more look brings the lines written since the last one.
    if (options.withLogs) yield* newLines(clients, job, tokens, call);
    const status = `${job.TrainingJobStatus} ${job.SecondaryStatus}`;
    if (status !== statusSeen) yield statusEvent(job);
    statusSeen = status;
    if (isTerminal(job.TrainingJobStatus)) return;
    const pauseMs = (options.times ?? DEFAULT_POLLING_TIMES).pauseMs;
    await sleep(pauseMs, undefined, options.signal && { signal: options.signal });
  }
}

function statusEvent(job: DescribeTrainingJobResponse): TrainingJobEvent {
  return {
    type: 'status',
    id: null,
    at: Date.now(),
    status: job.TrainingJobStatus,
    secondaryStatus: job.SecondaryStatus,
    attempt: null,
    waitReason: null,
    failureReason: job.FailureReason ?? null,
  };
}

async function* newLines(
  { logs }: Pick<AwsClient, 'logs'>,
  job: DescribeTrainingJobResponse,
  tokens: Map<string, string | undefined>,
  call: { signal?: AbortSignal },
): AsyncGenerator<TrainingJobEvent> {
  const lines: (TrainingJobEvent & { type: 'log' })[] = [];
  try {
    const prefix = `${job.TrainingJobName}/`;
    const limit = Math.min(job.ResourceConfig?.InstanceCount ?? MAX_STREAMS, MAX_STREAMS);
    const listed = await logs.call(
      'DescribeLogStreams',
      { logGroupName: TRAINING_LOG_GROUP, logStreamNamePrefix: prefix, orderBy: 'LogStreamName', limit },
      call,
    );
    for (const { logStreamName } of listed.logStreams ?? []) {
      if (logStreamName === undefined) continue;
      const host = logStreamName.slice(prefix.length).replace(/-\d+$/, '');
      for (;;) {
        const nextToken = tokens.get(logStreamName);
        const page = await logs.call(
          'GetLogEvents',
          {
            logGroupName: TRAINING_LOG_GROUP,
            logStreamName,
            startFromHead: true,
            ...(nextToken && { nextToken }),
          },
          call,
        );
        for (const event of page.events ?? []) {
          const [at, message] = [Number(event.timestamp ?? 0), event.message ?? ''];
          lines.push({ type: 'log', id: null, at, host, rank: null, source: null, message });
        }
        tokens.set(logStreamName, page.nextForwardToken ?? nextToken);
        if (page.nextForwardToken === undefined || page.nextForwardToken === nextToken) break;
      }
    }
  } catch (error) {
    // Neither the group nor a stream exists before the first line.
    if (!isServiceError(error, 'ResourceNotFoundException')) throw error;
  }
  yield* lines.sort((a, b) => a.at - b.at);
}
