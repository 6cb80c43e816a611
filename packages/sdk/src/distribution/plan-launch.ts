import type { PythonValue } from '@trainyard/api';
import type { InstanceGroup } from '../instance-groups.ts';
import type { ProblemList } from '../problem.ts';
import { STRATEGIES } from './check-form.ts';
import type { AnyDistribution, Mpi, MpiOptions, StrategyName } from './distribution.ts';
import { modelParallelParameters } from './model-parallel.ts';

/** The estimators that have a `distribution`. */
export type FrameworkName = 'pytorch' | 'tensorflow' | 'mxnet' | 'huggingface';

/** What starts the ranks of a job. */
export type Launcher =
  | 'none'
  | 'torchrun'
  | 'pytorchddp'
  | 'mpi'
  | 'dataparallel'
  | 'parameter_server'
  | 'multi_worker_mirrored_strategy'
  | 'pytorchxla';

export interface LaunchQuery {
  framework: FrameworkName;
  /** Its form was checked. */
  distribution: AnyDistribution;
  /** Ranks on each host, from the estimator's own option. */
  processesPerHost: number | undefined;
  /** Null with instance groups. */
  instanceType: string | null;
  /** Those that the distribution starts on; null without groups. */
  groups: readonly InstanceGroup[] | null;
}

/** What remains of a distribution after its checks. */
export interface LaunchPlan {
  launcher: Launcher;
  /** `sagemaker_*` hyperparameters, not yet encoded. */
  hyperparameters: Record<string, PythonValue>;
}

type Flags = Record<string, PythonValue>;

/**
 * The hyperparameters that AWS's SDK sends for a distribution, and ours for `processesPerHost`.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/estimator.py (`_distribution_configuration`)
 */
export function planLaunch(query: LaunchQuery, problems: ProblemList): LaunchPlan {
  const distribution = withLibraryOfDdp(query);
  const flags = FLAGS_OF[query.framework]({ ...query, distribution }, problems);
  const launcher = launcherOf(query, distribution);
  const processesPerHost = chooseProcessesPerHost(query, launcher, problems);
  if (processesPerHost !== undefined) flags['sagemaker_mpi_num_of_processes_per_host'] = processesPerHost;
  warnOfNoOps(query, launcher, problems);
  return { launcher, hyperparameters: flags };
}

/** PyTorch's `pytorchddp` is started as the data-parallel library is; Hugging Face's has a flag of its own. */
function withLibraryOfDdp({ framework, distribution }: LaunchQuery): AnyDistribution {
  const { pytorchddp, ...rest } = distribution;
  if (framework !== 'pytorch' || pytorchddp === undefined) return distribution;
  return { ...rest, smdistributed: { dataparallel: pytorchddp } };
}

/** Whether AWS's SDK looks at the strategies that all frameworks share; beside some launchers it does not. */
export function usesSharedFlags(framework: FrameworkName, distribution: AnyDistribution): boolean {
  const { torch_distributed: torchrun, pytorchddp, smdistributed } = distribution;
  if (framework === 'pytorch')
    return !torchrun?.enabled || smdistributed !== undefined || pytorchddp !== undefined;
  if (framework === 'huggingface')
    return !pytorchddp?.enabled && (pytorchddp !== undefined || !torchrun?.enabled);
  return framework === 'tensorflow';
}

const FLAGS_OF: Readonly<Record<FrameworkName, (query: LaunchQuery, problems: ProblemList) => Flags>> = {
  pytorch: pytorchFlags,
  tensorflow: sharedFlags,
  mxnet: mxnetFlags,
  huggingface: huggingFaceFlags,
};

function pytorchFlags(query: LaunchQuery, problems: ProblemList): Flags {
  const { torch_distributed: torchrun, smdistributed } = query.distribution;
  if (!torchrun?.enabled) return sharedFlags(query, problems);
  return {
    ...(smdistributed ? sharedFlags(query, problems) : torchrunGroups(query, problems)),
    sagemaker_torch_distributed_enabled: true,
    ...typeFlag(query),
  };
}

/** The shared flags are left out with torchrun, and so is the model-parallel library: a fault that only `strict` keeps. */
function huggingFaceFlags(query: LaunchQuery, problems: ProblemList): Flags {
  const { pytorchddp, torch_distributed: torchrun, smdistributed } = query.distribution;
  if (pytorchddp?.enabled) return { sagemaker_pytorch_ddp_enabled: true, ...typeFlag(query) };
  if (pytorchddp || !torchrun?.enabled) return sharedFlags(query, problems);
  if (smdistributed && !problems.strict) return pytorchFlags(query, problems);
  return {
    ...torchrunGroups(query, problems),
    sagemaker_torch_distributed_enabled: true,
    ...typeFlag(query),
  };
}

function mxnetFlags({ distribution: { parameter_server: server, mpi } }: LaunchQuery): Flags {
  const processes = mpi && (mpi.processes_per_host ?? mpi.processesPerHost);
  return {
    ...(server && { sagemaker_parameter_server_enabled: server.enabled ?? false }),
    ...(mpi && { sagemaker_mpi_enabled: mpi.enabled ?? false }),
    ...(mpi &&
      processes && {
        sagemaker_mpi_num_of_processes_per_host: processes,
        sagemaker_mpi_custom_mpi_options: mpiOptionsOf(mpi),
      }),
  };
}

