import type { PythonValue } from '@trainyard/api';
import type {
  AnyDistribution,
  ModelParallelParameters,
  SmDistributed,
} from '../distribution/distribution.ts';
import type { TrainingCompilerConfig } from './training-compiler.ts';

type Flags = Readonly<Record<string, PythonValue>>;

export interface RestoredLaunch {
  distribution?: AnyDistribution;
  processesPerHost?: number;
  compilerConfig?: TrainingCompilerConfig;
}

/** The options that lead to these decoded `sagemaker_*` hyperparameters: the way back of `planLaunch`. */
export function launchOfFlags(flags: Flags): RestoredLaunch {
  const isOn = (name: string): boolean => flags[`sagemaker_${name}_enabled`] === true;
  const library = libraryOf(flags, isOn('distributed_dataparallel'));
  const groups = flags['sagemaker_distribution_instance_groups'];
  const [group] = Array.isArray(groups) ? (groups as readonly PythonValue[]) : [];
  const mpiOptions = text(flags['sagemaker_mpi_custom_mpi_options']);
  const distribution: AnyDistribution = {
    ...(isOn('torch_distributed') && { torch_distributed: { enabled: true } }),
    ...(isOn('pytorch_ddp') && { pytorchddp: { enabled: true } }),
    ...(isOn('mpi') && { mpi: { enabled: true, ...mpiOptions } }),
    ...(isOn('parameter_server') && { parameter_server: { enabled: true } }),
    ...(isOn('multi_worker_mirrored_strategy') && { multi_worker_mirrored_strategy: { enabled: true } }),
    ...(isOn('pytorch_xla_multi_worker') && { pytorchxla: { enabled: true } }),
    ...(library && { smdistributed: library }),
    ...(typeof group === 'string' && { instance_groups: [group] }),
  };
  const processes = flags['sagemaker_mpi_num_of_processes_per_host'];
  const compiler = flags['sagemaker_training_compiler_enabled'];
  const debug = flags['sagemaker_training_compiler_debug_mode'];
  return {
    ...(Object.keys(distribution).length > 0 && { distribution }),
    ...(typeof processes === 'number' && { processesPerHost: processes }),
    ...(typeof compiler === 'boolean' && { compilerConfig: { enabled: compiler, debug: debug === true } }),
  };
}

/** `pytorchddp` of PyTorch leaves the flags of the data-parallel library, which start the same ranks. */
function libraryOf(flags: Flags, isDataParallel: boolean): SmDistributed | null {
  if (isDataParallel) {
    const options = text(flags['sagemaker_distributed_dataparallel_custom_mpi_options']);
    return { dataparallel: { enabled: true, ...options } };
  }
  const parameters = flags['mp_parameters'];
  if (typeof parameters !== 'object' || parameters === null) return null;
  return { modelparallel: { enabled: true, parameters: parameters as ModelParallelParameters } };
}

function text(options: PythonValue | undefined): { custom_mpi_options?: string } {
  return typeof options === 'string' && options !== '' ? { custom_mpi_options: options } : {};
}
