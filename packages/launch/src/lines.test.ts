import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { cutLines, MAX_LINE_BYTES } from './lines.ts';

const cut = (text: string, flush = false, maxLines = 1000) =>
  cutLines(Buffer.from(text), { flush, maxLines });

describe('cutting bytes into lines', () => {
  it.each([
    ['whole lines', 'a\nbc\n', ['a', 'bc'], 5],
    ['a line without an end waits', 'a\nbc', ['a'], 2],
    ['empty lines are lines', '\n\na\n', ['', '', 'a'], 4],
    ['a carriage return before the end is dropped', 'a\r\nb\n', ['a', 'b'], 5],
    ['a progress bar stays one line', '10%\r20%\r100%\n', ['10%\r20%\r100%'], 13],
  ])('%s', (_, text, lines, consumed) => {
    expect(cut(text)).toEqual({ lines, consumed });
  });

  it('takes the last line without an end when no more will come', () => {
    expect(cut('a\nbc\r', true)).toEqual({ lines: ['a', 'bc\r'], consumed: 5 });
  });

  it('stops at the most lines', () => {
    expect(cut('a\nb\nc\n', false, 2)).toEqual({ lines: ['a', 'b'], consumed: 4 });
  });

  it('cuts a longer line than CloudWatch takes, never inside a character', () => {
    const text = 'é'.repeat(MAX_LINE_BYTES / 2 + 100);
    const { lines, consumed } = cut(`x${text}\n`);
    expect(lines.join('')).toBe(`x${text}`);
    expect(lines.map((line) => Buffer.byteLength(line))).toEqual([MAX_LINE_BYTES - 1, 202]);
    expect(consumed).toBe(Buffer.byteLength(text) + 2);
  });
});

test('the bytes that were consumed give the same lines again: a batch can be made anew', () => {
  const piece = fc.constantFrom('a', '\n', '\r', 'é', '日', 'x'.repeat(90_000));
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), fc.nat(40), fc.boolean(), (pieces, maxLines, flush) => {
      const bytes = Buffer.from(pieces.join(''));
      const first = cutLines(bytes, { flush, maxLines });
      const again = cutLines(bytes.subarray(0, first.consumed), { flush: true, maxLines: 1000 });
      expect(again).toEqual(first);
    }),
  );
});
