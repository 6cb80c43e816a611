import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isServiceError } from '@trainyard/api';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Database } from '../store/database.ts';
import { openDatabase } from '../store/database.ts';
import { createLogsOperations } from './operations.ts';
import type { LogStore } from './store.ts';
import { createLogStore } from './store.ts';
import { TRAINING_LOG_GROUP } from './stream-name.ts';

const NOW = 1_800_000_000_000;
const GROUP = '/my/group';

let directory: string;
let database: Database;
let store: LogStore;
let logs: ReturnType<typeof createLogsOperations>;

function open(): void {
  database = openDatabase(join(directory, 'trainyard.sqlite'));
  store = createLogStore(database, { now: () => NOW, metricDefinitionsOf: () => [] });
  logs = createLogsOperations(store, {
    account: { region: 'us-west-2', accountId: '111122223333' },
    now: () => NOW,
  });
}

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'trainyard-logs-'));
  open();
});

afterEach(() => {
  database.close();
  rmSync(directory, { recursive: true });
});

/** Lines `prefix0`, `prefix1`… one millisecond apart, written by the host's agent. */
function write(jobName: string, host: string, count: number, { at = NOW, prefix = 'line ' } = {}): string {
  const name = `${jobName}/${host}-1800000000`;
  const firstSeq = store.streams.find(TRAINING_LOG_GROUP, name)?.nextSeq ?? 0;
  const lines = Array.from({ length: count }, (_, index) => ({
    at: at + firstSeq + index,
    source: 'stdout' as const,
    rank: 0,
    message: `${prefix}${firstSeq + index}`,
  }));
  store.appendBatch({ stream: { name, jobName, attempt: 1, host }, firstSeq, lines });
  return name;
}

function refusal(call: () => unknown): { code: string; message: string } {
  try {
    call();
  } catch (error) {
    if (isServiceError(error)) return { code: error.code, message: error.message };
    throw error;
  }
  throw new Error('the call was not refused');
}

const get = (logStreamName: string, input: object = {}) =>
  logs.GetLogEvents(null, { logGroupName: TRAINING_LOG_GROUP, logStreamName, ...input });
const texts = (answer: { events?: { message?: string }[] }) => answer.events?.map(({ message }) => message);

