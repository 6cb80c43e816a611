import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { HuggingFace, InvalidOption, MXNet, PyTorch, Session, TensorFlow } from '../index.ts';
import type { Problem, ProblemId } from '../index.ts';

const on = { enabled: true };
const torchrun = { torch_distributed: on };
const role = 'arn:aws:iam::123456789012:role/x';
const common = { entryPoint: 'train.py', role, instanceCount: 2, instanceType: 'ml.p4d.24xlarge' };
const pytorch = { ...common, frameworkVersion: '2.0.1', pyVersion: 'py310' };
const tensorflow = { ...common, frameworkVersion: '2.11', pyVersion: 'py39' };
const mxnet = { ...common, frameworkVersion: '1.9', pyVersion: 'py38' };
const huggingFace = { ...common, transformersVersion: '4.28.1', pytorchVersion: '2.0.0', pyVersion: 'py310' };
const g1 = { instanceGroupName: 'g1', instanceType: 'ml.c5.xlarge', instanceCount: 1 };
const g2 = { instanceGroupName: 'g2', instanceType: 'ml.p4d.24xlarge', instanceCount: 2 };
const { instanceCount: _count, instanceType: _type, ...withoutHosts } = pytorch;
const grouped = { ...withoutHosts, instanceGroups: [g1, g2] };
const modelparallel = (parameters: unknown) => ({
  ...pytorch,
  distribution: { mpi: on, smdistributed: { modelparallel: { ...on, parameters } } },
});

const CLASSES = { PyTorch, TensorFlow, MXNet, HuggingFace } as const;
type ClassName = keyof typeof CLASSES;

/** Where a rule holds: everywhere, or, being about AWS's hardware and images, on AWS and in strict mode only. */
type Reach = 'everywhere' | 'AWS';

