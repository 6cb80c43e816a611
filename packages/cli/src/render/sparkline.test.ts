import { expect, test } from 'vitest';
import { sparkline } from './sparkline.ts';

test('a falling loss falls', () => {
  expect(sparkline([8, 7, 6, 5, 4, 3, 2, 1], 20)).toBe('█▇▆▅▄▃▂▁');
});

test('a long course is averaged into the width and keeps both ends', () => {
  const line = sparkline(
    Array.from({ length: 1000 }, (_, index) => 1000 - index),
    10,
  );
  expect(line).toHaveLength(10);
  expect(line.startsWith('█')).toBe(true);
  expect(line.endsWith('▁')).toBe(true);
});

test('nothing, one value, equal values and values that are not numbers do not break it', () => {
  expect(sparkline([], 10)).toBe('');
  expect(sparkline([2], 10)).toBe('▄');
  expect(sparkline([2, 2], 10)).toBe('▄▄');
  expect(sparkline([1, Number.NaN, 2], 10)).toBe('▁·█');
});
