import type { DescribeTrainingJobResponse } from '@trainyard/sdk';

/** Where the job's model is; null while there is none, though DescribeTrainingJob names its place from the beginning. */
export function modelOf(job: DescribeTrainingJobResponse): string | null {
  const { TrainingJobStatus: status, SecondaryStatusTransitions: transitions = [] } = job;
  const wasUploaded = status !== 'InProgress' && transitions.some(({ Status }) => Status === 'Uploading');
  return wasUploaded ? (job.ModelArtifacts?.S3ModelArtifacts ?? null) : null;
}