const cases: readonly [ProblemId, Reach, string, ClassName, object][] = [
  ['E-VPC-PAIR', 'everywhere', 'securityGroupIds', 'PyTorch', { ...pytorch, subnets: ['subnet-1'] }],
  ['E-LOCALGPU-MULTI', 'everywhere', 'instanceCount', 'PyTorch', { ...pytorch, instanceType: 'local_gpu' }],
  ['E-FILE-OUTPUT', 'everywhere', 'outputPath', 'PyTorch', { ...pytorch, outputPath: 'file:///tmp/x' }],
  ['E-EP-S3', 'everywhere', 'entryPoint', 'PyTorch', { ...pytorch, entryPoint: 's3://b/train.py' }],
  ['E-EP-NONE', 'everywhere', 'entryPoint', 'PyTorch', { ...pytorch, entryPoint: undefined }],
  ['E-VERSION', 'AWS', 'frameworkVersion', 'PyTorch', { ...common, pyVersion: 'py310' }],
  ['E-VERSION', 'AWS', 'pyVersion', 'TensorFlow', { ...common, frameworkVersion: '2.11' }],
  ['E-VERSION', 'AWS', 'frameworkVersion', 'MXNet', common],
  ['E-TF-PY2', 'everywhere', 'pyVersion', 'TensorFlow', { ...tensorflow, pyVersion: 'py2' }],
  [
    'E-TF-LEGACY',
    'everywhere',
    'frameworkVersion',
    'TensorFlow',
    { ...tensorflow, frameworkVersion: '1.10', pyVersion: 'py2' },
  ],
  [
    'E-MX-DIST',
    'AWS',
    'distribution',
    'MXNet',
    { ...mxnet, frameworkVersion: '1.2.1', pyVersion: 'py3', distribution: { parameter_server: on } },
  ],
  ['E-HF-VER', 'everywhere', 'transformersVersion', 'HuggingFace', { ...common, pytorchVersion: '2.0.0' }],
  ['E-HF-VER', 'everywhere', 'pytorchVersion', 'HuggingFace', { ...common, transformersVersion: '4.28.1' }],
  [
    'E-HF-VER',
    'everywhere',
    'tensorflowVersion',
    'HuggingFace',
    { ...huggingFace, tensorflowVersion: '2.6.3' },
  ],
  [
    'E-HF-VER',
    'everywhere',
    'transformersVersion',
    'HuggingFace',
    { ...huggingFace, transformersVersion: '4.28' },
  ],
  [
    'E-XLA',
    'everywhere',
    'distribution.pytorchxla',
    'HuggingFace',
    { ...huggingFace, distribution: { pytorchxla: on } },
  ],
  ['E-GROUPS', 'everywhere', 'instanceCount', 'PyTorch', { ...grouped, instanceCount: 2 }],
  ['E-GROUPS', 'everywhere', 'instanceType', 'PyTorch', { ...grouped, instanceType: 'ml.m5.xlarge' }],
  ['E-GROUPS', 'everywhere', 'instanceGroups', 'PyTorch', { ...grouped, instanceGroups: [] }],
  [
    'E-GROUPS',
    'everywhere',
    'instanceGroups[1].instanceGroupName',
    'PyTorch',
    { ...grouped, instanceGroups: [g1, g1] },
  ],
  [
    'E-PROFILER',
    'everywhere',
    'disableProfiler',
    'PyTorch',
    { ...pytorch, disableProfiler: true, profilerConfig: {} },
  ],
  [
    'E-PROFILER',
    'everywhere',
    'rules[0]',
    'PyTorch',
    {
      ...pytorch,
      disableProfiler: true,
      rules: [{ profiler: { RuleConfigurationName: 'r', RuleEvaluatorImage: 'i' } }],
    },
  ],
  [
    'E-DDP-SMD',
    'everywhere',
    'distribution.pytorchddp',
    'PyTorch',
    { ...pytorch, distribution: { pytorchddp: on, smdistributed: { dataparallel: on } } },
  ],
  [
    'E-IG-NONE',
    'everywhere',
    'distribution.instance_groups',
    'PyTorch',
    { ...pytorch, distribution: { mpi: on, instance_groups: [g1] } },
  ],
  [
    'E-IG-OVER',
    'everywhere',
    'distribution.instance_groups',
    'PyTorch',
    { ...grouped, instanceGroups: [g2], distribution: { mpi: on, instance_groups: [g1, g2] } },
  ],
  [
    'E-IG-ONE',
    'everywhere',
    'distribution.instance_groups',
    'PyTorch',
    { ...grouped, distribution: { mpi: on } },
  ],
  [
    'E-IG-BAD',
    'everywhere',
    'distribution.instance_groups',
    'TensorFlow',
    {
      ...grouped,
      frameworkVersion: '2.11',
      pyVersion: 'py39',
      distribution: { mpi: on, instance_groups: ['g3'] },
    },
  ],
  [
    'E-IG-NOSTRAT',
    'everywhere',
    'distribution.instance_groups',
    'PyTorch',
    { ...grouped, distribution: { instance_groups: [g2] } },
  ],
  [
    'E-IG-NOSTRAT',
    'AWS',
    'distribution.instance_groups',
    'PyTorch',
    {
      ...grouped,
      distribution: { ...torchrun, smdistributed: { modelparallel: on }, instance_groups: [g2] },
    },
  ],
  [
    'E-TRN-STRATEGY',
    'AWS',
    'distribution',
    'PyTorch',
    { ...pytorch, instanceType: 'ml.trn1.2xlarge', imageUri: 'i', distribution: { mpi: on } },
  ],
  [
    'E-TRN-MULTI',
    'AWS',
    'distribution',
    'PyTorch',
    { ...pytorch, instanceType: 'ml.trn1.2xlarge', imageUri: 'i', distribution: { ...torchrun, mpi: on } },
  ],
  [
    'E-SMDDP',
    'AWS',
    'frameworkVersion',
    'TensorFlow',
    {
      ...tensorflow,
      frameworkVersion: '2.12',
      pyVersion: 'py310',
      distribution: { smdistributed: { dataparallel: on } },
    },
  ],
  [
    'E-SMDDP',
    'AWS',
    'pytorchVersion',
    'HuggingFace',
    {
      ...huggingFace,
      transformersVersion: '4.49.0',
      pytorchVersion: '2.5.1',
      pyVersion: 'py311',
      distribution: { smdistributed: { dataparallel: on } },
    },
  ],
  [
    'E-TORCHRUN',
    'AWS',
    'frameworkVersion',
    'PyTorch',
    { ...pytorch, frameworkVersion: '1.9.0', pyVersion: 'py38', distribution: torchrun },
  ],
  [
    'E-TORCHRUN',
    'AWS',
    'instanceType',
    'HuggingFace',
    { ...huggingFace, instanceType: 'ml.c5.xlarge', distribution: torchrun },
  ],
  [
    'E-P5',
    'AWS',
    'instanceType',
    'PyTorch',
    { ...pytorch, instanceType: 'ml.p5.48xlarge', distribution: { smdistributed: { dataparallel: on } } },
  ],
  [
    'E-CUDA12',
    'AWS',
    'imageUri',
    'PyTorch',
    {
      ...pytorch,
      imageUri: 'x/pytorch-training:2.0.1-gpu-py310-cu121-ubuntu20.04-sagemaker',
      distribution: { pytorchddp: on },
    },
  ],
  [
    'E-MWMS-VER',
    'AWS',
    'frameworkVersion',
    'TensorFlow',
    { ...tensorflow, frameworkVersion: '2.8', distribution: { multi_worker_mirrored_strategy: on } },
  ],
  [
    'E-MWMS-FW',
    'everywhere',
    'distribution.multi_worker_mirrored_strategy',
    'PyTorch',
    { ...pytorch, distribution: { multi_worker_mirrored_strategy: on } },
  ],
  [
    'E-MWMS-MIX',
    'everywhere',
    'distribution.multi_worker_mirrored_strategy',
    'TensorFlow',
    {
      ...tensorflow,
      distribution: { multi_worker_mirrored_strategy: on, parameter_server: { enabled: false } },
    },
  ],
  [
    'E-HF-SMP',
    'AWS',
    'distribution.smdistributed.modelparallel',
    'HuggingFace',
    { ...huggingFace, distribution: { ...torchrun, smdistributed: { modelparallel: on } } },
  ],
  [
    'E-COMPILER',
    'AWS',
    'instanceType',
    'PyTorch',
    {
      ...pytorch,
      instanceType: 'ml.c5.xlarge',
      frameworkVersion: '1.13.1',
      pyVersion: 'py39',
      compilerConfig: {},
      distribution: { pytorchxla: on },
    },
  ],
  [
    'E-COMPILER',
    'AWS',
    'distribution',
    'PyTorch',
    { ...pytorch, frameworkVersion: '1.13.1', pyVersion: 'py39', compilerConfig: {}, distribution: torchrun },
  ],
  [
    'E-COMPILER',
    'AWS',
    'frameworkVersion',
    'TensorFlow',
    { ...tensorflow, frameworkVersion: '2.6', pyVersion: 'py38', compilerConfig: {} },
  ],
  [
    'E-MP-PATH',
    'everywhere',
    'distribution.smdistributed.modelparallel.parameters',
    'PyTorch',
    modelparallel('./absent.json'),
  ],
  ...(
    [
      ['pipeline', 'zzz', {}],
      ['placement_strategy', 'zzz', {}],
      ['optimize', 'zzz', {}],
      ['microbatches', 0, {}],
      ['partitions', 1.5, {}],
      ['active_microbatches', 'two', {}],
      ['auto_partition', 1, {}],
      ['contiguous', 'yes', {}],
      ['load_partition', 0, {}],
      ['horovod', 'no', {}],
      ['ddp', null, {}],
      ['deterministic_server', 1, {}],
      ['partition_file', 3, {}],
      ['default_partition', undefined, { auto_partition: false }],
      ['default_partition', 2, { partitions: 2 }],
      ['default_partition', 0, {}],
      ['memory_weight', 1.1, {}],
      ['ddp_port', 8080, {}],
      ['ddp_port', -1, { ddp: true }],
      ['ddp_dist_backend', 'nccl', {}],
      ['horovod', true, { ddp: true }],
    ] as const
  ).map(
    ([name, value, others]) =>
      [
        'E-MP-VALUE',
        'everywhere',
        `distribution.smdistributed.modelparallel.parameters.${name}`,
        'PyTorch',
        modelparallel({ ...others, [name]: value }),
      ] as [ProblemId, Reach, string, ClassName, object],
  ),
  [
    'E-MP-VALUE',
    'AWS',
    'distribution.smdistributed.modelparallel.parameters.placement_strategy',
    'PyTorch',
    modelparallel({ placement_strategy: 'TPD' }),
  ],
];

