import type { ArnScope, LogGroup, LogStream, LogsOperations } from '@trainyard/api';
import { jsonError, logGroupArn, logStreamArn } from '@trainyard/api';
import type { EventPage } from './events.ts';
import { ALWAYS, MAX_PAGE_EVENTS } from './events.ts';
import { filterEvents } from './filter.ts';
import { acceptEvents } from './put.ts';
import type { LogStore } from './store.ts';
import { groupOfIdentifier, isReservedForHosts } from './stream-name.ts';
import type { LogGroupRow, LogStreamRow } from './streams.ts';
import { formatNameToken, formatStreamToken, parseNameToken, parseStreamToken } from './tokens.ts';

type Handlers = {
  [O in keyof LogsOperations]: (
    context: unknown,
    input: LogsOperations[O]['input'],
  ) => LogsOperations[O]['output'];
};

export interface LogsOperationsOptions {
  account: ArnScope;
  /** Epoch milliseconds. */
  now: () => number;
}

const MAX_LISTING = 50;
const invalid = (message: string) => jsonError('InvalidParameterException', { message });
const invalidToken = () => invalid('The specified nextToken is invalid.');
const noGroup = () =>
  jsonError('ResourceNotFoundException', { message: 'The specified log group does not exist.' });
const noStream = () =>
  jsonError('ResourceNotFoundException', { message: 'The specified log stream does not exist.' });

/**
 * CloudWatch Logs over the log store, in AWS's words. Lines are numbered per stream, and a stream is read in the
 * order of its numbers; FilterLogEvents goes through several streams by time.
 * (docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference)
 */
