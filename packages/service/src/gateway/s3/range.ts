import type { ByteRange } from '../../objects/object-store.ts';
import { S3Error } from './errors.ts';

/**
 * The part of an object that a `Range` header asks for; undefined for the whole. S3 serves one range: a list of
 * ranges, or what is no byte range at all, is ignored (RFC 9110, section 14.2).
 *
 * @throws S3Error InvalidRange when no byte of it exists
 */
export function parseRange(header: string | undefined, sizeBytes: number): ByteRange | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header?.trim() ?? '');
  if (!match || (match[1] === '' && match[2] === '')) return undefined;
  const [first, last] = [match[1] ?? '', match[2] ?? ''].map((digits) =>
    digits === '' ? null : Number(digits),
  );
  if (first !== null && first !== undefined && last !== null && last !== undefined && last < first)
    return undefined;
  const start = first ?? Math.max(sizeBytes - (last ?? 0), 0);
  const end = first === null ? sizeBytes : Math.min((last ?? Number.POSITIVE_INFINITY) + 1, sizeBytes);
  if (start < end) return { start, end };
  throw new S3Error(
    'InvalidRange',
    undefined,
    { RangeRequested: header ?? '', ActualObjectSize: sizeBytes },
    { 'content-range': `bytes */${sizeBytes}` },
  );
}

/** `x-amz-copy-source-range`: both ends are required and must lie within the source. */
export function parseCopyRange(header: string | undefined, sizeBytes: number): ByteRange | undefined {
  if (header === undefined) return undefined;
  const match = /^bytes=(\d{1,15})-(\d{1,15})$/.exec(header);
  const range = match && { start: Number(match[1]), end: Number(match[2]) + 1 };
  if (range && range.start < range.end && range.end <= sizeBytes) return range;
  throw new S3Error(
    'InvalidArgument',
    `x-amz-copy-source-range is ${JSON.stringify(header)}; it must be bytes=first-last within the source's ${sizeBytes} bytes.`,
    { ArgumentName: 'x-amz-copy-source-range', ArgumentValue: header },
  );
}

export function contentRange(range: ByteRange, sizeBytes: number): string {
  return `bytes ${range.start}-${range.end - 1}/${sizeBytes}`;
}
