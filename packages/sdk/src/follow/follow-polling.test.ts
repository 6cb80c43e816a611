import type { AwsClient, DescribeTrainingJobResponse } from '@trainyard/api';
import { jsonError } from '@trainyard/api';
import { expect, test } from 'vitest';
import { followPolling } from './follow-polling.ts';
import type { TrainingJobEvent } from './job-event.ts';

const times = { pauseMs: 0 };
const at = (seconds: number): Date => new Date(seconds * 1000);

function description(status: string, secondary: string[]): DescribeTrainingJobResponse {
  return {
    TrainingJobName: 'job',
    TrainingJobStatus: status,
    SecondaryStatus: secondary.at(-1),
    CreationTime: at(0),
    LastModifiedTime: at(secondary.length),
    ResourceConfig: { InstanceCount: 2 },
    SecondaryStatusTransitions: secondary.map((Status, index) => ({
      Status,
      StartTime: at(index),
      StatusMessage: Status,
    })),
  } as DescribeTrainingJobResponse;
}

/** A job that moves on with every look, and CloudWatch's two streams of it, one event a page. */
function fakeClients(looks: DescribeTrainingJobResponse[], streams: Record<string, [number, string][]>) {
  let look = -1;
  const call = async (operation: string, input: Record<string, unknown>): Promise<unknown> => {
    switch (operation) {
      case 'DescribeTrainingJob':
        look += 1;
        return looks[look];
      case 'DescribeLogStreams':
        if (look === 0)
          throw jsonError('ResourceNotFoundException', {
            message: 'The specified log group does not exist.',
          });
        expect(input).toMatchObject({ logStreamNamePrefix: 'job/', limit: 2 });
        return { logStreams: Object.keys(streams).map((logStreamName) => ({ logStreamName })) };
      case 'GetLogEvents': {
        const events = streams[input['logStreamName'] as string] ?? [];
        const next = Number(input['nextToken'] ?? 0);
        const page = events.slice(next, next + 1).map(([timestamp, message]) => ({ timestamp, message }));
        return { events: page, nextForwardToken: String(next + page.length) };
      }
      default:
        throw new Error(operation);
    }
  };
  return { sagemaker: { call }, logs: { call } } as unknown as Pick<AwsClient, 'sagemaker' | 'logs'>;
}

test('transitions come once, lines of all hosts in the order of their time, and the following ends with the job', async () => {
  const clients = fakeClients(
    [
      description('InProgress', ['Starting']),
      description('InProgress', ['Starting', 'Training']),
      description('Completed', ['Starting', 'Training', 'Completed']),
    ],
    {
      'job/algo-1-1700000000': [
        [10, 'a'],
        [30, 'c'],
      ],
      'job/algo-2-1700000001': [[20, 'b']],
    },
  );
  const seen: string[] = [];
  for await (const event of followPolling(clients, 'job', { times, withLogs: true })) seen.push(line(event));
  expect(seen).toEqual([
    'transition Starting',
    'status InProgress',
    'transition Training',
    'algo-1 a',
    'algo-2 b',
    'algo-1 c',
    'status InProgress',
    'transition Completed',
    'status Completed',
  ]);
});

function line(event: TrainingJobEvent): string {
  return event.type === 'log'
    ? `${event.host} ${event.message}`
    : `${event.type} ${'status' in event ? event.status : ''}`;
}