function sharedFlags(query: LaunchQuery, problems: ProblemList): Flags {
  const { distribution } = query;
  const { mpi, smdistributed, parameter_server, pytorchxla, multi_worker_mirrored_strategy } = distribution;
  const parameters = smdistributed?.modelparallel
    ? modelParallelParameters(smdistributed.modelparallel, problems)
    : null;
  const dataparallel = smdistributed?.dataparallel;
  return {
    ...groupFlags(query, problems),
    ...(pytorchxla && { sagemaker_pytorch_xla_multi_worker_enabled: pytorchxla.enabled ?? false }),
    ...(parameter_server && { sagemaker_parameter_server_enabled: parameter_server.enabled ?? false }),
    ...(mpi && mpiFlags(mpi)),
    ...(parameters && { mp_parameters: parameters }),
    ...(smdistributed && {
      sagemaker_distributed_dataparallel_enabled: dataparallel?.enabled ?? false,
      sagemaker_instance_type: query.instanceType,
    }),
    ...(dataparallel?.enabled && {
      sagemaker_distributed_dataparallel_custom_mpi_options: mpiOptionsOf(dataparallel),
    }),
    ...(multi_worker_mirrored_strategy && {
      sagemaker_multi_worker_mirrored_strategy_enabled: multi_worker_mirrored_strategy.enabled ?? false,
    }),
  };
}

function mpiFlags(mpi: Mpi): Flags {
  const processes = mpi.processes_per_host ?? mpi.processesPerHost;
  return {
    sagemaker_mpi_enabled: mpi.enabled ?? false,
    ...(processes && { sagemaker_mpi_num_of_processes_per_host: processes }),
    sagemaker_mpi_custom_mpi_options: mpiOptionsOf(mpi),
  };
}

function typeFlag({ instanceType }: LaunchQuery): Flags {
  return instanceType === null ? {} : { sagemaker_instance_type: instanceType };
}

/**
 * Groups chosen for torch_distributed. AWS's SDK loses them, so that every group starts a torchrun of its own; elsewhere
 * they are sent, and the others run the script as it is.
 */
function torchrunGroups({ distribution, groups }: LaunchQuery, problems: ProblemList): Flags {
  if (!groups || (distribution.instance_groups ?? []).length === 0) return {};
  const names = groups.map((group) => group.instanceGroupName);
  if (!problems.onAws && !problems.strict) return { sagemaker_distribution_instance_groups: names };
  problems.warn({
    id: 'W-IG-TORCHRUN',
    field: 'distribution.instance_groups',
    value: names.join(', '),
    rule: 'AWS starts torch_distributed on every group, each by itself, whatever this says.',
    nextStep:
      'Use mpi or smdistributed.dataparallel there, or let the script look at SM_CURRENT_INSTANCE_GROUP.',
  });
  return {};
}

/** The chosen groups, which AWS's SDK accepts with mpirun only. */
function groupFlags({ framework, distribution, groups }: LaunchQuery, problems: ProblemList): Flags {
  if (!groups) return {};
  const names = groups.map((group) => group.instanceGroupName);
  const { smdistributed, mpi, parameter_server, pytorchxla } = distribution;
  const torchrun = framework === 'tensorflow' ? undefined : distribution.torch_distributed;
  const flag: Flags = { sagemaker_distribution_instance_groups: names };
  if (mpi?.enabled || smdistributed?.dataparallel?.enabled) return flag;
  const isChosen = (distribution.instance_groups ?? []).length > 0;
  const problem = {
    id: 'E-IG-NOSTRAT',
    field: 'distribution.instance_groups',
    value: names.join(', '),
    rule: 'On AWS groups can be chosen for mpi and smdistributed.dataparallel only.',
    nextStep: 'Enable one of them, or remove the groups.',
  } as const;
  if (torchrun?.enabled || parameter_server?.enabled || pytorchxla?.enabled) problems.refuseOnAws(problem);
  else if (isChosen || problems.strict || problems.onAws) problems.refuse(problem);
  return torchrun?.enabled ? flag : {};
}

/** In the order of AWS's images. */
function launcherOf({ framework }: LaunchQuery, distribution: AnyDistribution): Launcher {
  const { torch_distributed, pytorchddp, mpi, smdistributed, pytorchxla } = distribution;
  const { parameter_server, multi_worker_mirrored_strategy } = distribution;
  const dataparallel = smdistributed?.dataparallel?.enabled === true;
  if (framework === 'mxnet') {
    if (mpi?.enabled) return 'mpi';
    return parameter_server?.enabled ? 'parameter_server' : 'none';
  }
  if (framework === 'tensorflow') {
    if (parameter_server?.enabled) return 'parameter_server';
    if (multi_worker_mirrored_strategy?.enabled) return 'multi_worker_mirrored_strategy';
    if (mpi?.enabled) return 'mpi';
    return dataparallel ? 'dataparallel' : 'none';
  }
  // The SDK leaves the flag of mpi out beside torchrun, unless a library is there.
  if (mpi?.enabled && (!torch_distributed?.enabled || smdistributed)) return 'mpi';
  if (pytorchddp?.enabled) return 'pytorchddp';
  if (torch_distributed?.enabled && pytorchddp === undefined) return 'torchrun';
  if (dataparallel) return 'dataparallel';
  return pytorchxla?.enabled ? 'pytorchxla' : 'none';
}