describe('groups and streams', () => {
  test('a group is made once, described with its ARNs and deleted with its streams', () => {
    logs.CreateLogGroup(null, { logGroupName: GROUP });
    logs.CreateLogStream(null, { logGroupName: GROUP, logStreamName: 's' });
    expect(logs.DescribeLogGroups(null, {}).logGroups).toEqual([
      {
        logGroupName: GROUP,
        creationTime: NOW,
        metricFilterCount: 0,
        arn: 'arn:aws:logs:us-west-2:111122223333:log-group:/my/group:*',
        logGroupArn: 'arn:aws:logs:us-west-2:111122223333:log-group:/my/group',
        storedBytes: 0,
        logGroupClass: 'STANDARD',
      },
    ]);
    expect(refusal(() => logs.CreateLogGroup(null, { logGroupName: GROUP }))).toEqual({
      code: 'ResourceAlreadyExistsException',
      message: 'The specified log group already exists',
    });
    logs.DeleteLogGroup(null, { logGroupName: GROUP });
    expect(logs.DescribeLogGroups(null, {}).logGroups).toEqual([]);
    logs.CreateLogGroup(null, { logGroupName: GROUP });
    expect(logs.DescribeLogStreams(null, { logGroupName: GROUP }).logStreams).toEqual([]);
  });

  test('groups are listed by prefix, part or identifier, page by page', () => {
    for (const name of ['/a/1', '/a/2', '/b/1']) logs.CreateLogGroup(null, { logGroupName: name });
    const names = (input: object) =>
      logs.DescribeLogGroups(null, input).logGroups?.map((row) => row.logGroupName);
    expect(names({ logGroupNamePrefix: '/a/' })).toEqual(['/a/1', '/a/2']);
    expect(names({ logGroupNamePattern: '/1' })).toEqual(['/a/1', '/b/1']);
    expect(
      names({ logGroupIdentifiers: ['/b/1', 'arn:aws:logs:us-west-2:111122223333:log-group:/a/2:*', '/c'] }),
    ).toEqual(['/b/1', '/a/2']);
    const first = logs.DescribeLogGroups(null, { limit: 2 });
    expect(first.logGroups).toHaveLength(2);
    expect(names({ limit: 2, nextToken: first.nextToken })).toEqual(['/b/1']);
    expect(logs.DescribeLogGroups(null, { limit: 2, nextToken: first.nextToken })).not.toHaveProperty(
      'nextToken',
    );
  });

  test('an unknown group or stream is named as on AWS', () => {
    expect(refusal(() => logs.DescribeLogStreams(null, { logGroupName: '/none' }))).toEqual({
      code: 'ResourceNotFoundException',
      message: 'The specified log group does not exist.',
    });
    write('job', 'algo-1', 1);
    expect(refusal(() => get('job/none'))).toEqual({
      code: 'ResourceNotFoundException',
      message: 'The specified log stream does not exist.',
    });
    expect(refusal(() => logs.DescribeLogStreams(null, {})).code).toBe('InvalidParameterException');
  });

  test('streams of a job are found by prefix with algo-10 before algo-2, and no token when all fit', () => {
    for (const host of ['algo-1', 'algo-2', 'algo-10']) write('job', host, 1);
    write('job-2', 'algo-1', 1);
    const answer = logs.DescribeLogStreams(null, {
      logGroupName: TRAINING_LOG_GROUP,
      logStreamNamePrefix: 'job/',
      limit: 3,
    });
    expect(answer.logStreams?.map((stream) => stream.logStreamName)).toEqual([
      'job/algo-1-1800000000',
      'job/algo-10-1800000000',
      'job/algo-2-1800000000',
    ]);
    expect(answer).not.toHaveProperty('nextToken');
    expect(answer.logStreams?.[0]).toMatchObject({
      firstEventTimestamp: NOW,
      lastEventTimestamp: NOW,
      lastIngestionTime: NOW,
      arn: 'arn:aws:logs:us-west-2:111122223333:log-group:/aws/sagemaker/TrainingJobs:log-stream:job/algo-1-1800000000',
    });
  });

  test.each([
    ['LogStreamName', false],
    ['LogStreamName', true],
    ['LastEventTime', false],
    ['LastEventTime', true],
  ] as const)('pages by %s, descending %s, give every stream once in order', (orderBy, descending) => {
    for (let host = 1; host <= 7; host++) write('job', `algo-${host}`, 1, { at: NOW - (host % 3) });
    const list = (limit: number): string[] => {
      const seen: string[] = [];
      let nextToken: string | undefined;
      do {
        const page = logs.DescribeLogStreams(null, {
          logGroupName: TRAINING_LOG_GROUP,
          orderBy,
          descending,
          limit,
          nextToken,
        });
        seen.push(...(page.logStreams ?? []).map((stream) => stream.logStreamName ?? ''));
        nextToken = page.nextToken;
      } while (nextToken !== undefined);
      return seen;
    };
    expect(new Set(list(50)).size).toBe(7);
    expect(list(2)).toEqual(list(50));
  });

  test('a prefix cannot go with the order of last events', () => {
    write('job', 'algo-1', 1);
    const call = () =>
      logs.DescribeLogStreams(null, {
        logGroupName: TRAINING_LOG_GROUP,
        orderBy: 'LastEventTime',
        logStreamNamePrefix: 'job/',
      });
    expect(refusal(call).code).toBe('InvalidParameterException');
  });
});

