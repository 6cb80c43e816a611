import { isServiceError } from '@trainyard/api';
import { describe, expect, test } from 'vitest';
import { authorize, createS3Authorizer } from './policy.ts';
import type { Principal } from './principal.ts';

const account = { region: 'us-west-2', accountId: '111122223333' };
const job: Principal = { kind: 'job', accessKeyId: 'ASIA', jobName: 'my-job', attempt: 1 };
const operator: Principal = { kind: 'operator', accessKeyId: 'AKIA', roleName: 'Operator' };
const group = '/aws/sagemaker/TrainingJobs';

function isAllowed(principal: Principal, action: string, input?: object): boolean {
  try {
    authorize(principal, action, input, { account, form: 'json' });
    return true;
  } catch (error) {
    if (isServiceError(error, 'AccessDeniedException')) return false;
    throw error;
  }
}

describe('the key of a job', () => {
  test.each([
    ['sts:GetCallerIdentity', {}],
    ['sagemaker:DescribeTrainingJob', { TrainingJobName: 'my-job' }],
    ['logs:PutLogEvents', { logGroupName: group, logStreamName: 'my-job/notes' }],
    ['logs:CreateLogStream', { logGroupName: group, logStreamName: 'my-job/notes' }],
    ['logs:GetLogEvents', { logGroupName: group, logStreamName: 'my-job/algo-1-1' }],
    [
      'logs:GetLogEvents',
      {
        logGroupIdentifier: `arn:aws:logs:us-west-2:111122223333:log-group:${group}`,
        logStreamName: 'my-job/x',
      },
    ],
    ['logs:DescribeLogStreams', { logGroupName: group, logStreamNamePrefix: 'my-job/' }],
    ['logs:FilterLogEvents', { logGroupName: group, logStreamNames: ['my-job/a', 'my-job/b'] }],
  ])('may call %s with %j', (action, input) => {
    expect(isAllowed(job, action, input)).toBe(true);
  });

  test.each([
    ['sagemaker:CreateTrainingJob', { TrainingJobName: 'my-job' }],
    ['sagemaker:StopTrainingJob', { TrainingJobName: 'my-job' }],
    ['sagemaker:DeleteTrainingJob', { TrainingJobName: 'my-job' }],
    ['sagemaker:ListTrainingJobs', {}],
    ['sagemaker:DescribeTrainingJob', { TrainingJobName: 'my-job-2' }],
    ['sagemaker:DescribeTrainingJob', {}],
    ['sagemaker:AddTags', {}],
    ['iam:GetRole', {}],
    ['sts:AssumeRole', {}],
    ['logs:DeleteLogGroup', { logGroupName: group }],
    ['logs:DeleteLogStream', { logGroupName: group, logStreamName: 'my-job/notes' }],
    ['logs:DescribeLogGroups', {}],
    ['logs:CreateLogGroup', { logGroupName: '/mine' }],
    ['logs:GetLogEvents', { logGroupName: group, logStreamName: 'my-job-2/algo-1-1' }],
    ['logs:GetLogEvents', { logGroupName: group, logStreamName: 'my-job' }],
    ['logs:GetLogEvents', { logGroupName: '/other', logStreamName: 'my-job/algo-1-1' }],
    ['logs:GetLogEvents', { logGroupName: '/other', logGroupIdentifier: group, logStreamName: 'my-job/x' }],
    ['logs:GetLogEvents', { logGroupIdentifier: '/other', logStreamName: 'my-job/x' }],
    ['logs:DescribeLogStreams', { logGroupName: group }],
    ['logs:DescribeLogStreams', { logGroupName: group, logStreamNamePrefix: 'my-job' }],
    ['logs:FilterLogEvents', { logGroupName: group }],
    ['logs:FilterLogEvents', { logGroupName: group, logStreamNames: [] }],
    ['logs:FilterLogEvents', { logGroupName: group, logStreamNames: ['my-job/a', 'other/a'] }],
    ['logs:FilterLogEvents', { logGroupName: group, logStreamNames: ['my-job/a'], logStreamNamePrefix: 'o' }],
    ['constructor', {}],
    ['toString', {}],
  ])('may not call %s with %j', (action, input) => {
    expect(isAllowed(job, action, input)).toBe(false);
    expect(isAllowed(operator, action, input)).toBe(true);
  });

  test('is denied an action before its input is looked at', () => {
    expect(isAllowed(job, 'sagemaker:CreateTrainingJob')).toBe(false);
    expect(isAllowed(job, 'sagemaker:DescribeTrainingJob')).toBe(true);
  });

  test('is told in the sentence of IAM', () => {
    const call = () =>
      authorize(job, 'sagemaker:StopTrainingJob', { TrainingJobName: 'other' }, { account, form: 'json' });
    expect(call).toThrow(
      'User: arn:aws:sts::111122223333:assumed-role/TrainyardJob/my-job is not authorized to perform: ' +
        'sagemaker:StopTrainingJob on resource: arn:aws:sagemaker:us-west-2:111122223333:training-job/other ' +
        'because no identity-based policy allows the sagemaker:StopTrainingJob action',
    );
  });

  test('may use objects and make its default bucket, but not delete a bucket', () => {
    const mayUse = createS3Authorizer((accessKeyId) => {
      const principal = [job, operator].find((known) => known.accessKeyId === accessKeyId);
      return principal && { secretAccessKey: 's', sessionToken: null, expiresAt: null, principal };
    });
    const asks = (
      accessKeyId: string,
      action: 'read' | 'write' | 'delete' | 'create-bucket' | 'delete-bucket',
    ) => mayUse({ accessKeyId, accountId: account.accountId }, { action, bucket: 'b', key: null });
    expect(asks('ASIA', 'read') && asks('ASIA', 'write') && asks('ASIA', 'delete')).toBe(true);
    expect(asks('ASIA', 'create-bucket')).toBe(true);
    expect(asks('ASIA', 'delete-bucket')).toBe(false);
    expect(asks('AKIA', 'delete-bucket')).toBe(true);
    expect(asks('GONE', 'read')).toBe(false);
  });
});
