import { decodeHyperparameter, encodeHyperparameters } from '@trainyard/api';
import { expect, test } from 'vitest';
import type { AnyDistribution } from '../distribution/distribution.ts';
import { planLaunch } from '../distribution/plan-launch.ts';
import type { FrameworkName } from '../distribution/plan-launch.ts';
import { ProblemList } from '../problem.ts';
import { versionsOfImage } from './attach-framework.ts';
import { launchOfFlags } from './launch-flags.ts';

const on = { enabled: true };
const group = { instanceGroupName: 'g2', instanceType: 'ml.p4d.24xlarge', instanceCount: 2 };

function flagsOf(framework: FrameworkName, distribution: AnyDistribution, processesPerHost?: number) {
  const groups = distribution.instance_groups ? [group] : null;
  const query = { framework, distribution, processesPerHost, instanceType: 'ml.m5.xlarge', groups };
  const { hyperparameters } = planLaunch(query, new ProblemList({ onAws: false, strict: false }));
  return Object.fromEntries(
    Object.entries(encodeHyperparameters(hyperparameters)).map(([key, text]) => [
      key,
      decodeHyperparameter(text),
    ]),
  );
}

test.each<[FrameworkName, AnyDistribution, number | undefined]>([
  ['pytorch', { torch_distributed: on }, 2],
  ['pytorch', { pytorchddp: { ...on, custom_mpi_options: '-x A' } }, undefined],
  ['pytorch', { smdistributed: { dataparallel: on } }, undefined],
  ['pytorch', { mpi: { ...on, processes_per_host: 8 }, instance_groups: ['g2'] }, undefined],
  ['pytorch', { mpi: on, smdistributed: { modelparallel: { ...on, parameters: { partitions: 2 } } } }, 8],
  [
    'pytorch',
    { torch_distributed: on, smdistributed: { modelparallel: { ...on, parameters: { random_seed: 1 } } } },
    undefined,
  ],
  ['pytorch', { pytorchxla: on }, undefined],
  ['tensorflow', { parameter_server: on }, undefined],
  ['tensorflow', { multi_worker_mirrored_strategy: on }, undefined],
  ['mxnet', { parameter_server: on }, undefined],
  ['huggingface', { pytorchddp: on }, undefined],
])(
  'the flags of %s with %j lead back to options with the same flags',
  (framework, distribution, processes) => {
    const flags = flagsOf(framework, distribution, processes);
    const restored = launchOfFlags(flags);
    expect(flagsOf(framework, restored.distribution ?? {}, restored.processesPerHost)).toEqual(flags);
  },
);

test('no flags lead to no options', () => {
  expect(launchOfFlags({})).toEqual({});
});

const host = '763104351884.dkr.ecr.us-west-2.amazonaws.com';

test.each<[FrameworkName, string, object]>([
  ['pytorch', `${host}/pytorch-training:2.8-gpu-py312`, { frameworkVersion: '2.8', pyVersion: 'py312' }],
  [
    'pytorch',
    '658645717510.dkr.ecr.us-west-2.amazonaws.com/smdistributed-modelparallel:2.2.0-gpu-py310-cu121',
    { frameworkVersion: '2.2.0', pyVersion: 'py310' },
  ],
  [
    'tensorflow',
    `${host}/tensorflow-training:2.19-cpu-py312`,
    { frameworkVersion: '2.19', pyVersion: 'py312' },
  ],
  ['mxnet', `${host}/mxnet-training:1.9-cpu-py38`, { frameworkVersion: '1.9', pyVersion: 'py38' }],
  [
    'huggingface',
    `${host}/huggingface-pytorch-training:2.1.0-transformers4.36.0-gpu-py310-cu121-ubuntu20.04`,
    { pytorchVersion: '2.1.0', transformersVersion: '4.36.0', pyVersion: 'py310' },
  ],
  ['pytorch', 'registry.example.org/my:latest', { imageUri: 'registry.example.org/my:latest' }],
])('versions of %s are read out of %s', (framework, imageUri, versions) => {
  expect(versionsOfImage(framework, imageUri)).toEqual(versions);
});

test('an image of another framework is refused', () => {
  expect(() => versionsOfImage('pytorch', `${host}/mxnet-training:1.9-cpu-py38`)).toThrow(
    /another framework/,
  );
});
