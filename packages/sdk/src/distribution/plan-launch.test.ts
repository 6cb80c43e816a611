import { expect, test } from 'vitest';
import { ProblemList } from '../problem.ts';
import { checkForm } from './check-form.ts';
import type { AnyDistribution } from './distribution.ts';
import { planLaunch } from './plan-launch.ts';
import type { FrameworkName, LaunchQuery } from './plan-launch.ts';

function plan(
  distribution: object,
  processesPerHost?: number,
  change: Partial<LaunchQuery> & { mode?: { onAws: boolean; strict: boolean } } = {},
) {
  const { mode = { onAws: false, strict: false }, ...query } = change;
  const problems = new ProblemList(mode);
  const base = { framework: 'pytorch' as FrameworkName, instanceType: 'ml.m5.xlarge', groups: null };
  const isReadable = checkForm(distribution, problems);
  const result = isReadable
    ? planLaunch(
        { ...base, distribution: distribution as AnyDistribution, processesPerHost, ...query },
        problems,
      )
    : { launcher: 'none', hyperparameters: {} };
  return {
    ...result,
    errors: problems.errors.map(({ id, field }) => `${id} ${field}`),
    warnings: problems.warnings.map(({ id, field }) => `${id} ${field}`),
  };
}

const on = { enabled: true };

test('processesPerHost reaches every launcher as the hyperparameter of mpi', () => {
  for (const strategy of ['torch_distributed', 'pytorchddp', 'mpi']) {
    const { hyperparameters, errors } = plan({ [strategy]: { enabled: true } }, 2);
    expect(errors).toEqual([]);
    expect(hyperparameters['sagemaker_mpi_num_of_processes_per_host']).toBe(2);
  }
});

test('without a strategy the script runs once per host and processesPerHost is reported as having no effect', () => {
  const { launcher, hyperparameters, warnings } = plan({}, 2);
  expect(launcher).toBe('none');
  expect(hyperparameters).toEqual({});
  expect(warnings).toEqual(['W-PROCESSES-NO-OP processesPerHost']);
});

test('a present but disabled strategy sends its flag as false, as AWS does', () => {
  expect(plan({ mpi: { enabled: false } }).hyperparameters).toEqual({
    sagemaker_mpi_enabled: false,
    sagemaker_mpi_custom_mpi_options: '',
  });
  expect(plan({ pytorchddp: { enabled: false } }).hyperparameters).toEqual({
    sagemaker_distributed_dataparallel_enabled: false,
    sagemaker_instance_type: 'ml.m5.xlarge',
  });
  expect(plan({ torch_distributed: { enabled: false } }).hyperparameters).toEqual({});
});

test('torch_distributed leaves out the flags of mpi beside it, and says that mpi has no effect', () => {
  const { hyperparameters, warnings } = plan({
    torch_distributed: { enabled: true },
    mpi: { enabled: true, processes_per_host: 4 },
  });
  expect(hyperparameters).toEqual({
    sagemaker_torch_distributed_enabled: true,
    sagemaker_instance_type: 'ml.m5.xlarge',
  });
  expect(warnings).toEqual(['W-DIST-NO-OP distribution.mpi']);
});

test('two different numbers of processes are refused, equal ones are not', () => {
  const mpi = { enabled: true, processes_per_host: 4 };
  expect(plan({ mpi }, 2).errors).toEqual(['E-PROCESSES processesPerHost']);
  expect(plan({ mpi }, 4).errors).toEqual([]);
});

test.each([0, -1, 1.5, Number.NaN])('%d processes per host are refused', (count) => {
  expect(plan({ mpi: { enabled: true, processes_per_host: count } }).errors).toEqual([
    'E-PROCESSES distribution.mpi.processes_per_host',
  ]);
});

test('unknown names are reported as having no effect; wrong types are refused', () => {
  expect(plan({ torch_distibuted: { enabled: true } }).warnings).toEqual([
    'W-DIST-UNKNOWN distribution.torch_distibuted',
  ]);
  expect(plan({ mpi: { enabled: true, process_per_host: 2 } }).warnings).toEqual([
    'W-DIST-UNKNOWN distribution.mpi.process_per_host',
  ]);
  expect(plan({ mpi: true }).errors).toEqual(['E-DIST-TYPE distribution.mpi']);
  expect(plan({ mpi: { enabled: 'yes' } }).errors).toEqual(['E-DIST-TYPE distribution.mpi.enabled']);
});

test.each<[object, string[]]>([
  [{ smdistributed: [] }, ['E-SMD-TYPE distribution.smdistributed']],
  [{ smdistributed: { dataparallel: on, modelparallel: on } }, ['E-SMD-MULTI distribution.smdistributed']],
  [{ smdistributed: { data_parallel: on } }, ['E-SMD-UNKNOWN distribution.smdistributed.data_parallel']],
  [{ smdistributed: { dataparallel: true } }, ['E-DIST-TYPE distribution.smdistributed.dataparallel']],
  [{ instance_groups: 'g1' }, ['E-DIST-TYPE distribution.instance_groups']],
])('%j is refused', (distribution, errors) => {
  expect(plan(distribution).errors).toEqual(errors);
});

