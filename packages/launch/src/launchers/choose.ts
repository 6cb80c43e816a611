import type { HostPlan } from '@trainyard/api';
import type { Cluster } from '../cluster.ts';
import type { Hardware } from '../hardware.ts';
import { neuronCoresOf } from '../hardware.ts';
import type { JobParameters } from '../parameters.ts';
import { isTrue, positiveInteger } from '../parameters.ts';
import type { Launcher } from './launcher.ts';
import { mpirun, smddp } from './mpirun.ts';
import { container, single } from './single.ts';
import { torchrun } from './torchrun.ts';

/** In AWS's order of precedence: the first flag that is true decides. */
const PYTORCH: readonly [flag: string, launcher: Launcher][] = [
  ['sagemaker_mpi_enabled', mpirun],
  ['sagemaker_pytorch_ddp_enabled', smddp],
  ['sagemaker_torch_distributed_enabled', torchrun],
  ['sagemaker_distributed_dataparallel_enabled', smddp],
];

/** Images without a framework module know mpirun only. */
const GENERIC: readonly [flag: string, launcher: Launcher][] = [['sagemaker_mpi_enabled', mpirun]];

export function chooseLauncher(
  plan: Pick<HostPlan, 'frameworkModule' | 'containerEntrypoint' | 'containerArguments'>,
  parameters: JobParameters,
  cluster: Cluster,
): Launcher {
  if (containerCommand(plan, parameters)) return container;
  if (!cluster.isDistributed) return single;
  const table = plan.frameworkModule === null ? GENERIC : PYTORCH;
  return table.find(([flag]) => isTrue(parameters.framework[flag]))?.[1] ?? single;
}

/**
 * The job's own command: ContainerEntrypoint and ContainerArguments, or arguments alone when the request names no
 * script. Null when AWS's toolkit runs the script.
 */
export function containerCommand(
  plan: Pick<HostPlan, 'containerEntrypoint' | 'containerArguments'>,
  parameters: JobParameters,
): string[] | null {
  const words = [...(plan.containerEntrypoint ?? []), ...(plan.containerArguments ?? [])];
  const isOwn = plan.containerEntrypoint !== null || parameters.program === null;
  return isOwn && words.length > 0 ? words : null;
}

/** What the job says, for every launcher; else the accelerators found; else 1. */
export function processesPerHost(
  parameters: JobParameters,
  hardware: Hardware,
  instanceType: string,
): number {
  return (
    positiveInteger(parameters.framework.sagemaker_mpi_num_of_processes_per_host) ??
    (hardware.gpuCount || neuronCoresOf(instanceType, hardware.neuronCoreCount) || 1)
  );
}
