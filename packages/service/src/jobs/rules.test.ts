import type { CreateTrainingJobRequest } from '@trainyard/api';
import { describe, expect, it } from 'vitest';
import { checkRules } from './rules.ts';

const runtime = { name: 'pytorch', framework: 'pytorch' };
const context = {
  runtimeFor: (image: string) =>
    image.includes('pytorch') ? { runtime } : { problem: `No runtime for ${image}.` },
  fileSystemPath: (id: string) => (id === 'fs-0123456789abcdef0' ? '/data' : null),
  fileSystemIsReadOnly: () => true,
  isolatesNetwork: true,
};

const base = (change: Partial<CreateTrainingJobRequest> = {}): CreateTrainingJobRequest => ({
  TrainingJobName: 'job',
  RoleArn: 'arn:aws:iam::000000000000:role/Train',
  AlgorithmSpecification: { TrainingImage: 'x/pytorch-training:2.3.0-cpu-py311', TrainingInputMode: 'File' },
  OutputDataConfig: { S3OutputPath: 's3://bucket/out' },
  ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: 2, VolumeSizeInGB: 30 },
  StoppingCondition: { MaxRuntimeInSeconds: 3600 },
  ...change,
});
const s3 = (uri = 's3://bucket/train') => ({
  S3DataSource: { S3DataType: 'S3Prefix', S3Uri: uri, S3DataDistributionType: 'FullyReplicated' } as const,
});

const groups = (...names: string[]) =>
  names.map((InstanceGroupName) => ({
    InstanceGroupName,
    InstanceCount: 1,
    InstanceType: 'ml.m5.xlarge' as const,
  }));
const forGroups = (...names: string[]) => ({
  S3DataSource: { ...s3().S3DataSource, InstanceGroupNames: names },
});

