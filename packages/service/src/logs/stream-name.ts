import { parseArn } from '@trainyard/api';

/** The group of every training job's streams, as on SageMaker. */
export const TRAINING_LOG_GROUP = '/aws/sagemaker/TrainingJobs';

/** @param startedAt epoch milliseconds of the host's start; the name carries whole seconds, as on SageMaker. */
export function hostStreamName(jobName: string, host: string, startedAt: number): string {
  return `${jobName}/${host}-${Math.floor(startedAt / 1000)}`;
}

/**
 * Names that only agents write: a line slipped in by PutLogEvents would shift the sequence numbers by which an
 * agent's batches are recognised, and its own lines would be dropped as repeats.
 */
export function isReservedForHosts(group: string, stream: string): boolean {
  return group === TRAINING_LOG_GROUP && /^[^/]+\/algo-\d+-\d+$/.test(stream);
}

/** The name in `logGroupIdentifier`, which holds a name or an ARN. */
export function groupOfIdentifier(identifier: string): string {
  const arn = parseArn(identifier);
  return arn === null ? identifier : arn.resource.replace(/^log-group:/, '').replace(/:\*$/, '');
}
