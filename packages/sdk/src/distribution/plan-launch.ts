import type { PythonValue } from '@trainyard/api';
import type { ProblemList } from './problem.ts';

/** How ranks are started on the hosts. Names inside are those of SageMaker; camelCase is accepted as well. */
export interface Distribution {
  /** torchrun on every host. */
  torch_distributed?: TorchDistributed;
  /** PyTorch DDP started by mpirun from the first host. */
  pytorchddp?: PyTorchDdp;
  /** mpirun from the first host. */
  mpi?: Mpi;
}

export interface TorchDistributed {
  /** @default false */
  enabled: boolean;
}

export interface MpiOptions {
  /**
   * Further arguments of mpirun, separated by blanks.
   * @default ''
   */
  custom_mpi_options?: string;
  /** The same. */
  customMpiOptions?: string;
}

export interface PyTorchDdp extends MpiOptions {
  /** @default false */
  enabled: boolean;
}

export interface Mpi extends MpiOptions {
  /** @default false */
  enabled: boolean;
  /**
   * Ranks on each host.
   * @default the host's accelerators, else 1
   */
  processes_per_host?: number;
  /** The same. */
  processesPerHost?: number;
}

export type Launcher = 'none' | 'torchrun' | 'pytorchddp' | 'mpi';

/** What remains of a {@link Distribution} after its checks. */
export interface LaunchPlan {
  launcher: Launcher;
  /** The key is there, whether enabled or not: AWS's SDK then sends the flag of its data-parallel library. */
  hasDataParallelFlag: boolean;
  /** `sagemaker_*` hyperparameters, not yet encoded. */
  hyperparameters: Record<string, PythonValue>;
}

const KNOWN_KEYS: Readonly<Record<string, readonly string[]>> = {
  torch_distributed: ['enabled'],
  pytorchddp: ['enabled', 'custom_mpi_options', 'customMpiOptions'],
  mpi: ['enabled', 'processes_per_host', 'processesPerHost', 'custom_mpi_options', 'customMpiOptions'],
};

/** Strategies of SageMaker that exist but are not offered by this SDK: ignoring them would train something else. */
const OTHER_STRATEGIES: readonly string[] = [
  'smdistributed',
  'parameter_server',
  'multi_worker_mirrored_strategy',
  'pytorchxla',
  'instance_groups',
];

/**
 * Checks the form of `distribution` and turns it into the hyperparameters that AWS's SDK sends for it.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/estimator.py (`_distribution_configuration`)
 */
export function planLaunch(
  options: { distribution: Distribution; processesPerHost: number | undefined; instanceType: string },
  problems: ProblemList,
): LaunchPlan {
  const { distribution, instanceType } = options;
  checkKeys(distribution, problems);
  const { torch_distributed: torchrun, pytorchddp: ddp, mpi } = distribution;
  const launcher: Launcher = torchrun?.enabled
    ? 'torchrun'
    : ddp?.enabled
      ? 'pytorchddp'
      : mpi?.enabled
        ? 'mpi'
        : 'none';
  warnOfNoOps(distribution, launcher, problems);
  const processesPerHost = chooseProcessesPerHost(options, launcher, problems);

  const hyperparameters: Record<string, PythonValue> = {};
  if (ddp || !torchrun?.enabled) {
    if (mpi) {
      hyperparameters['sagemaker_mpi_enabled'] = mpi.enabled ?? false;
      hyperparameters['sagemaker_mpi_custom_mpi_options'] = mpiOptionsOf(mpi);
    }
    if (ddp) {
      hyperparameters['sagemaker_distributed_dataparallel_enabled'] = ddp.enabled ?? false;
      hyperparameters['sagemaker_instance_type'] = instanceType;
      if (ddp.enabled) {
        hyperparameters['sagemaker_distributed_dataparallel_custom_mpi_options'] = mpiOptionsOf(ddp);
      }
    }
  }
  if (torchrun?.enabled) {
    hyperparameters['sagemaker_torch_distributed_enabled'] = true;
    hyperparameters['sagemaker_instance_type'] = instanceType;
  }
  if (processesPerHost !== undefined)
    hyperparameters['sagemaker_mpi_num_of_processes_per_host'] = processesPerHost;
  return { launcher, hasDataParallelFlag: ddp !== undefined, hyperparameters };
}

function mpiOptionsOf(options: MpiOptions): string {
  return options.custom_mpi_options ?? options.customMpiOptions ?? '';
}

