import type { InputLogEvent, RejectedLogEventsInfo } from '@trainyard/api';
import { jsonError } from '@trainyard/api';
import type { NewEvent } from './events.ts';
import { eventBytes } from './events.ts';

const HOUR_MS = 3_600_000;
const MAX_BATCH_BYTES = 1_048_576;
const MAX_BATCH_SPAN_MS = 24 * HOUR_MS;
const MAX_AHEAD_MS = 2 * HOUR_MS;
const MAX_AGE_MS = 14 * 24 * HOUR_MS;

export interface AcceptedEvents {
  accepted: NewEvent[];
  /** Null when all were accepted. */
  rejected: RejectedLogEventsInfo | null;
}

/**
 * The rules of PutLogEvents: a wrong batch is refused as a whole, events too old or too far ahead are left out.
 *
 * @throws ServiceError InvalidParameterException when the batch is too large, too wide or not in order
 */
export function acceptEvents(logEvents: readonly InputLogEvent[], now: number): AcceptedEvents {
  const bytes = logEvents.reduce((sum, { message }) => sum + eventBytes(message), 0);
  if (bytes > MAX_BATCH_BYTES) {
    throw invalid(`Upload too large: ${bytes} bytes exceeds limit of ${MAX_BATCH_BYTES}`);
  }
  const isOrdered = logEvents.every(({ timestamp }, index) => {
    const before = logEvents[index - 1];
    return before === undefined || before.timestamp <= timestamp;
  });
  if (!isOrdered) {
    throw invalid('Log events in a single PutLogEvents request must be in chronological order.');
  }
  const [first, last] = [logEvents[0]?.timestamp ?? 0, logEvents.at(-1)?.timestamp ?? 0];
  if (last - first > MAX_BATCH_SPAN_MS) {
    throw invalid('The batch of log events in a single PutLogEvents request cannot span more than 24 hours.');
  }
  const oldEnd = logEvents.findIndex(({ timestamp }) => timestamp >= now - MAX_AGE_MS);
  const start = oldEnd === -1 ? logEvents.length : oldEnd;
  const newStart = logEvents.findIndex(({ timestamp }) => timestamp > now + MAX_AHEAD_MS);
  const end = newStart === -1 ? logEvents.length : newStart;
  const accepted = logEvents
    .slice(start, end)
    .map(({ timestamp, message }) => ({ at: timestamp, source: 'client', rank: null, message }));
  const rejected: RejectedLogEventsInfo = {
    ...(start > 0 ? { tooOldLogEventEndIndex: start } : {}),
    ...(newStart === -1 ? {} : { tooNewLogEventStartIndex: newStart }),
  };
  return { accepted, rejected: Object.keys(rejected).length === 0 ? null : rejected };
}

const invalid = (message: string) => jsonError('InvalidParameterException', { message });
