export interface LogEventRow {
  streamId: number;
  seq: number;
  /** Epoch milliseconds, as the sender saw it. */
  at: number;
  ingestedAt: number;
  source: string;
  rank: number | null;
  message: string;
}

/** The events of one stream, read only when their turn comes. */
export interface EventSource {
  streamId: number;
  /** No event of this stream lies before this time (after it, when descending). */
  boundAt: number;
  rows: () => Iterator<LogEventRow>;
}

interface Head {
  at: number;
  streamId: number;
  seq: number;
  /** Null until the stream was opened: then `at` is only its bound. */
  row: LogEventRow | null;
  rows: Iterator<LogEventRow>;
}

/**
 * Goes through several streams at once in the order of time; at equal times by stream, then by number. Each
 * stream keeps its own order even where its clock stepped back. A stream is opened when the walk reaches its
 * bound, so that a group with thousands of streams costs one page of those that matter.
 */
export function* mergeByTime(sources: readonly EventSource[], isDescending = false): Generator<LogEventRow> {
  const sign = isDescending ? -1 : 1;
  const isBefore = (a: Head, b: Head): boolean =>
    sign * (a.at - b.at || a.streamId - b.streamId || a.seq - b.seq) < 0;
  const heads: Head[] = []; // the next one is last
  const insert = (head: Head): void => {
    let [low, high] = [0, heads.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBefore(head, heads[middle] as Head)) low = middle + 1;
      else high = middle;
    }
    heads.splice(low, 0, head);
  };
  for (const { streamId, boundAt, rows } of sources) {
    const seq = isDescending ? Number.MAX_SAFE_INTEGER : -1;
    insert({ at: boundAt, streamId, seq, row: null, rows: rows() });
  }
  for (let head = heads.pop(); head !== undefined; head = heads.pop()) {
    if (head.row !== null) yield head.row;
    const next = head.rows.next();
    if (!next.done) insert({ ...next.value, row: next.value, rows: head.rows });
  }
}
