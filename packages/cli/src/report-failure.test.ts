import { clientError, jsonError } from '@trainyard/api';
import { ServiceUnavailable, TrainingFailed, TrainingStopped } from '@trainyard/sdk';
import type { DescribeTrainingJobResponse } from '@trainyard/sdk';
import { expect, test } from 'vitest';
import { describeFailure } from './report-failure.ts';
import { UserError } from './user-error.ts';

const ended = (status: string): DescribeTrainingJobResponse =>
  ({
    TrainingJobName: 'job',
    TrainingJobStatus: status,
    SecondaryStatus: status,
    FailureReason: 'why',
  }) as DescribeTrainingJobResponse;

test.each([
  [
    'a refused request',
    jsonError('ValidationException', { message: 'InstanceCount is 0' }),
    2,
    'InstanceCount is 0',
  ],
  ['a mistake in the command', new UserError('--input is x'), 2, '--input is x'],
  ['a failed job', new TrainingFailed(ended('Failed')), 1, 'why'],
  ['a stopped job', new TrainingStopped(ended('Stopped')), 3, 'why'],
  ['no service', new ServiceUnavailable('http://localhost:1', 'nobody answers'), 4, 'nobody answers'],
  [
    'no connection',
    clientError('ConnectionFailed', { message: 'connection refused' }),
    4,
    'connection refused',
  ],
  ['a fault of the service', jsonError('InternalFailure'), 4, 'InternalFailure'],
  [
    'a path that does not exist',
    Object.assign(new Error("no such file 'x'"), { code: 'ENOENT' }),
    1,
    "no such file 'x'",
  ],
])('%s has its own exit code and no stack trace', (_, error, exitCode, text) => {
  const failure = describeFailure(error);
  expect(failure).toMatchObject({ exitCode, isOurFault: false });
  expect(failure.message).toContain(text);
});

test('what nobody foresaw is called our fault', () => {
  expect(describeFailure(new TypeError('x is not a function'))).toMatchObject({
    exitCode: 1,
    isOurFault: true,
  });
});
