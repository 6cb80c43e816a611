import { describe, expect, it } from 'vitest';
import { contentRange, parseCopyRange, parseRange } from './range.ts';

describe('ranges', () => {
  it.each([
    ['bytes=0-0', { start: 0, end: 1 }],
    ['bytes=2-', { start: 2, end: 10 }],
    ['bytes=2-100', { start: 2, end: 10 }],
    ['bytes=-3', { start: 7, end: 10 }],
    ['bytes=-100', { start: 0, end: 10 }],
  ])('reads %s of ten bytes', (header, range) => {
    expect(parseRange(header, 10)).toEqual(range);
  });

  it.each([
    undefined,
    '',
    'bytes',
    'bytes=-',
    'bytes=3-2',
    'bytes=0-1,3-4',
    'items=0-1',
    'bytes=a-b',
    'bytes= 0-1',
  ])('ignores %s', (header) => {
    expect(parseRange(header, 10)).toBeUndefined();
  });

  it('refuses a range without any byte of the object, and says its size', () => {
    for (const [header, size] of [
      ['bytes=10-', 10],
      ['bytes=-0', 10],
      ['bytes=0-', 0],
      ['bytes=-1', 0],
    ] as const) {
      expect(() => parseRange(header, size), header).toThrow(
        expect.objectContaining({
          code: 'InvalidRange',
          status: 416,
          headers: { 'content-range': `bytes */${size}` },
        }),
      );
    }
  });

  it('takes only ranges within the source for a copy', () => {
    expect(parseCopyRange(undefined, 10)).toBeUndefined();
    expect(parseCopyRange('bytes=0-9', 10)).toEqual({ start: 0, end: 10 });
    for (const header of ['bytes=0-10', 'bytes=5-4', 'bytes=5-', 'bytes=-5', '0-5']) {
      expect(() => parseCopyRange(header, 10), header).toThrow('must be bytes=first-last');
    }
  });

  it('writes what was sent of what there is', () => {
    expect(contentRange({ start: 2, end: 5 }, 10)).toBe('bytes 2-4/10');
  });
});
