import { expect, test } from 'vitest';
import { baseNameOfImage, baseOfJobName, JOB_NAME_PATTERN, timestampedName } from './job-name.ts';

const now = new Date('2026-08-10T12:00:00.003Z');

test('a job name is the base and the time in UTC with milliseconds', () => {
  expect(timestampedName('pytorch-training', now)).toBe('pytorch-training-2026-08-10-12-00-00-003');
});

test('a long base is cut so that the name has 63 characters', () => {
  const name = timestampedName('b'.repeat(80), now);
  expect(name).toBe(`${'b'.repeat(39)}-2026-08-10-12-00-00-003`);
  expect(name).toHaveLength(63);
  expect(name).toMatch(JOB_NAME_PATTERN);
});

test.each([
  ['763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training:2.3-gpu-py311', 'pytorch-training'],
  ['registry.local:5000/team/my.image:latest', 'my.image'],
  ['my-image', 'my-image'],
  ['team/my-image@sha256:0123', 'my-image'],
])('the base name of image %s is %s', (image, base) => {
  expect(baseNameOfImage(image)).toBe(base);
});

test('the base of a job name is what stands before its timestamp', () => {
  expect(baseOfJobName(timestampedName('my-base', now))).toBe('my-base');
  expect(baseOfJobName('my-base-200810-1200')).toBe('my-base');
  expect(baseOfJobName('explicit-name')).toBe('explicit-name');
});
