/**
 * Paging tokens of the log operations. They hold positions in the store and nothing else, so they outlive a
 * restart of the service and never expire; the stream's id in them tells a token of another stream.
 */

/** A place between two events of one stream: before the event `seq`. */
export interface StreamPosition {
  direction: 'f' | 'b';
  streamId: number;
  seq: number;
}

/** The last event seen while going through several streams by time. */
export interface TimePosition {
  isDescending: boolean;
  at: number;
  streamId: number;
  seq: number;
}

/** `f/…` and `b/…` with 56 digits, the form of CloudWatch's own. */
export function formatStreamToken({ direction, streamId, seq }: StreamPosition): string {
  return `${direction}/${String(streamId).padStart(28, '0')}${String(seq).padStart(28, '0')}`;
}

export function parseStreamToken(token: string): StreamPosition | undefined {
  const match = /^([fb])\/(\d{28})(\d{28})$/.exec(token);
  if (match === null) return undefined;
  const [streamId, seq] = [Number(match[2]), Number(match[3])];
  if (!Number.isSafeInteger(streamId) || !Number.isSafeInteger(seq)) return undefined;
  return { direction: match[1] as 'f' | 'b', streamId, seq };
}

export function formatTimeToken({ isDescending, at, streamId, seq }: TimePosition): string {
  return `${isDescending ? 'd' : 'a'}/${at}.${streamId}.${seq}`;
}

export function parseTimeToken(token: string): TimePosition | undefined {
  const match = /^([ad])\/(-?\d+)\.(\d+)\.(-?\d+)$/.exec(token);
  if (match === null) return undefined;
  const [at, streamId, seq] = [Number(match[2]), Number(match[3]), Number(match[4])];
  if (![at, streamId, seq].every(Number.isSafeInteger)) return undefined;
  return { isDescending: match[1] === 'd', at, streamId, seq };
}

/** Names of a listing: the last one that was returned, after its sort key. */
export function formatNameToken(sortKey: number, name: string): string {
  return Buffer.from(JSON.stringify([sortKey, name])).toString('base64url');
}

export function parseNameToken(token: string): { sortKey: number; name: string } | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(token, 'base64url').toString());
    if (!Array.isArray(value)) return undefined;
    const [sortKey, name] = value as unknown[];
    return Number.isSafeInteger(sortKey) && typeof name === 'string'
      ? { sortKey: sortKey as number, name }
      : undefined;
  } catch {
    return undefined;
  }
}

/** Unique over all streams for ever, the same at every reading: `aws logs tail` drops repeats by it. */
export function eventId(streamId: number, seq: number): string {
  return `${String(streamId).padStart(28, '0')}${String(seq).padStart(28, '0')}`;
}