function problemsOf(name: ClassName, options: object): { refused: Problem[]; warned: Problem[] } {
  const warned: Problem[] = [];
  const session = new Session({ onWarning: (warning) => warned.push(warning) });
  const Class = CLASSES[name] as unknown as new (given: object) => unknown;
  try {
    new Class({ session, ...options });
  } catch (error) {
    if (error instanceof InvalidOption) return { refused: [...error.problems], warned };
    throw error;
  }
  return { refused: [], warned };
}

const spelled = (problems: readonly Problem[]): string[] => problems.map(({ id, field }) => `${id} ${field}`);

test.each(cases)('%s (%s): %s of %s with %j', (id, reach, field, name, options) => {
  const wanted = `${id} ${field}`;
  for (const mode of [{ strict: true }, { session: new Session({ on: 'aws', onWarning: () => {} }) }]) {
    const { refused } = problemsOf(name, { ...options, ...mode });
    expect(spelled(refused)).toContain(wanted);
  }
  const { refused, warned } = problemsOf(name, options);
  if (reach === 'everywhere') {
    expect(spelled(refused)).toContain(wanted);
  } else if (id !== 'E-VERSION') {
    // Missing versions have a default outside AWS; everything else about AWS warns there.
    expect(spelled(warned)).toContain(wanted);
    expect(refused).toEqual([]);
  }
});

