const BARS = '▁▂▃▄▅▆▇█';

/**
 * The values as one bar each, the lowest and highest as lowest and highest bar. More values than `width` are
 * averaged in equal groups, so the line always shows the whole course; a value that is not finite becomes `·`.
 */
export function sparkline(values: readonly number[], width: number): string {
  const shown = values.length <= width ? values : averaged(values, width);
  const finite = shown.filter(Number.isFinite);
  const least = Math.min(...finite);
  const span = Math.max(...finite) - least;
  return shown
    .map((value) => {
      if (!Number.isFinite(value)) return '·';
      // A flat course is drawn low in the middle rather than as full or empty bars, which would look like a limit.
      const height = span > 0 ? (value - least) / span : 0.4;
      return BARS[Math.min(BARS.length - 1, Math.floor(height * BARS.length))];
    })
    .join('');
}

function averaged(values: readonly number[], width: number): number[] {
  return Array.from({ length: width }, (_, index) => {
    const start = Math.floor((index * values.length) / width);
    const group = values.slice(start, Math.floor(((index + 1) * values.length) / width));
    return group.reduce((sum, value) => sum + value, 0) / group.length;
  });
}
