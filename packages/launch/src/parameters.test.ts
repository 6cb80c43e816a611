import { expect, test } from 'vitest';
import { entryKind, moduleName, positiveInteger, readParameters } from './parameters.ts';
import type { AttemptPlan } from './plan.ts';

const parametersOf = (hyperParameters: Record<string, string>, environment: Record<string, string> = {}) =>
  readParameters({ jobName: 'job', region: 'us-west-2', hyperParameters, environment } as AttemptPlan);

test('hyperparameters fall into the toolkit’s three buckets', () => {
  const found = parametersOf({
    epochs: '3',
    _tuning_objective_metric: '"loss"',
    sagemaker_program: '"train.py"',
    sagemaker_container_log_level: '10',
    sagemaker_mpi_enabled: 'true',
    mp_parameters: '{"a": 1}',
  });
  expect(found).toMatchObject({
    user: { epochs: 3, mp_parameters: { a: 1 } },
    framework: { sagemaker_mpi_enabled: true },
    program: 'train.py',
    submitDirectory: null,
    logLevel: 10,
    jobName: 'job',
    region: 'us-west-2',
  });
  expect(Object.keys(found.user)).toEqual(['epochs', 'mp_parameters']);
  expect(Object.keys(found.framework)).toEqual(['sagemaker_mpi_enabled']);
});

test('bare strings are taken as they are, and SAGEMAKER_PROGRAM wins', () => {
  expect(parametersOf({ sagemaker_program: 'bare.py' }).program).toBe('bare.py');
  expect(parametersOf({ sagemaker_program: 'a.py' }, { SAGEMAKER_PROGRAM: 'b.py' }).program).toBe('b.py');
  expect(parametersOf({}).program).toBeNull();
});

test.each([
  ['run.sh', true, 'command'],
  ['train.py', true, 'package'],
  ['train.py', false, 'program'],
  ['binary', false, 'command'],
  ['module', true, 'package'],
])('%s with setup.py %s is a %s', (program, hasSetup, kind) => {
  expect(entryKind(program, hasSetup)).toBe(kind);
});

test('module names lose .py', () => {
  expect(moduleName('src/train.py')).toBe('src/train');
});

test.each([
  [8, 8],
  ['4', 4],
  [0, null],
  [-1, null],
  [1.5, null],
  ['x', null],
  [undefined, null],
])('%s as a count is %s', (value, expected) => {
  expect(positiveInteger(value)).toBe(expected);
});
