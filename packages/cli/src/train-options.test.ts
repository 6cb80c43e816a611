import { expect, test } from 'vitest';
import { describeLaunch, type LaunchFlags, launchOptions } from './train-options.ts';

const flags = (change: Partial<LaunchFlags> = {}): LaunchFlags => ({
  framework: 'pytorch',
  distribution: 'none',
  ...change,
});

test.each([
  ['none', undefined],
  ['torch_distributed', { torch_distributed: { enabled: true } }],
  ['parameter_server', { parameter_server: { enabled: true } }],
  ['multi_worker_mirrored_strategy', { multi_worker_mirrored_strategy: { enabled: true } }],
  ['smdistributed.dataparallel', { smdistributed: { dataparallel: { enabled: true } } }],
  [
    'smdistributed.modelparallel',
    { torch_distributed: { enabled: true }, smdistributed: { modelparallel: { enabled: true } } },
  ],
  [
    'smdistributed.modelparallel-v1',
    { mpi: { enabled: true }, smdistributed: { modelparallel: { enabled: true } } },
  ],
] as const)('--distribution %s', (distribution, expected) => {
  expect(launchOptions(flags({ distribution })).distribution).toEqual(expected);
});

test('options of mpirun and parameters of the library go where SageMaker has them', () => {
  expect(
    launchOptions(
      flags({
        distribution: 'smdistributed.modelparallel-v1',
        mpiOptions: '-verbose -x NCCL_DEBUG=VERSION',
        modelParallel: ['partitions=2', 'pipeline=interleaved', 'ddp=true'],
      }),
    ).distribution,
  ).toEqual({
    mpi: { enabled: true, custom_mpi_options: '-verbose -x NCCL_DEBUG=VERSION' },
    smdistributed: {
      modelparallel: { enabled: true, parameters: { partitions: 2, pipeline: 'interleaved', ddp: true } },
    },
  });
});

test('groups take the place of instances, and one of them can be the one of the distribution', () => {
  const options = launchOptions(
    flags({
      distribution: 'mpi',
      instanceGroup: ['load=ml.c5.xlarge:1', 'train=ml.m5.xlarge:2'],
      distributionGroup: 'train',
    }),
  );
  expect(options).toMatchObject({
    instanceCount: undefined,
    instanceGroups: [
      { instanceGroupName: 'load', instanceType: 'ml.c5.xlarge', instanceCount: 1 },
      { instanceGroupName: 'train', instanceType: 'ml.m5.xlarge', instanceCount: 2 },
    ],
    distribution: { mpi: { enabled: true }, instance_groups: ['train'] },
  });
});

test.each<[Partial<LaunchFlags>, string]>([
  [{ mpiOptions: '-v' }, '--mpi-options is for --distribution'],
  [{ distribution: 'mpi', modelParallel: ['a=1'] }, '--model-parallel is for'],
  [{ transformersVersion: '4.56.2' }, '--transformers-version is for --framework huggingface'],
  [{ instanceGroup: ['a=ml.m5.xlarge:1'], instances: 2 }, '--instance-group excludes --instances'],
  [{ instanceGroup: ['a=ml.m5.xlarge'] }, 'write NAME=TYPE:COUNT'],
  [{ distribution: 'mpi', distributionGroup: 'b' }, 'the groups of --instance-group are none'],
])('%j is refused', (change, message) => {
  expect(() => launchOptions(flags(change))).toThrow(message);
});

test('the first line says what was asked for in plain words', () => {
  expect(describeLaunch(flags({ processesPerHost: 1 }))).toBe('1 instance, 1 process each');
  expect(describeLaunch(flags({ instances: 2, processesPerHost: 4, distribution: 'mpi' }))).toBe(
    '2 instances, 4 processes each, mpi',
  );
  expect(describeLaunch(flags({ instanceGroup: ['load=ml.c5.xlarge:1', 'train=ml.m5.xlarge:2'] }))).toBe(
    '1 instance in load + 2 instances in train',
  );
});
