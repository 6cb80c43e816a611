/**
 * Milliseconds of the system's monotonic clock. It is the same clock for every process since boot, so a value
 * on disk keeps its meaning after a crash, and it stands still while the machine sleeps: a closed laptop does
 * not use up a job's time.
 */
export const monotonicMs = (): number => Number(process.hrtime.bigint() / 1_000_000n);

/** `3.4 MB`, `812 B`: decimal units, as file managers show them. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** `0.2 s`. */
export const formatSeconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

/** `1 file`, `12 files`. */
export const plural = (count: number, word: string): string => `${count} ${word}${count === 1 ? '' : 's'}`;
