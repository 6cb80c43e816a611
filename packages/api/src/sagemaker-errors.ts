import { jsonError, type ServiceError } from './errors.ts';

/**
 * Errors of the training calls with the texts that AWS sends: SDKs match on some of them, so that they are
 * written once, here. Sources: captured answers quoted in public issue threads.
 */

/** What Describe, Stop, Delete and Update answer for an unknown job: AWS's code is not the modelled ResourceNotFound. */
export const trainingJobNotFound = (jobName: string): ServiceError =>
  jsonError('ValidationException', { message: 'Requested resource not found.', jobName });

/** Stop of a job that has ended. */
export const trainingJobEnded = (jobName: string, status: string): ServiceError =>
  jsonError('ValidationException', {
    message: `The request was rejected because the training job is in status ${status}.`,
    jobName,
    status,
  });

export const trainingJobNameTaken = (arn: string): ServiceError =>
  jsonError('ResourceInUse', {
    message:
      'Training job names must be unique within an AWS account and region, and a training job with this name ' +
      `already exists (${arn})`,
    arn,
  });

/** A request that can never fit: `limit` hosts of the type exist, `used` are taken, `requested` were asked for. */
export const instanceLimitExceeded = (
  instanceType: string,
  limit: number,
  used: number,
  requested: number,
): ServiceError =>
  jsonError('ResourceLimitExceeded', {
    message:
      `The account-level service limit '${instanceType} for training job usage' is ${limit} Instances, with current ` +
      `utilization of ${used} Instances and a request delta of ${requested} Instances. ` +
      `Ask for at most ${limit}, or have the operator raise "hosts" in the service's config.json (or --hosts).`,
    instanceType,
    limit,
    used,
    requested,
  });

/** An operation of AWS's API that is not served: 400, because clients would retry a 5xx. */
export const operationNotServed = (service: string, operation: string): ServiceError =>
  jsonError('ValidationException', {
    message: `${service}:${operation} is not served here; docs/compatibility.md lists what is. Send it to AWS itself.`,
    service,
    operation,
  });

export const unknownOperation = (target: string): ServiceError =>
  jsonError('UnknownOperationException', {
    message: `X-Amz-Target '${target}' names no known operation.`,
    target,
  });
