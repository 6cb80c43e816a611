import type { DescribeTrainingJobResponse } from '@trainyard/api';
import { expect, test } from 'vitest';
import {
  errorOfEnd,
  MaxRuntimeExceeded,
  MaxWaitTimeExceeded,
  TrainingFailed,
  TrainingStopped,
} from './errors.ts';

function end(
  TrainingJobStatus: string,
  SecondaryStatus: string,
  more: object = {},
): DescribeTrainingJobResponse {
  return {
    TrainingJobName: 'job',
    TrainingJobStatus,
    SecondaryStatus,
    StoppingCondition: { MaxRuntimeInSeconds: 60, MaxWaitTimeInSeconds: 90 },
    ...more,
  } as DescribeTrainingJobResponse;
}

test.each([
  ['Failed', 'Failed', TrainingFailed],
  ['Stopped', 'Stopped', TrainingStopped],
  ['Stopped', 'MaxRuntimeExceeded', MaxRuntimeExceeded],
  ['Stopped', 'MaxWaitTimeExceeded', MaxWaitTimeExceeded],
])('%s with %s is %o', (status, secondary, type) => {
  expect(errorOfEnd(end(status, secondary))).toBeInstanceOf(type);
});

test('a job that completed or goes on is no error', () => {
  expect(errorOfEnd(end('Completed', 'Completed'))).toBeNull();
  expect(errorOfEnd(end('InProgress', 'Training'))).toBeNull();
});

test('the message carries the reason, or else the last transition, and the limit that was met', () => {
  expect(errorOfEnd(end('Failed', 'Failed', { FailureReason: 'AlgorithmError: boom' }))?.message).toBe(
    'Training job job failed: AlgorithmError: boom',
  );
  const stopped = end('Stopped', 'MaxRuntimeExceeded', {
    SecondaryStatusTransitions: [{ Status: 'MaxRuntimeExceeded', StatusMessage: 'too long' }],
  });
  expect(errorOfEnd(stopped)?.message).toBe('Training job job ran longer than 60 s (maxRun): too long');
});