function mpiOptionsOf(options: MpiOptions): string {
  return options.custom_mpi_options ?? options.customMpiOptions ?? '';
}

const TITLES: Readonly<Record<FrameworkName, string>> = {
  pytorch: 'PyTorch',
  tensorflow: 'TensorFlow',
  mxnet: 'MXNet',
  huggingface: 'Hugging Face',
};

/** Strategies that AWS's images start for a framework; of others the SDK takes no notice. */
const STRATEGIES_OF: Readonly<Record<FrameworkName, readonly string[]>> = {
  pytorch: ['torch_distributed', 'pytorchddp', 'mpi', 'smdistributed.dataparallel', 'pytorchxla'],
  tensorflow: ['mpi', 'parameter_server', 'multi_worker_mirrored_strategy', 'smdistributed.dataparallel'],
  mxnet: ['mpi', 'parameter_server'],
  huggingface: ['torch_distributed', 'pytorchddp', 'mpi', 'smdistributed.dataparallel', 'pytorchxla'],
};

/** Other names under which a launcher's own strategy may stand. */
const STARTED_BY: Readonly<Record<Launcher, readonly string[]>> = {
  none: [],
  torchrun: ['torch_distributed'],
  pytorchddp: ['pytorchddp'],
  mpi: ['mpi'],
  dataparallel: ['smdistributed.dataparallel', 'pytorchddp'],
  parameter_server: ['parameter_server'],
  multi_worker_mirrored_strategy: ['multi_worker_mirrored_strategy'],
  pytorchxla: ['pytorchxla'],
};

function warnOfNoOps(
  { distribution, framework }: LaunchQuery,
  launcher: Launcher,
  problems: ProblemList,
): void {
  const warn = (strategy: string, rule: string, nextStep: string): void =>
    problems.warn({
      id: 'W-DIST-NO-OP',
      field: `distribution.${strategy}`,
      value: { enabled: true },
      rule,
      nextStep,
    });
  const { smdistributed, instance_groups: _groups, ...plain } = distribution;
  const strategies = { ...plain, 'smdistributed.dataparallel': smdistributed?.dataparallel };
  for (const [strategy, options] of Object.entries(strategies)) {
    if (!options?.enabled || STARTED_BY[launcher].includes(strategy)) continue;
    // MXNet's servers run beside whatever starts the script.
    if (framework === 'mxnet' && strategy === 'parameter_server') continue;
    if (STRATEGIES_OF[framework].includes(strategy))
      warn(
        strategy,
        `Only one strategy can start the ranks, and ${launcher} comes first.`,
        'Enable one strategy.',
      );
    else if (strategy === 'parameter_server')
      warn(
        strategy,
        `AWS's images of ${TITLES[framework]} start no parameter servers, and neither does Trainyard: the script runs once per host.`,
        'Use torch_distributed or mpi, or let the script start its own servers.',
      );
    else if (STRATEGIES.includes(strategy as StrategyName) || strategy.startsWith('smdistributed'))
      warn(strategy, `It has no effect with ${TITLES[framework]}, here as on AWS.`, 'Remove it.');
  }
  if (smdistributed?.modelparallel?.enabled && launcher !== 'mpi' && launcher !== 'torchrun')
    warn(
      'smdistributed.modelparallel',
      'Nothing starts its ranks: the first version needs mpi, the second torch_distributed.',
      'Add mpi: { enabled: true, processes_per_host: … } or torch_distributed: { enabled: true }.',
    );
}

/** Launchers that start more than one rank per host. */
const WITH_RANKS: readonly Launcher[] = ['torchrun', 'pytorchddp', 'mpi', 'dataparallel', 'pytorchxla'];

function chooseProcessesPerHost(
  { distribution: { mpi, torch_distributed: torchrun }, processesPerHost: top }: LaunchQuery,
  launcher: Launcher,
  problems: ProblemList,
): number | undefined {
  const inMpi =
    launcher === 'mpi' || !torchrun?.enabled ? (mpi?.processes_per_host ?? mpi?.processesPerHost) : undefined;
  if (top !== undefined && !WITH_RANKS.includes(launcher)) {
    const hasServers = launcher === 'parameter_server' || launcher === 'multi_worker_mirrored_strategy';
    problems.warn({
      id: 'W-PROCESSES-NO-OP',
      field: 'processesPerHost',
      value: top,
      rule: `${hasServers ? `With ${launcher}` : 'Without an enabled distribution'} the script runs once per host.`,
      nextStep: hasServers
        ? 'Remove it.'
        : 'Add a distribution, e.g. { torch_distributed: { enabled: true } }, or remove it.',
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
  return top;
}