describe('rules across members', () => {
  it('find nothing wrong with an ordinary request', () => {
    expect(checkRules(base(), context)).toEqual({ problems: [], runtime });
  });

  it('find nothing wrong with groups that all channels name', () => {
    const request = base({
      ResourceConfig: { InstanceGroups: groups('a', 'b'), VolumeSizeInGB: 30 },
      InputDataConfig: [
        { ChannelName: 'x', DataSource: forGroups('a') },
        { ChannelName: 'y', DataSource: forGroups('a', 'b') },
      ],
    });
    expect(checkRules(request, context).problems).toEqual([]);
  });

  it('refuse network isolation where hosts share the network, and only there', () => {
    const request = base({ EnableNetworkIsolation: true });
    expect(checkRules(request, context).problems).toEqual([]);
    expect(checkRules(request, { ...context, isolatesNetwork: false }).problems).toEqual([
      expect.stringMatching(/^EnableNetworkIsolation is true, but hosts here are plain processes/),
    ]);
  });

  it.each<[string, Partial<CreateTrainingJobRequest>, RegExp]>([
    [
      'a path with dots',
      { OutputDataConfig: { S3OutputPath: 's3://bucket/a/../out' } },
      /OutputDataConfig.S3OutputPath is s3:\/\/bucket\/a\/\.\.\/out; a path with '\.' or '\.\.'/,
    ],
    [
      'an image without a runtime',
      { AlgorithmSpecification: { TrainingImage: 'x/tensorflow:1', TrainingInputMode: 'File' } },
      /No runtime for x\/tensorflow:1/,
    ],
    ['no algorithm', { AlgorithmSpecification: undefined }, /AlgorithmSpecification is missing/],
    [
      'no image',
      { AlgorithmSpecification: { TrainingInputMode: 'File' } },
      /neither TrainingImage nor AlgorithmName/,
    ],
    [
      'zero instances',
      { ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: 0 } },
      /InstanceCount is 0/,
    ],
    [
      'groups beside an instance type',
      { ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceGroups: groups('a') } },
      /ResourceConfig\.InstanceType is ml\.m5\.xlarge, but InstanceGroups are given too/,
    ],
    [
      'groups beside a warm pool',
      { ResourceConfig: { KeepAlivePeriodInSeconds: 60, InstanceGroups: groups('a') } },
      /KeepAlivePeriodInSeconds is 60, but InstanceGroups are given too/,
    ],
    [
      'two groups of one name',
      { ResourceConfig: { InstanceGroups: groups('a', 'a') } },
      /InstanceGroups\[1\]\.InstanceGroupName is 'a', as that of another group/,
    ],
    [
      'an empty group',
      { ResourceConfig: { InstanceGroups: [{ ...groups('a')[0]!, InstanceCount: 0 }] } },
      /InstanceGroups\[0\]\.InstanceCount is 0; the group 'a' needs at least 1/,
    ],
    [
      'a channel for an unknown group',
      {
        ResourceConfig: { InstanceGroups: groups('a', 'b') },
        InputDataConfig: [{ ChannelName: 'train', DataSource: forGroups('c') }],
      },
      /channel 'train'\): InstanceGroupNames has 'c'; the groups of ResourceConfig\.InstanceGroups are a, b/,
    ],
    [
      'a channel for a group of a job without groups',
      { InputDataConfig: [{ ChannelName: 'train', DataSource: forGroups('c') }] },
      /InstanceGroupNames has 'c'; ResourceConfig has no InstanceGroups/,
    ],
    [
      'a distribution on an unknown group',
      {
        ResourceConfig: { InstanceGroups: groups('a', 'b') },
        HyperParameters: { sagemaker_distribution_instance_groups: '["b", "c"]' },
      },
      /sagemaker_distribution_instance_groups has 'c'; the groups of this job are a, b/,
    ],
    [
      'groups for some channels only',
      {
        ResourceConfig: { InstanceGroups: groups('a', 'b') },
        InputDataConfig: [
          { ChannelName: 'x', DataSource: forGroups('a') },
          { ChannelName: 'y', DataSource: s3() },
          { ChannelName: 'z', DataSource: s3() },
        ],
      },
      /^Some channels have assigned instance groups: \[x\] while others not: \[y, z\]$/,
    ],
    [
      'a serverless job',
      { ServerlessJobConfig: { BaseModelArn: 'x', JobType: 'FineTuning' } } as never,
      /ServerlessJobConfig is not supported/,
    ],
    [
      'a run time beyond 28 days',
      { StoppingCondition: { MaxRuntimeInSeconds: 2_419_201 } },
      /MaxRuntimeInSeconds is 2419201.*2419200/,
    ],
    [
      'a wait without spot',
      { StoppingCondition: { MaxRuntimeInSeconds: 10, MaxWaitTimeInSeconds: 20 } },
      /only supported when EnableManagedSpotTraining/,
    ],
    [
      'spot with too short a wait',
      {
        EnableManagedSpotTraining: true,
        StoppingCondition: { MaxRuntimeInSeconds: 100, MaxWaitTimeInSeconds: 20 },
      },
      /got 20 and 100/,
    ],
    [
      'two channels of one name',
      {
        InputDataConfig: [
          { ChannelName: 'a', DataSource: s3() },
          { ChannelName: 'a', DataSource: s3() },
        ],
      },
      /two channels named 'a'/,
    ],
    [
      'a channel named ..',
      { InputDataConfig: [{ ChannelName: '..', DataSource: s3() }] },
      /is not a folder name/,
    ],
    [
      'a channel without a source',
      { InputDataConfig: [{ ChannelName: 'a', DataSource: {} }] },
      /DataSource has no member/,
    ],
    [
      'Pipe mode',
      { InputDataConfig: [{ ChannelName: 'a', InputMode: 'Pipe', DataSource: s3() }] },
      /Pipe is not supported/,
    ],
    [
      'Gzip in File mode',
      { InputDataConfig: [{ ChannelName: 'a', CompressionType: 'Gzip', DataSource: s3() }] },
      /Gzip is only allowed in Pipe mode/,
    ],
    [
      'an https input',
      { InputDataConfig: [{ ChannelName: 'a', DataSource: s3('https://bucket/x') }] },
      /must have the form s3:/,
    ],
    [
      'a bucket with capitals',
      { OutputDataConfig: { S3OutputPath: 's3://Bucket/x' } },
      /'Bucket' is not a bucket name/,
    ],
    [
      'an unknown file system',
      {
        InputDataConfig: [
          {
            ChannelName: 'a',
            DataSource: {
              FileSystemDataSource: {
                FileSystemId: 'fs-00000000000000000',
                FileSystemType: 'EFS',
                FileSystemAccessMode: 'ro',
                DirectoryPath: '/',
              },
            },
          },
        ],
      },
      /is not known here/,
    ],
    [
      'to write where the operator forbids it',
      {
        InputDataConfig: [
          {
            ChannelName: 'a',
            DataSource: {
              FileSystemDataSource: {
                FileSystemId: 'fs-0123456789abcdef0',
                FileSystemType: 'FSxLustre',
                FileSystemAccessMode: 'rw',
                DirectoryPath: '/fsx/a',
              },
            },
          },
        ],
      },
      /FileSystemAccessMode is rw, but the operator offers fs-0123456789abcdef0 read-only/,
    ],
    [
      'a path that climbs out',
      {
        InputDataConfig: [
          {
            ChannelName: 'a',
            DataSource: {
              FileSystemDataSource: {
                FileSystemId: 'fs-0123456789abcdef0',
                FileSystemType: 'EFS',
                FileSystemAccessMode: 'ro',
                DirectoryPath: '/a/../../etc',
              },
            },
          },
        ],
      },
      /must be absolute and without '\.\.'/,
    ],
    [
      'checkpoints outside /opt/ml',
      { CheckpointConfig: { S3Uri: 's3://bucket/c', LocalPath: '/etc' } },
      /must be a folder below \/opt\/ml/,
    ],
    [
      'a tag twice',
      {
        Tags: [
          { Key: 'a', Value: '1' },
          { Key: 'a', Value: '2' },
        ],
      },
      /key 'a' more than once/,
    ],
    ['a reserved tag', { Tags: [{ Key: 'aws:x', Value: '1' }] }, /prefix aws: is reserved/],
  ])('refuse %s', (_what, change, message) => {
    expect(checkRules(base(change), context).problems.join('\n')).toMatch(message);
  });

  it('report every problem of a request together', () => {
    const { problems } = checkRules(
      base({
        ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: 0 },
        StoppingCondition: { MaxRuntimeInSeconds: 3_000_000 },
      }),
      context,
    );
    expect(problems).toHaveLength(2);
  });
});