describe('GetLogEvents', () => {
  test('from the head, pages follow each other and the last token comes back at the end', () => {
    const stream = write('job', 'algo-1', 5);
    const first = get(stream, { startFromHead: true, limit: 3 });
    expect(first.events?.[0]).toEqual({ timestamp: NOW, message: 'line 0', ingestionTime: NOW });
    const second = get(stream, { limit: 3, nextToken: first.nextForwardToken });
    expect([...(texts(first) ?? []), ...(texts(second) ?? [])]).toEqual(
      [0, 1, 2, 3, 4].map((n) => `line ${n}`),
    );
    const end = get(stream, { limit: 3, nextToken: second.nextForwardToken });
    expect(end).toEqual({
      events: [],
      nextForwardToken: second.nextForwardToken,
      nextBackwardToken: expect.stringMatching(/^b\/\d{56}$/),
    });
  });

  test('a token of the end, kept over a restart of the service, yields what was appended since', () => {
    const stream = write('job', 'algo-1', 2);
    const { nextForwardToken: nextToken } = get(stream, { startFromHead: true });
    database.close();
    open();
    expect(texts(get(stream, { nextToken }))).toEqual([]);
    write('job', 'algo-1', 2);
    const answer = get(stream, { nextToken });
    expect(texts(answer)).toEqual(['line 2', 'line 3']);
    expect(texts(get(stream, { nextToken: answer.nextForwardToken }))).toEqual([]);
  });

  test('without startFromHead the newest lines come first, page by page backwards', () => {
    const stream = write('job', 'algo-1', 5);
    const last = get(stream, { limit: 2 });
    expect(texts(last)).toEqual(['line 3', 'line 4']);
    const middle = get(stream, { limit: 2, nextToken: last.nextBackwardToken });
    expect(texts(middle)).toEqual(['line 1', 'line 2']);
    expect(texts(get(stream, { limit: 2, nextToken: middle.nextForwardToken }))).toEqual([
      'line 3',
      'line 4',
    ]);
    const first = get(stream, { limit: 2, nextToken: middle.nextBackwardToken });
    expect(texts(first)).toEqual(['line 0']);
    const before = get(stream, { limit: 2, nextToken: first.nextBackwardToken });
    expect(before).toMatchObject({ events: [], nextBackwardToken: first.nextBackwardToken });
  });

  test('the window takes its start and leaves out its end', () => {
    const stream = write('job', 'algo-1', 5);
    const window = { startTime: NOW + 1, endTime: NOW + 3 };
    expect(texts(get(stream, window))).toEqual(['line 1', 'line 2']);
    expect(texts(get(stream, { ...window, startFromHead: true }))).toEqual(['line 1', 'line 2']);
    expect(texts(get(stream, { startTime: NOW + 9, startFromHead: true }))).toEqual([]);
    expect(texts(get(stream, { endTime: NOW }))).toEqual([]);
  });

  test('following with a window, as SDK v2 does, ends at an empty page and sees later lines', () => {
    const stream = write('job', 'algo-1', 3);
    const first = get(stream, { startTime: NOW + 2, startFromHead: true });
    expect(texts(first)).toEqual(['line 2']);
    expect(texts(get(stream, { startTime: NOW + 2, nextToken: first.nextForwardToken }))).toEqual([]);
    write('job', 'algo-1', 1);
    expect(texts(get(stream, { startTime: NOW + 2, startFromHead: true }))).toEqual(['line 2', 'line 3']);
  });

  test('a page holds at most a megabyte, but always a line', () => {
    const name = 'big/algo-1-1800000000';
    const line = (size: number) => ({
      at: NOW,
      source: 'stdout' as const,
      rank: 0,
      message: 'x'.repeat(size),
    });
    store.appendBatch({
      stream: { name, jobName: 'big', attempt: 1, host: 'algo-1' },
      firstSeq: 0,
      lines: [line(600_000), line(600_000), line(2_000_000), line(1)],
    });
    const sizes: (number | undefined)[][] = [];
    let nextToken: string | undefined;
    for (let page = 0; page < 5; page++) {
      const answer = get(name, { startFromHead: true, nextToken });
      sizes.push((answer.events ?? []).map(({ message }) => message?.length));
      nextToken = answer.nextForwardToken;
    }
    expect(sizes).toEqual([[600_000], [600_000], [2_000_000], [1], []]);
  });

  test('a token of another stream or of nothing is refused', () => {
    const [one, two] = [write('job', 'algo-1', 1), write('job', 'algo-2', 1)];
    const { nextForwardToken } = get(one);
    expect(refusal(() => get(two, { nextToken: nextForwardToken }))).toEqual({
      code: 'InvalidParameterException',
      message: 'The specified nextToken is invalid.',
    });
    expect(refusal(() => get(one, { nextToken: 'f/12' })).code).toBe('InvalidParameterException');
  });

  test('the group may be given as ARN', () => {
    const logStreamName = write('job', 'algo-1', 1);
    const logGroupIdentifier = 'arn:aws:logs:us-west-2:111122223333:log-group:/aws/sagemaker/TrainingJobs';
    expect(texts(logs.GetLogEvents(null, { logGroupIdentifier, logStreamName }))).toEqual(['line 0']);
  });
});

