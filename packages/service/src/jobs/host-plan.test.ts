import type { CreateTrainingJobRequest } from '@trainyard/api';
import { expect, test } from 'vitest';
import { hostPlans, type PlanContext } from './host-plan.ts';
import { compileJobSpec, instanceTypes } from './spec.ts';

const keys = { accessKeyId: 'a', secretAccessKey: 'b', sessionToken: 'c', expiresAt: 0 };
const context: PlanContext = {
  arn: 'arn:aws:sagemaker:us-west-2:000000000000:training-job/job',
  attempt: 1,
  region: 'us-west-2',
  accountId: '000000000000',
  networkInterfaceName: 'eth0',
  runtime: { name: 'pytorch', python: '/p', binDirs: [], preload: false },
  agentCredentials: keys,
  scriptCredentials: null,
  maxRuntimeMs: 1000,
  request: {},
};

const channel = (name: string, ...groups: string[]) => ({
  ChannelName: name,
  DataSource: {
    S3DataSource: {
      S3DataType: 'S3Prefix' as const,
      S3Uri: `s3://bucket/${name}`,
      S3DataDistributionType: 'ShardedByS3Key' as const,
      ...(groups.length > 0 ? { InstanceGroupNames: groups } : {}),
    },
  },
});

function specOf(change: Partial<CreateTrainingJobRequest>): ReturnType<typeof compileJobSpec> {
  const request: CreateTrainingJobRequest = {
    TrainingJobName: 'job',
    RoleArn: 'arn:aws:iam::000000000000:role/Train',
    AlgorithmSpecification: { TrainingImage: 'x/pytorch-training:2.3.0', TrainingInputMode: 'File' },
    OutputDataConfig: { S3OutputPath: 's3://bucket/out' },
    ...change,
  };
  return compileJobSpec(request, { name: 'pytorch', framework: 'pytorch' });
}

const heterogeneous = specOf({
  ResourceConfig: {
    VolumeSizeInGB: 30,
    InstanceGroups: [
      { InstanceGroupName: 'data', InstanceType: 'ml.c5.18xlarge', InstanceCount: 9 },
      { InstanceGroupName: 'train', InstanceType: 'ml.p4d.24xlarge', InstanceCount: 2 },
    ],
  },
  InputDataConfig: [channel('raw', 'data'), channel('all', 'data', 'train'), channel('weights', 'train')],
});

test('a job without groups is one group of all hosts', () => {
  const spec = specOf({
    ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: 2, VolumeSizeInGB: 1 },
    InputDataConfig: [channel('train')],
  });
  for (const plan of hostPlans(spec, context)) {
    expect(plan).toMatchObject({
      hosts: ['algo-1', 'algo-2'],
      groupName: 'homogeneousCluster',
      instanceType: 'ml.m5.xlarge',
      instanceGroups: [
        { name: 'homogeneousCluster', instanceType: 'ml.m5.xlarge', hosts: ['algo-1', 'algo-2'] },
      ],
    });
    expect(plan.channels[0]!.source).not.toHaveProperty('shardHosts');
  }
});

test('hosts are numbered over all groups in their order, and every list is sorted by code point', () => {
  const plans = hostPlans(heterogeneous, context);
  expect(heterogeneous.instanceCount).toBe(11);
  expect(plans.map(({ host }) => host).slice(0, 4)).toEqual(['algo-1', 'algo-10', 'algo-11', 'algo-2']);
  const groups = plans[0]!.instanceGroups;
  expect(groups.map(({ name, hosts }) => [name, hosts])).toEqual([
    ['data', Array.from({ length: 9 }, (_, index) => `algo-${index + 1}`)],
    ['train', ['algo-10', 'algo-11']],
  ]);
  expect(
    plans
      .filter(({ groupName }) => groupName === 'train')
      .map(({ host, instanceType }) => [host, instanceType]),
  ).toEqual([
    ['algo-10', 'ml.p4d.24xlarge'],
    ['algo-11', 'ml.p4d.24xlarge'],
  ]);
  expect(instanceTypes(heterogeneous)).toBe('ml.c5.18xlarge + ml.p4d.24xlarge');
});

test('a channel for groups is seen by their hosts alone, which share its objects', () => {
  const plans = hostPlans(heterogeneous, context);
  const channelsOf = (host: string) => plans.find((plan) => plan.host === host)!.channels;
  expect(channelsOf('algo-1').map(({ name }) => name)).toEqual(['raw', 'all']);
  expect(channelsOf('algo-11').map(({ name }) => name)).toEqual(['all', 'weights']);
  expect(channelsOf('algo-11')[1]!.source).toMatchObject({ shardHosts: ['algo-10', 'algo-11'] });
  expect(channelsOf('algo-11')[0]!.source).toMatchObject({ shardHosts: plans.map(({ host }) => host) });
});
