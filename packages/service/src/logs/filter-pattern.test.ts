import { expect, test } from 'vitest';
import { compileFilterPattern, FilterPatternError } from './filter-pattern.ts';

test.each([
  ['', 'anything', true],
  ['ERROR', '[ERROR 400] BAD REQUEST', true],
  ['ERROR', 'error', false],
  ['ERROR ARGUMENTS', 'ERROR with too few ARGUMENTS', true],
  ['ERROR ARGUMENTS', 'ERROR only', false],
  ['"INTERNAL SERVER ERROR"', '500 INTERNAL SERVER ERROR', true],
  ['"INTERNAL SERVER ERROR"', 'INTERNAL ERROR of a SERVER', false],
  ['?loss ?accuracy', 'accuracy=0.9', true],
  ['?loss ?accuracy', 'epoch 3', false],
  ['epoch -DEBUG', 'epoch 3', true],
  ['epoch -DEBUG', 'DEBUG epoch 3', false],
  ['-"rank 1"', 'rank 0 says', true],
  ['-"rank 1"', 'rank 1 says', false],
  ['"say \\"hi\\""', 'they say "hi"', true],
  ['loss=0.5', 'step 1 loss=0.5', true],
])('the pattern %j on %j gives %j', (pattern, message, expected) => {
  expect(compileFilterPattern(pattern)(message)).toBe(expected);
});

test.each(['{ $.a = 1 }', '[a, b]', '%x%', '"open', 'a "b"c'])(
  'the pattern %j is refused by name',
  (pattern) => {
    expect(() => compileFilterPattern(pattern)).toThrow(FilterPatternError);
    expect(() => compileFilterPattern(pattern)).toThrow(pattern);
  },
);