describe('FilterLogEvents', () => {
  const filter = (input: object = {}) =>
    logs.FilterLogEvents(null, { logGroupName: TRAINING_LOG_GROUP, ...input });

  function all(input: object): { message?: string; eventId?: string }[] {
    const seen: { message?: string; eventId?: string }[] = [];
    let nextToken: string | undefined;
    do {
      const page = filter({ ...input, nextToken });
      seen.push(...(page.events ?? []));
      nextToken = page.nextToken;
    } while (nextToken !== undefined);
    return seen;
  }

  test('lines of all streams of a prefix come by time, each with an id that is unique and stays', () => {
    write('job', 'algo-1', 3, { prefix: 'one ' });
    write('job', 'algo-2', 3, { prefix: 'two ' });
    write('other', 'algo-1', 3);
    const answer = filter({ logStreamNamePrefix: 'job/' });
    expect(texts(answer)).toEqual(['one 0', 'two 0', 'one 1', 'two 1', 'one 2', 'two 2']);
    expect(answer).not.toHaveProperty('nextToken');
    expect(new Set(answer.events?.map((event) => event.eventId)).size).toBe(6);
    expect(filter({ logStreamNamePrefix: 'job/', startTime: NOW + 1 }).events).toEqual(
      answer.events?.slice(2),
    );
  });

  test.each([true, false])(
    'pages of every size give the same lines in the same order, startFromHead %s',
    (startFromHead) => {
      for (let host = 1; host <= 4; host++)
        write('job', `algo-${host}`, 10, { at: NOW + (host % 2), prefix: `${host} ` });
      const whole = filter({ startFromHead }).events?.map(({ message }) => message);
      expect(whole).toHaveLength(40);
      for (const limit of [1, 3, 7, 39, 40, 41]) {
        expect(all({ startFromHead, limit }).map(({ message }) => message)).toEqual(whole);
      }
    },
  );

  test('newest first is the opposite of oldest first', () => {
    write('job', 'algo-1', 5, { prefix: 'one ' });
    write('job', 'algo-2', 5, { prefix: 'two ' });
    expect(texts(filter({ startFromHead: false }))).toEqual(texts(filter())?.reverse());
  });

  test('the window takes both its start and its end', () => {
    write('job', 'algo-1', 5);
    expect(texts(filter({ startTime: NOW + 1, endTime: NOW + 3 }))).toEqual(['line 1', 'line 2', 'line 3']);
  });

  test('a pattern and names of streams choose lines', () => {
    const name = write('job', 'algo-1', 12, { prefix: 'one ' });
    write('job', 'algo-2', 12, { prefix: 'two ' });
    expect(texts(filter({ logStreamNames: [name], filterPattern: '"one 1"' }))).toEqual([
      'one 1',
      'one 10',
      'one 11',
    ]);
    expect(refusal(() => filter({ logStreamNames: ['none'] })).code).toBe('ResourceNotFoundException');
    expect(refusal(() => filter({ filterPattern: '{ $.a = 1 }' }))).toEqual({
      code: 'InvalidParameterException',
      message: expect.stringContaining('{ $.a = 1 }'),
    });
  });

  test('a token of the other direction is refused', () => {
    write('job', 'algo-1', 3);
    const { nextToken } = filter({ limit: 1 });
    expect(refusal(() => filter({ limit: 1, startFromHead: false, nextToken })).code).toBe(
      'InvalidParameterException',
    );
  });

  test('following from the last time repeats lines only under their old ids', () => {
    write('job', 'algo-1', 3);
    const ids = new Set(all({}).map(({ eventId }) => eventId));
    write('job', 'algo-1', 2);
    const fresh = all({ startTime: NOW + 2 }).filter(({ eventId }) => !ids.has(eventId));
    expect(fresh.map(({ message }) => message)).toEqual(['line 3', 'line 4']);
  });
});