// The worked results of AWS's SDK.
test.each<[FrameworkName, object, string, object]>([
  ['tensorflow', { parameter_server: on }, 'parameter_server', { sagemaker_parameter_server_enabled: true }],
  [
    'tensorflow',
    { multi_worker_mirrored_strategy: on },
    'multi_worker_mirrored_strategy',
    { sagemaker_multi_worker_mirrored_strategy_enabled: true },
  ],
  ['mxnet', { parameter_server: on }, 'parameter_server', { sagemaker_parameter_server_enabled: true }],
  ['mxnet', { mpi: on }, 'mpi', { sagemaker_mpi_enabled: true }],
  [
    'mxnet',
    { mpi: on, parameter_server: on },
    'mpi',
    { sagemaker_mpi_enabled: true, sagemaker_parameter_server_enabled: true },
  ],
  [
    'mxnet',
    { mpi: { ...on, processes_per_host: 2 } },
    'mpi',
    {
      sagemaker_mpi_enabled: true,
      sagemaker_mpi_num_of_processes_per_host: 2,
      sagemaker_mpi_custom_mpi_options: '',
    },
  ],
  [
    'huggingface',
    { pytorchddp: on },
    'pytorchddp',
    { sagemaker_pytorch_ddp_enabled: true, sagemaker_instance_type: 'ml.m5.xlarge' },
  ],
  ['pytorch', { pytorchxla: on }, 'pytorchxla', { sagemaker_pytorch_xla_multi_worker_enabled: true }],
])('%s with %j starts %s', (framework, distribution, launcher, hyperparameters) => {
  expect(plan(distribution, undefined, { framework })).toEqual({
    launcher,
    hyperparameters,
    errors: [],
    warnings: [],
  });
});

test('model parallelism without mpi and torch_distributed is said to start no ranks', () => {
  const distribution = { smdistributed: { modelparallel: { ...on, parameters: { partitions: 2 } } } };
  expect(plan(distribution).warnings).toEqual(['W-DIST-NO-OP distribution.smdistributed.modelparallel']);
  expect(plan({ ...distribution, mpi: on }).warnings).toEqual([]);
  expect(plan({ ...distribution, torch_distributed: on }).warnings).toEqual([]);
});

test('Hugging Face loses the parameters of model parallelism with torch_distributed in strict mode only', () => {
  const distribution = {
    torch_distributed: on,
    smdistributed: { modelparallel: { ...on, parameters: { tensor_parallel_degree: 2 } } },
  };
  const parameters = (strict: boolean) =>
    plan(distribution, undefined, { framework: 'huggingface', mode: { onAws: false, strict } })
      .hyperparameters;
  expect(parameters(false)).toMatchObject({ mp_parameters: { tensor_parallel_degree: 2 } });
  expect(parameters(true)).toEqual({
    sagemaker_torch_distributed_enabled: true,
    sagemaker_instance_type: 'ml.m5.xlarge',
  });
});

test.each<[FrameworkName, object, string]>([
  ['tensorflow', { torch_distributed: on }, 'torch_distributed'],
  ['mxnet', { smdistributed: { dataparallel: on } }, 'smdistributed.dataparallel'],
  ['pytorch', { parameter_server: on }, 'parameter_server'],
])('%s with %j warns that it has no effect', (framework, distribution, field) => {
  const { launcher, warnings } = plan(distribution, undefined, { framework });
  expect(launcher).toBe('none');
  expect(warnings).toEqual([`W-DIST-NO-OP distribution.${field}`]);
});

const group = { instanceGroupName: 'g2', instanceType: 'ml.p4d.24xlarge', instanceCount: 2 };
const grouped = { instanceType: null, groups: [group] };
const AWS = { mode: { onAws: true, strict: false } };

test('a chosen group is sent with mpi and the data-parallel library, and outside AWS with torch_distributed', () => {
  const chosen = { instance_groups: ['g2'] };
  const flag = { sagemaker_distribution_instance_groups: ['g2'] };
  expect(plan({ ...chosen, mpi: on }, undefined, grouped).hyperparameters).toMatchObject(flag);
  expect(plan({ ...chosen, torch_distributed: on }, undefined, grouped)).toMatchObject({
    hyperparameters: { ...flag, sagemaker_torch_distributed_enabled: true },
    warnings: [],
  });
  const onAws = plan({ ...chosen, torch_distributed: on }, undefined, { ...grouped, ...AWS });
  expect(onAws.hyperparameters).toEqual({ sagemaker_torch_distributed_enabled: true });
  expect(onAws.warnings).toEqual(['W-IG-TORCHRUN distribution.instance_groups']);
});

test('a chosen group without a strategy is refused; with one that AWS starts on no group only there', () => {
  const chosen = { instance_groups: ['g2'] };
  const refused = ['E-IG-NOSTRAT distribution.instance_groups'];
  expect(plan(chosen, undefined, grouped).errors).toEqual(refused);
  expect(plan({}, undefined, grouped).errors).toEqual([]);
  const library = { torch_distributed: on, smdistributed: { modelparallel: on } };
  expect(plan({ ...chosen, ...library }, undefined, grouped).errors).toEqual([]);
  expect(plan({ ...chosen, ...library }, undefined, { ...grouped, ...AWS }).errors).toEqual(refused);
});
