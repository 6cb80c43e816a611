import { PythonFloat } from '@trainyard/api';
import { expect, test } from 'vitest';
import { compareCodePoints, scriptArguments } from './arguments.ts';

test('hyperparameters become arguments in the words of AWS’s toolkit', () => {
  expect(
    scriptArguments({
      'model-dir': '/opt/ml/model',
      lr: 1e-5,
      momentum: new PythonFloat(1),
      flag: true,
      nothing: null,
      list: [1, 'a'],
      nested: { b: 2, a: false },
      e: 3,
      empty: '',
      text: 'two words',
    }),
  ).toEqual([
    '-e',
    '3',
    '--empty',
    '',
    '--flag',
    'True',
    '--list',
    "[1, 'a']",
    '--lr',
    '1e-05',
    '--model-dir',
    '/opt/ml/model',
    '--momentum',
    '1.0',
    '--nested',
    'a=False,b=2',
    '--nothing',
    '',
    '--text',
    'two words',
  ]);
});

test('keys are sorted by code point as Python does, not by UTF-16 unit', () => {
  expect(['\u{1F600}', '\uFF5E', 'a', 'B'].toSorted(compareCodePoints)).toEqual([
    'B',
    'a',
    '\uFF5E',
    '\u{1F600}',
  ]);
});
