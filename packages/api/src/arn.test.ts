import { expect, test } from 'vitest';
import {
  assumedRoleArn,
  defaultBucketName,
  dnsSuffixOfRegion,
  logGroupArn,
  logStreamArn,
  parseArn,
  partitionOfRegion,
  roleArn,
  trainingJobArn,
} from './arn.ts';
import { awsEndpoint } from './client.ts';

test.each([
  ['us-west-2', 'aws', 'amazonaws.com'],
  ['mx-central-1', 'aws', 'amazonaws.com'],
  ['cn-north-1', 'aws-cn', 'amazonaws.com.cn'],
  ['us-gov-west-1', 'aws-us-gov', 'amazonaws.com'],
  ['us-iso-east-1', 'aws-iso', 'c2s.ic.gov'],
  ['us-isob-east-1', 'aws-iso-b', 'sc2s.sgov.gov'],
  ['eusc-de-east-1', 'aws-eusc', 'amazonaws.eu'],
  ['my-laptop', 'aws', 'amazonaws.com'],
])('region %s is of partition %s', (region, partition, suffix) => {
  expect(partitionOfRegion(region)).toBe(partition);
  expect(dnsSuffixOfRegion(region)).toBe(suffix);
});

test('ARNs have the forms that AWS gives them', () => {
  const scope = { region: 'us-west-2', accountId: '123456789012' };
  const job = 'arn:aws:sagemaker:us-west-2:123456789012:training-job/Job-1';
  expect(trainingJobArn(scope, 'Job-1')).toBe(job);
  expect(parseArn(job)).toEqual({
    partition: 'aws',
    service: 'sagemaker',
    ...scope,
    resource: 'training-job/Job-1',
  });
  expect(logGroupArn(scope, '/aws/sagemaker/TrainingJobs')).toBe(
    'arn:aws:logs:us-west-2:123456789012:log-group:/aws/sagemaker/TrainingJobs:*',
  );
  expect(logStreamArn(scope, 'g', 'j/algo-1')).toBe(
    'arn:aws:logs:us-west-2:123456789012:log-group:g:log-stream:j/algo-1',
  );
  expect(roleArn({ ...scope, region: 'cn-north-1' }, 'r', '/service-role/')).toBe(
    'arn:aws-cn:iam::123456789012:role/service-role/r',
  );
  expect(assumedRoleArn(scope, 'r', 's')).toBe('arn:aws:sts::123456789012:assumed-role/r/s');
  expect(defaultBucketName(scope)).toBe('sagemaker-us-west-2-123456789012');
  expect(parseArn('s3://b/k')).toBeNull();
});

test('AWS itself is found by service and region', () => {
  expect(awsEndpoint('sagemaker', 'us-west-2')).toBe('https://api.sagemaker.us-west-2.amazonaws.com');
  expect(awsEndpoint('logs', 'cn-north-1')).toBe('https://logs.cn-north-1.amazonaws.com.cn');
  expect(awsEndpoint('s3', 'us-east-1')).toBe('https://s3.us-east-1.amazonaws.com');
});
