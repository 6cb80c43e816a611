import { expect, test } from 'vitest';
import { formatDuration } from './duration.ts';

test.each([
  [0, '0.0 s'],
  [-3, '0.0 s'],
  [449, '0.4 s'],
  [59_900, '59.9 s'],
  [59_960, '1 min 00 s'],
  [185_400, '3 min 05 s'],
  [3_599_700, '1 h 00 min'],
  [7_650_000, '2 h 07 min'],
])('%i ms reads %s', (durationMs, text) => {
  expect(formatDuration(durationMs)).toBe(text);
});
