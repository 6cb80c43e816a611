import { expect, test } from 'vitest';
import { planLaunch } from './distribution.ts';
import type { Distribution } from './distribution.ts';
import { ProblemList } from './problem.ts';

function plan(distribution: object, processesPerHost?: number) {
  const problems = new ProblemList({ onAws: false, strict: false });
  const result = planLaunch(
    { distribution: distribution as Distribution, processesPerHost, instanceType: 'ml.m5.xlarge' },
    problems,
  );
  return {
    ...result,
    errors: problems.errors.map(({ id, field }) => `${id} ${field}`),
    warnings: problems.warnings.map(({ id, field }) => `${id} ${field}`),
  };
}

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

test('unknown names are reported as having no effect; wrong types and strategies not offered are refused', () => {
  expect(plan({ torch_distibuted: { enabled: true } }).warnings).toEqual([
    'W-DIST-UNKNOWN distribution.torch_distibuted',
  ]);
  expect(plan({ mpi: { enabled: true, process_per_host: 2 } }).warnings).toEqual([
    'W-DIST-UNKNOWN distribution.mpi.process_per_host',
  ]);
  expect(plan({ mpi: true }).errors).toEqual(['E-DIST-TYPE distribution.mpi']);
  expect(plan({ mpi: { enabled: 'yes' } }).errors).toEqual(['E-DIST-TYPE distribution.mpi.enabled']);
  expect(plan({ parameter_server: { enabled: true } }).errors).toEqual([
    'E-DIST-UNSUPPORTED distribution.parameter_server',
  ]);
});
