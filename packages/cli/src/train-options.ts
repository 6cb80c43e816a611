import type { AnyDistribution, InstanceGroup } from '@trainyard/sdk';
import { parseHyperparameters, parsePairs } from './pairs.ts';
import { UserError } from './user-error.ts';

/** Flags of `trainyard train` that choose the framework, the hosts and what starts the ranks. */
export interface LaunchFlags {
  framework: Framework;
  frameworkVersion?: string;
  transformersVersion?: string;
  distribution: DistributionName;
  mpiOptions?: string;
  modelParallel?: string[];
  instances?: number;
  instanceType?: string;
  instanceGroup?: string[];
  distributionGroup?: string;
  processesPerHost?: number;
}

/** By the estimator that makes the request. */
export const FRAMEWORKS = {
  pytorch: 'PyTorch',
  tensorflow: 'TensorFlow',
  mxnet: 'MXNet',
  huggingface: 'HuggingFace',
} as const;
export type Framework = keyof typeof FRAMEWORKS;

const ON = { enabled: true };
type Details = { mpi: { custom_mpi_options?: string }; parameters: Record<string, never> | undefined };

/** The names of SageMaker's `distribution` option, and what each puts into it. */
export const DISTRIBUTIONS = {
  none: () => ({}),
  torch_distributed: () => ({ torch_distributed: ON }),
  pytorchddp: ({ mpi }) => ({ pytorchddp: { ...ON, ...mpi } }),
  mpi: ({ mpi }) => ({ mpi: { ...ON, ...mpi } }),
  parameter_server: () => ({ parameter_server: ON }),
  multi_worker_mirrored_strategy: () => ({ multi_worker_mirrored_strategy: ON }),
  'smdistributed.dataparallel': ({ mpi }) => ({ smdistributed: { dataparallel: { ...ON, ...mpi } } }),
  // The library's second version starts by torchrun, its first by mpirun.
  'smdistributed.modelparallel': ({ parameters }) => ({
    torch_distributed: ON,
    smdistributed: { modelparallel: { ...ON, ...(parameters && { parameters }) } },
  }),
  'smdistributed.modelparallel-v1': ({ mpi, parameters }) => ({
    mpi: { ...ON, ...mpi },
    smdistributed: { modelparallel: { ...ON, ...(parameters && { parameters }) } },
  }),
} as const satisfies Record<string, (details: Details) => AnyDistribution>;
export type DistributionName = keyof typeof DISTRIBUTIONS;

const WITH_MPI_OPTIONS: readonly DistributionName[] = [
  'pytorchddp',
  'mpi',
  'smdistributed.dataparallel',
  'smdistributed.modelparallel-v1',
];

/** Whatever the estimators' own types make of it: each checks its combination when it is made. */
export interface LaunchOptions {
  distribution: AnyDistribution | undefined;
  instanceCount: number | undefined;
  instanceType: string | undefined;
  instanceGroups: InstanceGroup[] | undefined;
  processesPerHost: number | undefined;
  frameworkVersion?: string;
  pytorchVersion?: string;
  transformersVersion?: string;
}

/** @throws UserError for flags that contradict each other or do not apply */
export function launchOptions(flags: LaunchFlags): LaunchOptions {
  const { framework, frameworkVersion, transformersVersion } = flags;
  if (transformersVersion !== undefined && framework !== 'huggingface')
    throw new UserError(
      `--transformers-version is for --framework huggingface; the framework is ${framework}.`,
    );
  const groups = parseGroups(flags);
  return {
    distribution: distributionOf(flags, groups),
    instanceCount: groups ? undefined : (flags.instances ?? 1),
    instanceType: flags.instanceType,
    instanceGroups: groups,
    processesPerHost: flags.processesPerHost,
    ...(framework === 'huggingface'
      ? { pytorchVersion: frameworkVersion, transformersVersion }
      : { frameworkVersion }),
  };
}

function distributionOf(
  { distribution: name, mpiOptions, modelParallel, distributionGroup }: LaunchFlags,
  given: InstanceGroup[] | undefined,
): AnyDistribution | undefined {
  if (mpiOptions !== undefined && !WITH_MPI_OPTIONS.includes(name))
    throw new UserError(`--mpi-options is for --distribution ${WITH_MPI_OPTIONS.join(', ')}; it is ${name}.`);
  if (modelParallel !== undefined && !name.startsWith('smdistributed.modelparallel'))
    throw new UserError(`--model-parallel is for --distribution smdistributed.modelparallel; it is ${name}.`);
  if (
    distributionGroup !== undefined &&
    !given?.some((group) => group.instanceGroupName === distributionGroup)
  )
    throw new UserError(
      `--distribution-group is ${distributionGroup}; the groups of --instance-group are ${given?.map((group) => group.instanceGroupName).join(', ') ?? 'none'}.`,
    );
  if (name === 'none') return undefined;
  const make: (details: Details) => AnyDistribution = DISTRIBUTIONS[name];
  return {
    ...make({
      mpi: mpiOptions === undefined ? {} : { custom_mpi_options: mpiOptions },
      parameters:
        modelParallel && (parseHyperparameters('--model-parallel', modelParallel) as Record<string, never>),
    }),
    ...(distributionGroup === undefined ? {} : { instance_groups: [distributionGroup] as const }),
  };
}

function parseGroups({ instanceGroup, instances, instanceType }: LaunchFlags): InstanceGroup[] | undefined {
  if (instanceGroup === undefined) return undefined;
  if (instances !== undefined || instanceType !== undefined)
    throw new UserError('--instance-group excludes --instances and --instance-type: each group has its own.');
  return Object.entries(parsePairs('--instance-group', instanceGroup)).map(([instanceGroupName, text]) => {
    const [, type, count] = /^([^:]+):(\d+)$/.exec(text) ?? [];
    if (type === undefined)
      throw new UserError(
        `--instance-group is ${instanceGroupName}=${text}; write NAME=TYPE:COUNT, such as train=ml.m5.xlarge:2.`,
      );
    return { instanceGroupName, instanceType: type, instanceCount: Number(count) };
  });
}

/** `2 instances, 1 process each, torch_distributed`. */
export function describeLaunch(flags: LaunchFlags): string {
  const { instanceGroups, instanceCount, processesPerHost } = launchOptions(flags);
  const counted = (count: number, one: string, many: string): string =>
    `${count} ${count === 1 ? one : many}`;
  const hosts = instanceGroups
    ? instanceGroups
        .map(
          (group) => `${counted(group.instanceCount, 'instance', 'instances')} in ${group.instanceGroupName}`,
        )
        .join(' + ')
    : counted(instanceCount ?? 1, 'instance', 'instances');
  return [
    hosts,
    ...(processesPerHost === undefined ? [] : [`${counted(processesPerHost, 'process', 'processes')} each`]),
    ...(flags.distribution === 'none' ? [] : [flags.distribution]),
  ].join(', ');
}
