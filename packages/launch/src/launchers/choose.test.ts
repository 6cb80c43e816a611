import { expect, test } from 'vitest';
import type { Cluster } from '../cluster.ts';
import { TCP } from '../fabric.ts';
import type { JobParameters } from '../parameters.ts';
import { chooseLauncher, ignoredOptions, processesPerHost } from './choose.ts';

const cluster = (isDistributed: boolean): Cluster => ({
  groupHosts: [],
  distributionGroups: [],
  distributionHosts: [],
  master: 'algo-1',
  isDistributed,
});

const parameters = (
  framework: JobParameters['framework'],
  program: string | null = 'train.py',
): JobParameters => ({
  user: {},
  framework,
  program,
  submitDirectory: null,
  logLevel: 20,
  jobName: '',
  region: '',
});

const PYTORCH = 'sagemaker_pytorch_container.training:main' as const;
const plan = { frameworkModule: PYTORCH, containerEntrypoint: null, containerArguments: null };

test.each([
  [{ sagemaker_mpi_enabled: true, sagemaker_torch_distributed_enabled: true }, 'mpirun'],
  [{ sagemaker_pytorch_ddp_enabled: true, sagemaker_torch_distributed_enabled: true }, 'smddp'],
  [
    { sagemaker_torch_distributed_enabled: true, sagemaker_distributed_dataparallel_enabled: true },
    'torchrun',
  ],
  [{ sagemaker_distributed_dataparallel_enabled: true }, 'smddp'],
  [{ sagemaker_parameter_server_enabled: true }, 'single'],
  [{ sagemaker_mpi_enabled: false }, 'single'],
])('PyTorch’s precedence: %o starts %s', (flags, expected) => {
  expect(chooseLauncher(plan, parameters(flags), cluster(true)).name).toBe(expected);
});

const TENSORFLOW = 'sagemaker_tensorflow_container.training:main' as const;
const MXNET = 'sagemaker_mxnet_container.training:main' as const;

test.each([
  [{ sagemaker_parameter_server_enabled: true, sagemaker_mpi_enabled: true }, 'tensorflow-servers'],
  [{ sagemaker_multi_worker_mirrored_strategy_enabled: true, sagemaker_mpi_enabled: true }, 'multi-worker'],
  [{ sagemaker_mpi_enabled: true, sagemaker_distributed_dataparallel_enabled: true }, 'mpirun'],
  [{ sagemaker_distributed_dataparallel_enabled: true }, 'smddp'],
  [{ sagemaker_torch_distributed_enabled: true }, 'single'],
])('TensorFlow’s precedence: %o starts %s', (flags, expected) => {
  const chosen = chooseLauncher({ ...plan, frameworkModule: TENSORFLOW }, parameters(flags), cluster(true));
  expect(chosen.name).toBe(expected);
});

test.each([
  [{ sagemaker_parameter_server_enabled: true }, 'mxnet-servers', false],
  [{ sagemaker_parameter_server_enabled: true, sagemaker_mpi_enabled: true }, 'mxnet-servers', true],
  [{ sagemaker_mpi_enabled: true }, 'mpirun', true],
  [{ sagemaker_torch_distributed_enabled: true }, 'single', false],
])('MXNet’s precedence: %o starts %s', (flags, expected, needsMpi) => {
  const chosen = chooseLauncher({ ...plan, frameworkModule: MXNET }, parameters(flags), cluster(true));
  expect([chosen.name, chosen.needsMpi ?? false]).toEqual([expected, needsMpi]);
});

test.each([
  [
    PYTORCH,
    { sagemaker_parameter_server_enabled: true },
    "The job asks for parameter_server, which starts nothing with this image, as in AWS's toolkit: the script runs once on every host.",
  ],
  [
    PYTORCH,
    { sagemaker_parameter_server_enabled: true, sagemaker_torch_distributed_enabled: true },
    "The job asks for parameter_server, which starts nothing with this image, as in AWS's toolkit: torch_distributed starts the ranks.",
  ],
  [PYTORCH, { sagemaker_torch_distributed_enabled: true }, null],
  [MXNET, { sagemaker_parameter_server_enabled: true, sagemaker_mpi_enabled: true }, null],
  [PYTORCH, { sagemaker_mpi_enabled: true, sagemaker_distributed_dataparallel_enabled: false }, null],
] as const)('%s with %o tells of options that start nothing', (frameworkModule, flags, expected) => {
  const own = { ...plan, frameworkModule };
  const given = parameters(flags);
  expect(ignoredOptions(own, given, chooseLauncher(own, given, cluster(true)))).toBe(expected);
});

test('a host outside the distribution groups runs the script as it is', () => {
  expect(chooseLauncher(plan, parameters({ sagemaker_mpi_enabled: true }), cluster(false)).name).toBe(
    'single',
  );
});

test('an image without a framework module knows mpi only', () => {
  const generic = { ...plan, frameworkModule: null };
  expect(
    chooseLauncher(generic, parameters({ sagemaker_torch_distributed_enabled: true }), cluster(true)).name,
  ).toBe('single');
  expect(chooseLauncher(generic, parameters({ sagemaker_mpi_enabled: true }), cluster(true)).name).toBe(
    'mpirun',
  );
});

test('the job’s own command wins; arguments alone are one only without a script', () => {
  const own = { ...plan, containerEntrypoint: ['/bin/bash'] };
  expect(chooseLauncher(own, parameters({}), cluster(false)).name).toBe('container');
  const args = { ...plan, containerArguments: ['run'] };
  expect(chooseLauncher(args, parameters({}), cluster(false)).name).toBe('single');
  expect(chooseLauncher(args, parameters({}, null), cluster(false)).name).toBe('container');
});

test.each([
  [{ sagemaker_mpi_num_of_processes_per_host: 4 }, { gpuCount: 8, neuronCoreCount: 0 }, 4],
  [{}, { gpuCount: 8, neuronCoreCount: 2 }, 8],
  [{}, { gpuCount: 0, neuronCoreCount: 2 }, 2],
  [{}, { gpuCount: 0, neuronCoreCount: 0 }, 1],
])('%o on %o gives %i processes per host, for every launcher', (framework, found, expected) => {
  expect(processesPerHost(parameters(framework), { cpuCount: 4, fabric: TCP, ...found }, 'ml.m5.large')).toBe(
    expected,
  );
});
