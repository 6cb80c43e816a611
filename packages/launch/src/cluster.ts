import type { AttemptPlan } from './plan.ts';
import type { JobParameters } from './parameters.ts';
import { isTrue } from './parameters.ts';

/** Who takes part in the distribution, as AWS's toolkit computes it. */
export interface Cluster {
  /** Hosts of this host's group, in the order of the group's list. */
  groupHosts: string[];
  distributionGroups: string[];
  /** Hosts of the distribution groups; a torchrun node rank is the index in this list. */
  distributionHosts: string[];
  /** First distribution host; the first of all hosts when nothing is distributed. */
  master: string;
  /** False: this host runs the script as a plain process whatever the flags say. */
  isDistributed: boolean;
}

const DISTRIBUTION_FLAGS = [
  'sagemaker_torch_distributed_enabled',
  'sagemaker_pytorch_ddp_enabled',
  'sagemaker_pytorch_xla_multi_worker_enabled',
  'sagemaker_distributed_dataparallel_enabled',
  'sagemaker_mpi_enabled',
  'sagemaker_parameter_server_enabled',
  'sagemaker_multi_worker_mirrored_strategy_enabled',
];

export function readCluster(plan: AttemptPlan, parameters: JobParameters): Cluster {
  const named = parameters.framework.sagemaker_distribution_instance_groups;
  const anyFlag = DISTRIBUTION_FLAGS.some((flag) => isTrue(parameters.framework[flag]));
  const distributionGroups = Array.isArray(named)
    ? named.map((name) => String(name))
    : anyFlag
      ? [plan.groupName]
      : [];
  const distributionHosts = plan.instanceGroups
    .filter((group) => distributionGroups.includes(group.name))
    .flatMap((group) => group.hosts);
  return {
    groupHosts: plan.instanceGroups.find((group) => group.name === plan.groupName)?.hosts ?? [],
    distributionGroups,
    distributionHosts,
    master: distributionHosts[0] ?? plan.hosts[0]!,
    isDistributed: distributionGroups.includes(plan.groupName),
  };
}
