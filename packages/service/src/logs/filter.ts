import type { FilterLogEventsRequest, FilterLogEventsResponse } from '@trainyard/api';
import { jsonError } from '@trainyard/api';
import { ALWAYS, eventBytes, MAX_PAGE_BYTES, MAX_PAGE_EVENTS } from './events.ts';
import { compileFilterPattern, FilterPatternError } from './filter-pattern.ts';
import { mergeByTime } from './merge.ts';
import type { LogStore } from './store.ts';
import type { TimePosition } from './tokens.ts';
import { eventId, formatTimeToken, parseTimeToken } from './tokens.ts';

/** A page that matches little may end empty: one call does not hold up the service for longer than this many lines. */
const MAX_SCANNED_EVENTS = 100_000;

/** One page of FilterLogEvents: the lines of several streams by time, oldest first unless told otherwise. */
export function filterEvents(
  store: LogStore,
  group: string,
  input: FilterLogEventsRequest,
): FilterLogEventsResponse {
  const invalid = (message: string) => jsonError('InvalidParameterException', { message });
  const isDescending = input.startFromHead === false;
  const limit = input.limit ?? MAX_PAGE_EVENTS;
  // Unlike in GetLogEvents, a line at endTime belongs to the answer.
  const window = {
    startAt: input.startTime ?? ALWAYS.startAt,
    endAt: input.endTime === undefined ? ALWAYS.endAt : input.endTime + 1,
  };
  const from = input.nextToken === undefined ? null : parseTimeToken(input.nextToken);
  if (from === undefined || (from !== null && from.isDescending !== isDescending)) {
    throw invalid('The specified nextToken is invalid.');
  }
  const matches = matcherOf(input.filterPattern ?? '');

  const names = input.logStreamNames === undefined ? null : new Set(input.logStreamNames);
  const rows = store.streams
    .inWindow(group, input.logStreamNamePrefix ?? '', window.startAt, window.endAt)
    .filter((row) => names === null || names.has(row.name));
  const nameOf = new Map(rows.map((row) => [row.id, row.name]));
  const chunkSize = Math.min(512, Math.max(16, Math.ceil((2 * limit) / Math.max(1, rows.length))));
  const merged = mergeByTime(
    rows.map((row) => {
      const place = from === null ? null : placeIn(row.id, from);
      return store.events.sourceByTime(row, window, place, { isDescending, chunkSize });
    }),
    isDescending,
  );

  const events: NonNullable<FilterLogEventsResponse['events']> = [];
  let [bytes, scanned] = [0, 0];
  let last: TimePosition | null = null;
  let isCut = false;
  for (const { at, streamId, seq, message, ingestedAt } of merged) {
    const isMatch = matches(message);
    if (isMatch) bytes += eventBytes(message);
    isCut =
      events.length === limit ||
      (bytes > MAX_PAGE_BYTES && events.length > 0) ||
      scanned === MAX_SCANNED_EVENTS;
    if (isCut) break;
    scanned++;
    last = { isDescending, at, streamId, seq };
    if (!isMatch) continue;
    events.push({
      logStreamName: nameOf.get(streamId),
      timestamp: at,
      message,
      ingestionTime: ingestedAt,
      eventId: eventId(streamId, seq),
    });
  }
  return {
    events,
    searchedLogStreams: [],
    ...(isCut && last !== null ? { nextToken: formatTimeToken(last) } : {}),
  };

  function matcherOf(pattern: string): (message: string) => boolean {
    try {
      return compileFilterPattern(pattern);
    } catch (error) {
      throw error instanceof FilterPatternError ? invalid(error.message) : error;
    }
  }
}

/** Where to go on in a stream after an event of this or another stream: at the same time, streams go by id. */
function placeIn(streamId: number, from: TimePosition): { at: number; seq: number } {
  if (streamId === from.streamId) return { at: from.at, seq: from.seq };
  const isStillToCome = from.isDescending ? streamId < from.streamId : streamId > from.streamId;
  return { at: from.at, seq: isStillToCome === from.isDescending ? Number.MAX_SAFE_INTEGER : -1 };
}