function checkKeys(distribution: Distribution, problems: ProblemList): void {
  for (const [strategy, value] of Object.entries(distribution)) {
    const field = `distribution.${strategy}`;
    const known = KNOWN_KEYS[strategy];
    if (known) {
      checkStrategy(field, value, known, problems);
    } else if (OTHER_STRATEGIES.includes(strategy)) {
      problems.refuse({
        id: strategy === 'pytorchxla' ? 'E-XLA' : 'E-DIST-UNSUPPORTED',
        field,
        value,
        rule: `This version starts ${Object.keys(KNOWN_KEYS).join(', ')}.`,
        nextStep: 'Use one of these; for PyTorch torch_distributed fits most scripts.',
      });
    } else {
      problems.warn({
        id: 'W-DIST-UNKNOWN',
        field,
        value,
        rule: `It is not a strategy and has no effect, here as on AWS. Known are ${Object.keys(KNOWN_KEYS).join(', ')}.`,
        nextStep: 'Correct the name or remove it.',
      });
    }
  }
}

function checkStrategy(field: string, value: unknown, known: readonly string[], problems: ProblemList): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    problems.refuse({
      id: 'E-DIST-TYPE',
      field,
      value,
      rule: 'A strategy is an object.',
      nextStep: 'Write { enabled: true }.',
    });
    return;
  }
  for (const [key, option] of Object.entries(value)) {
    const type = key === 'enabled' ? 'boolean' : key.startsWith('processes') ? 'number' : 'string';
    if (!known.includes(key)) {
      problems.warn({
        id: 'W-DIST-UNKNOWN',
        field: `${field}.${key}`,
        value: option,
        rule: `It has no effect, here as on AWS. Known are ${known.join(', ')}.`,
        nextStep: 'Correct the name or remove it.',
      });
    } else if (option !== undefined && typeof option !== type) {
      problems.refuse({
        id: 'E-DIST-TYPE',
        field: `${field}.${key}`,
        value: option,
        rule: `It must be a ${type}.`,
        nextStep: 'Correct the value.',
      });
    }
  }
}

function warnOfNoOps(distribution: Distribution, launcher: Launcher, problems: ProblemList): void {
  const enabled = Object.entries(distribution).filter(([key, value]) => key in KNOWN_KEYS && value?.enabled);
  for (const [strategy, value] of enabled) {
    if (strategy === launcher || (strategy === 'torch_distributed' && launcher === 'torchrun')) continue;
    problems.warn({
      id: 'W-DIST-NO-OP',
      field: `distribution.${strategy}`,
      value,
      rule: `Only one strategy can start the ranks, and ${launcher} comes first.`,
      nextStep: 'Enable one strategy.',
    });
  }
}

function chooseProcessesPerHost(
  options: { distribution: Distribution; processesPerHost: number | undefined },
  launcher: Launcher,
  problems: ProblemList,
): number | undefined {
  const { mpi, torch_distributed: torchrun } = options.distribution;
  const inMpi = torchrun?.enabled ? undefined : (mpi?.processes_per_host ?? mpi?.processesPerHost);
  const top = options.processesPerHost;
  if (top !== undefined && launcher === 'none') {
    problems.warn({
      id: 'W-PROCESSES-NO-OP',
      field: 'processesPerHost',
      value: top,
      rule: 'Without an enabled distribution the script runs once per host.',
      nextStep: 'Add distribution: { torch_distributed: { enabled: true } }, or remove it.',
    });
    return undefined;
  }
  if (top !== undefined && inMpi !== undefined && top !== inMpi) {
    problems.refuse({
      id: 'E-PROCESSES',
      field: 'processesPerHost',
      value: top,
      rule: `distribution.mpi.processes_per_host is ${inMpi}; both set the same hyperparameter.`,
      nextStep: 'Give one of them.',
    });
  }
  const chosen = top ?? inMpi;
  if (chosen !== undefined && !(Number.isInteger(chosen) && chosen >= 1)) {
    problems.refuse({
      id: 'E-PROCESSES',
      field: top === undefined ? 'distribution.mpi.processes_per_host' : 'processesPerHost',
      value: chosen,
      rule: 'Ranks per host is a whole number of at least 1.',
      nextStep: 'Leave it out for one rank per accelerator.',
    });
  }
  if (top !== undefined && problems.onAws && launcher !== 'mpi') {
    problems.warn({
      id: 'W-PROCESSES-AWS',
      field: 'processesPerHost',
      value: top,
      rule: `AWS's images start one rank per accelerator with ${launcher}, whatever this says.`,
      nextStep: 'Remove it, or use distribution.mpi.',
    });
  }
  return chosen;
}
