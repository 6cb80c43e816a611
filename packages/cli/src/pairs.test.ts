import { PythonFloat, pythonJson } from '@trainyard/api';
import { expect, test } from 'vitest';
import { parseHyperparameters, parsePairs, wholeNumber } from './pairs.ts';

test('a value keeps its equals signs and its order', () => {
  expect(Object.entries(parsePairs('--input', ['b=s3://x/y?a=1', 'a=']))).toEqual([
    ['b', 's3://x/y?a=1'],
    ['a', ''],
  ]);
});

test.each([
  [['epochs'], '-p is epochs; write -p NAME=VALUE.'],
  [['=5'], '-p is =5; write -p NAME=VALUE.'],
  [['a=1', 'a=2'], '-p a is given twice: 1 and 2.'],
])('%j is refused with the form that is needed', (texts, message) => {
  expect(() => parsePairs('-p', texts)).toThrow(message);
});

test('values reach the script as they were typed', () => {
  const values = parseHyperparameters('-p', [
    'a=1',
    'b=1.0',
    'c=true',
    'd=adam',
    'e=[1, 2]',
    'f=1e-3',
    'g=007',
  ]);
  expect(values['b']).toBeInstanceOf(PythonFloat);
  expect(
    Object.fromEntries(Object.entries(values).map(([name, value]) => [name, pythonJson(value)])),
  ).toEqual({
    a: '1',
    b: '1.0',
    c: 'true',
    d: '"adam"',
    e: '[1, 2]',
    f: '0.001',
    g: '"007"',
  });
});

test.each(['0', '-1', '1.5', 'two', ''])('--instances %j is refused', (text) => {
  expect(() => wholeNumber('--instances', 1)(text)).toThrow('it must be a whole number of at least 1');
});