describe('PutLogEvents', () => {
  const put = (logEvents: { timestamp: number; message: string }[], logStreamName = 's') =>
    logs.PutLogEvents(null, { logGroupName: GROUP, logStreamName, logEvents });

  beforeEach(() => {
    logs.CreateLogGroup(null, { logGroupName: GROUP });
    logs.CreateLogStream(null, { logGroupName: GROUP, logStreamName: 's' });
  });

  test('events are stored and read back; those too old or too far ahead are left out and told', () => {
    const day = 86_400_000;
    expect(put([{ timestamp: NOW, message: 'now' }])).toEqual({ nextSequenceToken: '1' });
    expect(
      put([
        { timestamp: NOW - 14 * day - 2, message: 'old' },
        { timestamp: NOW - 14 * day, message: 'kept' },
      ]),
    ).toMatchObject({ rejectedLogEventsInfo: { tooOldLogEventEndIndex: 1 } });
    expect(
      put([
        { timestamp: NOW, message: 'kept too' },
        { timestamp: NOW + 7_200_001, message: 'early' },
      ]),
    ).toMatchObject({ rejectedLogEventsInfo: { tooNewLogEventStartIndex: 1 } });
    const answer = logs.GetLogEvents(null, { logGroupName: GROUP, logStreamName: 's' });
    expect(texts(answer)).toEqual(['now', 'kept', 'kept too']);
  });

  test.each([
    ['not in order', [2, 1].map((n) => ({ timestamp: NOW + n, message: 'x' })), 'chronological order'],
    [
      'wider than a day',
      [0, 86_400_001].map((n) => ({ timestamp: NOW - n, message: 'x' })).reverse(),
      '24 hours',
    ],
    ['too large', [{ timestamp: NOW, message: 'x'.repeat(1_048_551) }], 'Upload too large: 1048577 bytes'],
  ])('a batch %s is refused as a whole', (_, logEvents, text) => {
    expect(refusal(() => put(logEvents))).toEqual({
      code: 'InvalidParameterException',
      message: expect.stringContaining(text),
    });
    expect(texts(logs.GetLogEvents(null, { logGroupName: GROUP, logStreamName: 's' }))).toEqual([]);
  });

  test('nobody can write into the stream of a host or take its name', () => {
    const logStreamName = write('job', 'algo-1', 1);
    const target = { logGroupName: TRAINING_LOG_GROUP };
    const logEvents = [{ timestamp: NOW, message: 'forged' }];
    expect(refusal(() => logs.PutLogEvents(null, { ...target, logStreamName, logEvents })).message).toContain(
      'reserved',
    );
    const taken = { ...target, logStreamName: 'job/algo-2-1800000000' };
    expect(refusal(() => logs.CreateLogStream(null, taken)).message).toContain('reserved');
    expect(texts(get(logStreamName))).toEqual(['line 0']);
  });

  test('a deleted stream is gone for clients and can be made again', () => {
    put([{ timestamp: NOW, message: 'a' }]);
    logs.DeleteLogStream(null, { logGroupName: GROUP, logStreamName: 's' });
    expect(refusal(() => put([])).code).toBe('ResourceNotFoundException');
    logs.CreateLogStream(null, { logGroupName: GROUP, logStreamName: 's' });
    put([{ timestamp: NOW, message: 'b' }]);
    expect(texts(logs.GetLogEvents(null, { logGroupName: GROUP, logStreamName: 's' }))).toEqual(['b']);
  });
});