export function createLogsOperations(store: LogStore, { account, now }: LogsOperationsOptions): Handlers {
  const { streams, events } = store;

  /** Takes the name or, as identifier, the name or the ARN. */
  function groupOf(input: { logGroupName?: string; logGroupIdentifier?: string }): string {
    if ((input.logGroupName === undefined) === (input.logGroupIdentifier === undefined)) {
      throw invalid('Either logGroupName or logGroupIdentifier must be given, and not both.');
    }
    const group = input.logGroupName ?? groupOfIdentifier(input.logGroupIdentifier ?? '');
    if (!streams.hasGroup(group)) throw noGroup();
    return group;
  }

  function streamOf(group: string, name: string): LogStreamRow {
    const stream = streams.find(group, name);
    if (stream === undefined) throw noStream();
    return stream;
  }

  function refuseHostStream(group: string, stream: string): void {
    if (!isReservedForHosts(group, stream)) return;
    throw invalid(
      `logStreamName '${stream}' is reserved: <job>/algo-<n>-<seconds> in ${group} is written by the hosts of training jobs only. Choose another name.`,
    );
  }

  const describeGroup = ({ name, createdAt, storedBytes }: LogGroupRow): LogGroup => {
    const arn = logGroupArn(account, name);
    return {
      logGroupName: name,
      creationTime: createdAt,
      metricFilterCount: 0,
      arn,
      logGroupArn: arn.replace(/:\*$/, ''),
      storedBytes,
      logGroupClass: 'STANDARD',
    };
  };

  const describeStream = (row: LogStreamRow): LogStream => ({
    logStreamName: row.name,
    creationTime: row.createdAt,
    firstEventTimestamp: row.firstAt ?? undefined,
    lastEventTimestamp: row.lastAt ?? undefined,
    lastIngestionTime: row.lastIngestedAt ?? undefined,
    uploadSequenceToken: String(row.nextSeq),
    arn: logStreamArn(account, row.group, row.name),
    storedBytes: row.storedBytes,
  });

  return {
    CreateLogGroup(_context, { logGroupName }) {
      if (streams.createGroup(logGroupName, now())) return {};
      throw jsonError('ResourceAlreadyExistsException', {
        message: 'The specified log group already exists',
      });
    },

    DeleteLogGroup(_context, { logGroupName }) {
      if (!streams.deleteGroup(logGroupName)) throw noGroup();
      return {};
    },

    CreateLogStream(_context, { logGroupName, logStreamName }) {
      if (!streams.hasGroup(logGroupName)) throw noGroup();
      refuseHostStream(logGroupName, logStreamName);
      if (streams.create(logGroupName, logStreamName, now())) return {};
      throw jsonError('ResourceAlreadyExistsException', {
        message: 'The specified log stream already exists',
      });
    },

    DeleteLogStream(_context, { logGroupName, logStreamName }) {
      if (!streams.hasGroup(logGroupName)) throw noGroup();
      if (!streams.delete(logGroupName, logStreamName)) throw noStream();
      return {};
    },

    DescribeLogGroups(_context, input) {
      const {
        logGroupIdentifiers,
        logGroupNamePattern,
        logGroupNamePrefix,
        nextToken,
        limit = MAX_LISTING,
      } = input;
      if (logGroupNamePrefix !== undefined && logGroupNamePattern !== undefined) {
        throw invalid('LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.');
      }
      if (logGroupIdentifiers !== undefined) {
        const names = new Set(logGroupIdentifiers.map(groupOfIdentifier));
        const found = [...names].flatMap((name) =>
          streams
            .listGroups({ prefix: name, part: '', after: '', limit: 1 })
            .filter((row) => row.name === name),
        );
        return { logGroups: found.map(describeGroup) };
      }
      const after = nextToken === undefined ? undefined : parseNameToken(nextToken);
      if (nextToken !== undefined && after === undefined) throw invalidToken();
      const rows = streams.listGroups({
        prefix: logGroupNamePrefix ?? '',
        part: logGroupNamePattern ?? '',
        after: after?.name ?? '',
        limit: limit + 1,
      });
      const page = rows.slice(0, limit);
      const last = rows.length > limit ? page.at(-1) : undefined;
      return {
        logGroups: page.map(describeGroup),
        ...(last === undefined ? {} : { nextToken: formatNameToken(0, last.name) }),
      };
    },

    DescribeLogStreams(_context, input) {
      const { logStreamNamePrefix = '', orderBy = 'LogStreamName', descending = false, nextToken } = input;
      const limit = input.limit ?? MAX_LISTING;
      const group = groupOf(input);
      if (orderBy === 'LastEventTime' && logStreamNamePrefix !== '') {
        throw invalid('Cannot order by LastEventTime with a logStreamNamePrefix.');
      }
      const after = nextToken === undefined ? null : parseNameToken(nextToken);
      if (after === undefined) throw invalidToken();
      const rows = streams.list({
        group,
        prefix: logStreamNamePrefix,
        orderBy,
        isDescending: descending,
        after,
        limit: limit + 1,
      });
      const page = rows.slice(0, limit);
      // Never a token on the last page: the SageMaker SDK v2 repeats the call as long as there is one.
      const last = rows.length > limit ? page.at(-1) : undefined;
      const sortKey = orderBy === 'LastEventTime' ? (last?.lastAt ?? 0) : 0;
      return {
        logStreams: page.map(describeStream),
        ...(last === undefined ? {} : { nextToken: formatNameToken(sortKey, last.name) }),
      };
    },

    GetLogEvents(_context, input) {
      const stream = streamOf(groupOf(input), input.logStreamName);
      const window = {
        startAt: input.startTime ?? ALWAYS.startAt,
        endAt: input.endTime ?? ALWAYS.endAt,
        limit: input.limit ?? MAX_PAGE_EVENTS,
      };
      let page: EventPage;
      if (input.nextToken === undefined) {
        page = input.startFromHead
          ? events.readForward(stream, 0, window)
          : events.readBackward(stream, stream.nextSeq, window);
      } else {
        const position = parseStreamToken(input.nextToken);
        if (position?.streamId !== stream.id) throw invalidToken();
        page =
          position.direction === 'f'
            ? events.readForward(stream, position.seq, window)
            : events.readBackward(stream, position.seq, window);
      }
      return {
        events: page.events.map(({ at, message, ingestedAt }) => ({
          timestamp: at,
          message,
          ingestionTime: ingestedAt,
        })),
        nextForwardToken: formatStreamToken({ direction: 'f', streamId: stream.id, seq: page.toSeq }),
        nextBackwardToken: formatStreamToken({ direction: 'b', streamId: stream.id, seq: page.fromSeq }),
      };
    },

    FilterLogEvents(_context, input) {
      const group = groupOf(input);
      if (input.logStreamNames !== undefined && input.logStreamNamePrefix !== undefined) {
        throw invalid('logStreamNames and logStreamNamePrefix are mutually exclusive parameters.');
      }
      for (const name of input.logStreamNames ?? []) streamOf(group, name);
      return filterEvents(store, group, input);
    },

    PutLogEvents(_context, { logGroupName, logStreamName, logEvents }) {
      if (!streams.hasGroup(logGroupName)) throw noGroup();
      const stream = streamOf(logGroupName, logStreamName);
      refuseHostStream(logGroupName, logStreamName);
      const { accepted, rejected } = acceptEvents(logEvents, now());
      store.appendClientEvents(stream, accepted);
      return {
        nextSequenceToken: String(stream.nextSeq + accepted.length),
        ...(rejected === null ? {} : { rejectedLogEventsInfo: rejected }),
      };
    },
  };
}
