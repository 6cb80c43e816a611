import type { DescribeTrainingJobResponse } from '@trainyard/sdk';
import { expect, test } from 'vitest';
import { modelOf } from './model-of.ts';

const uri = 's3://bucket/job/output/model.tar.gz';
const job = (status: string, ...phases: string[]): DescribeTrainingJobResponse =>
  ({
    TrainingJobStatus: status,
    SecondaryStatusTransitions: phases.map((Status) => ({ Status })),
    ModelArtifacts: { S3ModelArtifacts: uri },
  }) as DescribeTrainingJobResponse;

test.each([
  ['Completed', ['Starting', 'Training', 'Uploading', 'Completed'], uri],
  ['Stopped', ['Starting', 'Training', 'Stopping', 'Uploading', 'Stopped'], uri],
  // Stopped before a rank had started: nothing was uploaded.
  ['Stopped', ['Starting', 'Stopping', 'Stopped'], null],
  ['InProgress', ['Starting', 'Training', 'Uploading'], null],
] as const)('a job that is %s after %j has the model %s', (status, phases, model) => {
  expect(modelOf(job(status, ...phases))).toBe(model);
});
