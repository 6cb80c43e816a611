import type { HostPlan } from '@trainyard/api';
import type { Cluster } from '../cluster.ts';
import type { Hardware } from '../hardware.ts';
import { neuronCoresOf } from '../hardware.ts';
import type { JobParameters } from '../parameters.ts';
import { isTrue, positiveInteger } from '../parameters.ts';
import type { Launcher } from './launcher.ts';
import { mpirun, smddp } from './mpirun.ts';
import { mxnetServers } from './mxnet.ts';
import { container, single } from './single.ts';
import { multiWorker, tensorflowServers } from './tensorflow.ts';
import { torchrun } from './torchrun.ts';

type Precedence = readonly [flag: string, launcher: Launcher][];

/** In AWS's order of precedence: the first flag that is true decides. `parameter_server` has no code there. */
const PYTORCH: Precedence = [
  ['sagemaker_mpi_enabled', mpirun],
  ['sagemaker_pytorch_ddp_enabled', smddp],
  ['sagemaker_torch_distributed_enabled', torchrun],
  ['sagemaker_distributed_dataparallel_enabled', smddp],
];

const TENSORFLOW: Precedence = [
  ['sagemaker_parameter_server_enabled', tensorflowServers],
  ['sagemaker_multi_worker_mirrored_strategy_enabled', multiWorker],
  ['sagemaker_mpi_enabled', mpirun],
  ['sagemaker_distributed_dataparallel_enabled', smddp],
];

/** Images without a framework module know mpirun only. */
const GENERIC: Precedence = [['sagemaker_mpi_enabled', mpirun]];

const PRECEDENCE: Readonly<Record<NonNullable<HostPlan['frameworkModule']> | 'generic', Precedence>> = {
  'sagemaker_pytorch_container.training:main': PYTORCH,
  'sagemaker_tensorflow_container.training:main': TENSORFLOW,
  'sagemaker_mxnet_container.training:main': GENERIC,
  generic: GENERIC,
};

export function chooseLauncher(
  plan: Pick<HostPlan, 'frameworkModule' | 'containerEntrypoint' | 'containerArguments'>,
  parameters: JobParameters,
  cluster: Cluster,
): Launcher {
  if (containerCommand(plan, parameters)) return container;
  if (!cluster.isDistributed) return single;
  const chosen = enabled(PRECEDENCE[plan.frameworkModule ?? 'generic'], parameters)[0]?.[1] ?? single;
  // MXNet's servers stand beside whatever starts the workers.
  const hasServers = isTrue(parameters.framework.sagemaker_parameter_server_enabled);
  return hasServers && plan.frameworkModule === MXNET ? mxnetServers(chosen) : chosen;
}

const MXNET = 'sagemaker_mxnet_container.training:main';

const enabled = (table: Precedence, { framework }: JobParameters): Precedence =>
  table.filter(([flag]) => isTrue(framework[flag]));

/** Every flag, by the name of the estimator's option. */
const OPTIONS: Readonly<Record<string, string>> = {
  sagemaker_mpi_enabled: 'mpi',
  sagemaker_pytorch_ddp_enabled: 'pytorchddp',
  sagemaker_torch_distributed_enabled: 'torch_distributed',
  sagemaker_distributed_dataparallel_enabled: 'smdistributed.dataparallel',
  sagemaker_parameter_server_enabled: 'parameter_server',
  sagemaker_multi_worker_mirrored_strategy_enabled: 'multi_worker_mirrored_strategy',
  sagemaker_pytorch_xla_multi_worker_enabled: 'pytorchxla',
};

/** One sentence on the options that the job asks for and that start nothing; null when there are none. */
export function ignoredOptions(
  plan: Pick<HostPlan, 'frameworkModule' | 'containerEntrypoint' | 'containerArguments'>,
  parameters: JobParameters,
  launcher: Launcher,
): string | null {
  if (launcher.name === 'container') return null;
  const used = enabled(PRECEDENCE[plan.frameworkModule ?? 'generic'], parameters).slice(0, 1);
  const ignored = Object.keys(OPTIONS).filter(
    (flag) =>
      isTrue(parameters.framework[flag]) &&
      !used.some(([other]) => other === flag) &&
      !(launcher.name === 'mxnet-servers' && flag === 'sagemaker_parameter_server_enabled'),
  );
  if (ignored.length === 0) return null;
  const names = ignored.map((flag) => OPTIONS[flag]).join(', ');
  const what = used[0] ? `${OPTIONS[used[0][0]]} starts the ranks` : 'the script runs once on every host';
  // Of these, only the Training Compiler's launcher exists on AWS.
  const like = names === 'pytorchxla' ? '' : ", as in AWS's toolkit";
  return `The job asks for ${names}, which starts nothing with this image${like}: ${what}.`;
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
  environment: Readonly<Record<string, string>> = {},
): number {
  return (
    positiveInteger(parameters.framework.sagemaker_mpi_num_of_processes_per_host) ??
    (hardware.gpuCount || neuronCoresOf(instanceType, hardware.neuronCoreCount, environment) || 1)
  );
}
