import { createRequire } from 'node:module';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { awsCli, boto3 } from '../support/clients.ts';
import { startService, type TestService } from '../support/service.ts';

const require = createRequire(import.meta.url);
const {
  CloudWatchLogsClient,
  GetLogEventsCommand,
  paginateDescribeLogStreams,
  paginateFilterLogEvents,
  PutLogEventsCommand,
} = require('@aws-sdk/client-cloudwatch-logs') as typeof import('@aws-sdk/client-cloudwatch-logs');

let service: TestService;
let count = 0;
let group: string;

beforeAll(async () => {
  service = await startService();
});
afterAll(() => service?.dispose());
beforeEach(async () => {
  group = `/contract/${++count}`;
  await service.aws.logs.call('CreateLogGroup', { logGroupName: group });
});

const javascript = (): InstanceType<typeof CloudWatchLogsClient> =>
  new CloudWatchLogsClient({ endpoint: service.url, region: 'us-west-2', credentials: service.credentials });

/** Lines `first`… of a stream that is made when it is new. */
async function write(stream: string, first: number, howMany: number): Promise<void> {
  const target = { logGroupName: group, logStreamName: stream };
  if (first === 0) await service.aws.logs.call('CreateLogStream', target);
  const now = Date.now();
  const logEvents = Array.from({ length: howMany }, (_, index) => ({
    timestamp: now + index,
    message: `${stream} line ${first + index} ü🚆`,
  }));
  await service.aws.logs.call('PutLogEvents', { ...target, logEvents });
}

const lines = (stream: string, first: number, howMany: number): string[] =>
  Array.from({ length: howMany }, (_, index) => `${stream} line ${first + index} ü🚆`);

describe('boto3', () => {
  test('reads a stream from its head to the token that comes back', async () => {
    await write('s', 0, 25);
    const result = await boto3(
      service,
      `
logs, token, seen = client('logs'), None, []
while True:
    more = {'nextToken': token} if token else {}
    page = logs.get_log_events(logGroupName='${group}', logStreamName='s', startFromHead=True, limit=10, **more)
    seen += [event['message'] for event in page['events']]
    if page['nextForwardToken'] == token: break
    token = page['nextForwardToken']
answer(seen)`,
    );
    expect(result).toEqual(lines('s', 0, 25));
  });

  test('goes through all streams by time, and follows without seeing a line twice', async () => {
    await write('one', 0, 10);
    await write('two', 0, 10);
    const program = `
import time
logs, seen, last = client('logs'), {}, 0
put = lambda stream, text: logs.put_log_events(logGroupName='${group}', logStreamName=stream, logEvents=[{'timestamp': int(time.time() * 1000), 'message': text}])
def look():
    global last
    fresh = []
    for page in logs.get_paginator('filter_log_events').paginate(logGroupName='${group}', startTime=last, interleaved=True, PaginationConfig={'PageSize': 3}):
        for event in page['events']:
            assert event['timestamp'] >= last
            last = event['timestamp']
            if event['eventId'] not in seen: fresh.append(event['message'])
            seen[event['eventId']] = True
    return fresh
first = look()
time.sleep(0.05)
put('one', 'more')
answer([len(first), look(), look()])`;
    expect(await boto3(service, program)).toEqual([20, ['more'], []]);
  });

  test('lists streams as SDK v2 does: no token when all of them came', async () => {
    for (const stream of ['job/algo-2', 'job/algo-10', 'job/algo-1', 'job-2/algo-1'])
      await write(stream, 0, 1);
    const result = await boto3(
      service,
      `
page = client('logs').describe_log_streams(logGroupName='${group}', logStreamNamePrefix='job/', orderBy='LogStreamName', limit=3)
answer([[stream['logStreamName'] for stream in page['logStreams']], 'nextToken' in page])`,
    );
    expect(result).toEqual([['job/algo-1', 'job/algo-10', 'job/algo-2'], false]);
  });

  test('gets typed exceptions', async () => {
    const result = await boto3(
      service,
      `
logs, names = client('logs'), []
for call in (lambda: logs.get_log_events(logGroupName='/none', logStreamName='s'), lambda: logs.create_log_group(logGroupName='${group}'),
             lambda: logs.describe_log_streams(logGroupName='${group}', orderBy='LastEventTime', logStreamNamePrefix='x')):
    try: call()
    except logs.exceptions.ClientError as error: names.append(type(error).__name__)
answer(names)`,
    );
    expect(result).toEqual([
      'ResourceNotFoundException',
      'ResourceAlreadyExistsException',
      'InvalidParameterException',
    ]);
  });
});

describe('the AWS CLI', () => {
  test('prints the last lines of a stream, and lines that match', async () => {
    await write('s', 0, 12);
    const stream = ['--log-group-name', group, '--log-stream-name', 's'];
    const output = ['--query', 'events[].message', '--output', 'json'];
    const last = await awsCli(service, ['logs', 'get-log-events', ...stream, '--limit', '2', ...output]);
    expect(JSON.parse(last.stdout)).toEqual(lines('s', 10, 2));
    const pattern = ['--log-group-name', group, '--filter-pattern', '"line 1"'];
    const matching = await awsCli(service, ['logs', 'filter-log-events', ...pattern, ...output]);
    expect(JSON.parse(matching.stdout)).toEqual([...lines('s', 1, 1), ...lines('s', 10, 2)]);
  });
});

describe('the AWS SDK for JavaScript', () => {
  test('pages over streams and events give everything once', async () => {
    for (let index = 0; index < 7; index++) await write(`s${index}`, 0, 5);
    const client = javascript();
    const names: (string | undefined)[] = [];
    const paging = { client, pageSize: 2 };
    for await (const page of paginateDescribeLogStreams(paging, { logGroupName: group, descending: true })) {
      names.push(...(page.logStreams ?? []).map((stream) => stream.logStreamName));
    }
    expect(names).toEqual(['s6', 's5', 's4', 's3', 's2', 's1', 's0']);
    const messages = new Set<string | undefined>();
    for await (const page of paginateFilterLogEvents(paging, { logGroupName: group })) {
      for (const event of page.events ?? []) messages.add(event.message);
    }
    expect(messages.size).toBe(35);
  });

  test('is told which events were left out', async () => {
    await write('s', 0, 1);
    const answer = await javascript().send(
      new PutLogEventsCommand({
        logGroupName: group,
        logStreamName: 's',
        logEvents: [{ timestamp: Date.now() + 3 * 3_600_000, message: 'from the future' }],
      }),
    );
    expect(answer.rejectedLogEventsInfo).toEqual({ tooNewLogEventStartIndex: 0 });
  });
});

test('when the service is killed, tokens of before go on to lines of after', async () => {
  await write('s', 0, 5);
  const target = { logGroupName: group, logStreamName: 's' };
  const first = await javascript().send(new GetLogEventsCommand({ ...target, startFromHead: true }));
  expect(first.events).toHaveLength(5);

  await service.kill('SIGKILL');
  await service.start();

  const { nextForwardToken: nextToken } = first;
  const idle = await javascript().send(new GetLogEventsCommand({ ...target, nextToken }));
  expect(idle).toMatchObject({ events: [], nextForwardToken: nextToken });
  await write('s', 5, 2);
  const fresh = await javascript().send(new GetLogEventsCommand({ ...target, nextToken }));
  expect(fresh.events?.map(({ message }) => message)).toEqual(lines('s', 5, 2));
});
