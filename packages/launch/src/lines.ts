/** CloudWatch's limit for an event is 256 KiB, of which it counts 26 bytes for itself. */
export const MAX_LINE_BYTES = 256 * 1024 - 26;

export interface CutOptions {
  /** Also take a last line that has no end yet. */
  flush: boolean;
  maxLines: number;
}

/**
 * Cuts bytes into lines. Only `\n` ends a line (a progress bar that returns to its start stays one line, as on AWS);
 * a `\r` before it is dropped; a longer line than {@link MAX_LINE_BYTES} is cut, never inside a character.
 *
 * The same bytes give the same lines when exactly `consumed` of them are cut again with `flush`; that is how a batch
 * of lines is made anew after a crash.
 */
export function cutLines(
  bytes: Buffer,
  { flush, maxLines }: CutOptions,
): { lines: string[]; consumed: number } {
  const lines: string[] = [];
  let start = 0;
  while (start < bytes.length && lines.length < maxLines) {
    const newline = bytes.indexOf(0x0a, start);
    const end = newline < 0 ? bytes.length : newline;
    if (end - start > MAX_LINE_BYTES) {
      const cut = characterStart(bytes, start + MAX_LINE_BYTES);
      lines.push(bytes.toString('utf8', start, cut));
      start = cut;
      continue;
    }
    if (newline < 0 && !flush) break;
    const isReturn = end > start && bytes[end - 1] === 0x0d && newline >= 0;
    lines.push(bytes.toString('utf8', start, isReturn ? end - 1 : end));
    start = newline < 0 ? end : newline + 1;
  }
  return { lines, consumed: start };
}

/** Steps back from the middle of a UTF-8 character to its first byte. */
function characterStart(bytes: Buffer, position: number): number {
  for (let back = 0; back < 4; back += 1) {
    if ((bytes[position - back]! & 0xc0) !== 0x80) return position - back;
  }
  return position;
}
