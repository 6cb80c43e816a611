import type { ObjectInfo, WriteCondition } from '../../objects/object-store.ts';
import type { S3Context } from './context.ts';
import { S3Error } from './errors.ts';

/**
 * Conditions of reading, in the order of RFC 9110 section 13.2.2: the etag wins over the date.
 *
 * @param prefix `x-amz-copy-source-` for the source of a copy, for which "not modified" is a failure too
 * @throws S3Error PreconditionFailed or NotModified
 */
export function assertReadable(
  context: S3Context,
  info: ObjectInfo,
  prefix: '' | 'x-amz-copy-source-' = '',
): void {
  const header = (name: string) => context.header(prefix + name);
  const ifMatch = header('if-match');
  const ifNoneMatch = header('if-none-match');
  const failed = (condition: string) =>
    new S3Error('PreconditionFailed', undefined, { Condition: prefix + condition });
  const notModified = () =>
    prefix === ''
      ? new S3Error(
          'NotModified',
          undefined,
          {},
          { etag: `"${info.etag}"`, 'last-modified': httpDate(info.modifiedAt) },
        )
      : failed('If-None-Match');

  if (ifMatch !== undefined) {
    if (!matches(ifMatch, info.etag)) throw failed('If-Match');
  } else {
    const since = parseDate(header('if-unmodified-since'));
    if (since !== null && seconds(info.modifiedAt) > since) throw failed('If-Unmodified-Since');
  }
  if (ifNoneMatch !== undefined) {
    if (matches(ifNoneMatch, info.etag)) throw notModified();
  } else {
    const since = parseDate(header('if-modified-since'));
    if (since !== null && seconds(info.modifiedAt) <= since) throw notModified();
  }
}

/** `If-Range`: the range counts only for the object that the client has the rest of, else it wants the whole. */
export function isSameForRange(context: S3Context, info: ObjectInfo): boolean {
  const validator = context.header('if-range')?.trim();
  return validator === undefined || validator === `"${info.etag}"` || validator === httpDate(info.modifiedAt);
}

/** Conditions of writing: `If-None-Match: *` and `If-Match: <etag>`, as S3 has them. */
export function writeCondition(context: S3Context): WriteCondition | undefined {
  const ifNoneMatch = context.header('if-none-match');
  const ifMatch = context.header('if-match');
  if (ifNoneMatch === undefined && ifMatch === undefined) return undefined;
  if (ifNoneMatch !== undefined && (ifNoneMatch.trim() !== '*' || ifMatch !== undefined)) {
    throw new S3Error(
      'NotImplemented',
      'If-None-Match can only be * when writing, and not together with If-Match.',
    );
  }
  return ifMatch === undefined ? { ifAbsent: true } : { ifMatch: parseEtags(ifMatch) };
}

export function httpDate(milliseconds: number): string {
  return new Date(milliseconds).toUTCString();
}

export function parseEtag(text: string): string {
  return text.trim().replace(/^(?:W\/)?"(.*)"$/, '$1');
}

function parseEtags(header: string): string[] {
  return header.split(',').map(parseEtag);
}

function matches(header: string, etag: string): boolean {
  const etags = parseEtags(header);
  return etags.includes('*') || etags.includes(etag);
}

/** Headers carry whole seconds. */
function seconds(milliseconds: number): number {
  return Math.floor(milliseconds / 1000);
}

function parseDate(header: string | undefined): number | null {
  const time = header === undefined ? Number.NaN : Date.parse(header);
  return Number.isNaN(time) ? null : seconds(time); // RFC 9110: an invalid date is ignored
}