test('a problem names value, rule and next step', () => {
  const { refused } = problemsOf('PyTorch', modelparallel({ pipeline: 'zzz' }));
  expect(refused).toEqual([
    {
      id: 'E-MP-VALUE',
      field: 'distribution.smdistributed.modelparallel.parameters.pipeline',
      value: 'zzz',
      rule: 'It must be one of simple, interleaved, _only_forward.',
      nextStep: 'Correct the value.',
    },
  ]);
});

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'trainyard-parameters-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test('parameters of model parallelism may stand in a JSON file, which keeps 1.0 a float', async () => {
  const path = join(directory, 'smp.json');
  writeFileSync(path, '{"partitions": 2, "memory_weight": 1.0}\n');
  const session = new Session({
    on: 'aws',
    region: 'us-west-2',
    accountId: '123456789012',
    credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' },
  });
  const { request } = await new PyTorch({ ...modelparallel(path), session } as never).render();
  expect(request.HyperParameters?.['mp_parameters']).toBe('{"partitions": 2, "memory_weight": 1.0}');
});

test('a file of parameters that is no JSON object is refused', () => {
  const path = join(directory, 'list.json');
  writeFileSync(path, '[1]');
  const { refused } = problemsOf('PyTorch', modelparallel(path));
  expect(spelled(refused)).toEqual(['E-MP-JSON distribution.smdistributed.modelparallel.parameters']);
});

test('the only group of an estimator is the one that a distribution starts on', () => {
  expect(
    problemsOf('PyTorch', { ...grouped, instanceGroups: [g2], distribution: { mpi: on } }).refused,
  ).toEqual([]);
});

test('parameter servers on a type with several GPUs warn', () => {
  const { warned } = problemsOf('TensorFlow', { ...tensorflow, distribution: { parameter_server: on } });
  expect(spelled(warned)).toEqual(['W-PS-GPUS distribution.parameter_server']);
});

test('a short version counts as its newest patch, in strict mode it does not', () => {
  const short = { ...pytorch, frameworkVersion: '2.8', pyVersion: 'py312', distribution: torchrun };
  expect(problemsOf('PyTorch', short)).toEqual({ refused: [], warned: [] });
  expect(spelled(problemsOf('PyTorch', { ...short, strict: true }).refused)).toEqual([
    'E-TORCHRUN frameworkVersion',
  ]);
});
