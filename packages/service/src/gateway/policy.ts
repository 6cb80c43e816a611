import type { ArnScope } from '@trainyard/api';
import { jsonError, logGroupArn, logStreamArn, queryError, trainingJobArn } from '@trainyard/api';
import { groupOfIdentifier, TRAINING_LOG_GROUP } from '../logs/stream-name.ts';
import type { CredentialLookup, JobPrincipal, Principal } from './principal.ts';
import { principalArn } from './principal.ts';
import type { S3Access, S3Authorizer } from './s3/request.ts';

/** What a call names, as far as a rule looks at it. */
interface NamedInput {
  TrainingJobName?: string;
  logGroupName?: string;
  logGroupIdentifier?: string;
  logStreamName?: string;
  logStreamNames?: readonly string[];
  logStreamNamePrefix?: string;
}

type JobRule = (job: JobPrincipal, input: NamedInput) => boolean;

const always: JobRule = () => true;
const ownJob: JobRule = (job, { TrainingJobName }) => TrainingJobName === job.jobName;

const isOwnStream = (job: JobPrincipal, name: string): boolean => name.startsWith(`${job.jobName}/`);
const ownStream: JobRule = (job, input) =>
  groupOf(input) === TRAINING_LOG_GROUP && isOwnStream(job, input.logStreamName ?? '');
const ownStreams: JobRule = (job, input) => {
  if (groupOf(input) !== TRAINING_LOG_GROUP) return false;
  const { logStreamNames = [], logStreamNamePrefix } = input;
  return (
    logStreamNames.every((name) => isOwnStream(job, name)) &&
    (logStreamNamePrefix === undefined ? logStreamNames.length > 0 : isOwnStream(job, logStreamNamePrefix))
  );
};

/**
 * What the key of a job may call; everything else is denied. The operator's keys may call everything. A script
 * reads and writes objects as on SageMaker under an execution role with S3 access, but it cannot start, stop or
 * look at other jobs, and of the logs it sees its own.
 */
const JOB_RULES: Readonly<Record<string, JobRule>> = {
  'sts:GetCallerIdentity': always,
  'sagemaker:DescribeTrainingJob': ownJob,
  'logs:CreateLogStream': ownStream,
  'logs:PutLogEvents': ownStream,
  'logs:GetLogEvents': ownStream,
  'logs:DescribeLogStreams': ownStreams,
  'logs:FilterLogEvents': ownStreams,
};

/** The same for S3. SDKs in a script look for their default bucket and make it. */
const JOB_S3_ACTIONS: Readonly<Record<S3Access['action'], boolean>> = {
  'list-buckets': true,
  'create-bucket': true,
  'delete-bucket': false,
  list: true,
  read: true,
  write: true,
  delete: true,
};

/** For the S3 handler, which alone knows what a request asks for. Asks for the key again: the answer is for now. */
export function createS3Authorizer(lookupCredentials: CredentialLookup): S3Authorizer {
  return ({ accessKeyId }, { action }) => {
    const principal = lookupCredentials(accessKeyId)?.principal;
    return principal !== undefined && (principal.kind === 'operator' || JOB_S3_ACTIONS[action]);
  };
}

/**
 * @param action as IAM spells it: `sagemaker:CreateTrainingJob`
 * @param input of the call; undefined before it was parsed, when only the action is looked at
 * @throws ServiceError AccessDeniedException (JSON) or AccessDenied (query), in IAM's sentence
 */
export function authorize(
  principal: Principal,
  action: string,
  input: NamedInput | undefined,
  { account, form }: { account: ArnScope; form: 'json' | 'query' },
): void {
  if (principal.kind === 'operator') return;
  const rule = Object.hasOwn(JOB_RULES, action) ? JOB_RULES[action] : undefined;
  if (rule !== undefined && (input === undefined || rule(principal, input))) return;
  const message =
    `User: ${principalArn(principal, account)} is not authorized to perform: ${action} on resource: ` +
    `${resourceArn(account, input ?? {})} because no identity-based policy allows the ${action} action`;
  throw form === 'json'
    ? jsonError('AccessDeniedException', { message })
    : queryError('AccessDenied', { message });
}

function resourceArn(account: ArnScope, input: NamedInput): string {
  if (input.TrainingJobName !== undefined) return trainingJobArn(account, input.TrainingJobName);
  const group = groupOf(input);
  if (group === undefined) return '*';
  return input.logStreamName === undefined
    ? logGroupArn(account, group)
    : logStreamArn(account, group, input.logStreamName);
}

const groupOf = ({ logGroupName, logGroupIdentifier }: NamedInput): string | undefined =>
  logGroupName ?? (logGroupIdentifier === undefined ? undefined : groupOfIdentifier(logGroupIdentifier));
