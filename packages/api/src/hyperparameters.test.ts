import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  compactPythonJson,
  decodeHyperparameter,
  encodeHyperparameters,
  pythonJson,
  pythonRepr,
  pythonStr,
} from './hyperparameters.ts';
import { PythonFloat } from './python-value.ts';

interface Case {
  text: string;
  decoded: boolean;
  json: string;
  compact: string;
  repr: string;
  str: string;
}

const cases = JSON.parse(
  readFileSync(new URL('./generated/python-values.fixture.json', import.meta.url), 'utf8'),
) as Case[];

describe('like CPython', () => {
  test.each(cases.map((row) => [row.text, row] as const))('%j is read and printed alike', (text, row) => {
    const value = decodeHyperparameter(text);
    expect(pythonJson(value)).toBe(row.json);
    expect(compactPythonJson(value)).toBe(row.compact);
    expect(pythonRepr(value)).toBe(row.repr);
    expect(pythonStr(value)).toBe(row.str);
    if (!row.decoded) expect(value).toBe(text);
  });
});

test('values of the SDK are encoded as json.dumps does', () => {
  expect(
    encodeHyperparameters({
      opt: 'adam',
      debug: true,
      none: null,
      lr: 0.1,
      epochs: 3,
      tiny: 1e-5,
      mp: { a: 1, b: [2] },
    }),
  ).toEqual({
    opt: '"adam"',
    debug: 'true',
    none: 'null',
    lr: '0.1',
    epochs: '3',
    tiny: '1e-05',
    mp: '{"a": 1, "b": [2]}',
  });
});

test('a float without fraction keeps its point only as PythonFloat', () => {
  expect(pythonJson(1)).toBe('1');
  expect(pythonJson(new PythonFloat(1))).toBe('1.0');
  expect(pythonRepr([new PythonFloat(-0)])).toBe('[-0.0]');
  expect(pythonJson(2 ** 53)).toBe('9007199254740992.0');
  expect(pythonJson(2n ** 64n)).toBe('18446744073709551616');
});

test('an integer of more digits than Python reads stays text', () => {
  expect(decodeHyperparameter('9'.repeat(4300))).toBeTypeOf('bigint');
  expect(decodeHyperparameter('9'.repeat(4301))).toBeTypeOf('string');
});

test('what is written is read back', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const text = pythonJson(value as never);
      expect(pythonJson(decodeHyperparameter(text))).toBe(text);
      expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)));
    }),
  );
});

test('a value that Python does not have is refused with its path', () => {
  expect(() => encodeHyperparameters({ when: { at: new Date(0) } as never })).toThrow(
    /^when\.at is an object of a class/,
  );
  expect(() => encodeHyperparameters({ gap: undefined as never })).toThrow(/^gap is undefined/);
});
