import { expect, test } from 'vitest';
import { courseToShow, formatMetric, MetricCourse } from './metric-course.ts';

test('a course keeps its first and last value and stays small however long it gets', () => {
  const course = new MetricCourse('loss');
  for (let step = 0; step < 100_000; step++) course.add(100_000 - step);
  expect(course.range()).toBe('loss 100000 → 1');
  expect(course.line(8)).toBe('loss █▇▆▅▄▃▂▁ 1');
});

test('a loss is shown before other metrics', () => {
  const [accuracy, loss] = [new MetricCourse('accuracy'), new MetricCourse('eval:loss')];
  expect(courseToShow([accuracy, loss])).toBe(loss);
  expect(courseToShow([accuracy])).toBe(accuracy);
  expect(courseToShow([])).toBeNull();
});

test.each([
  [0, '0'],
  [0.012345, '0.01235'],
  [2, '2'],
  [0.00001234, '1.23e-5'],
  [12_345_678, '1.23e+7'],
  [Number.NaN, 'NaN'],
])('%d reads %s', (value, text) => {
  expect(formatMetric(value)).toBe(text);
});
