import type { PythonValue } from '@trainyard/api';

/** How a ModelTrainer's script is started on the hosts. */
export interface DistributedConfig {
  /** Folder of a driver of one's own, put beside the others; null for a driver of Trainyard. */
  readonly driverDir: string | null;
  /** File name of the driver, a Python program. */
  readonly driverScript: string;
  /** What the driver finds in SM_DISTRIBUTED_CONFIG. */
  config(): { [name: string]: PythonValue };
}

/** Parameters of the model-parallel library's second version. */
export interface SMPOptions {
  /** 0 to the number of ranks. */
  hybridShardDegree?: number;
  smActivationOffloading?: boolean;
  activationLoadingHorizon?: number;
  fsdpCacheFlushWarnings?: boolean;
  allowEmptyShards?: boolean;
  /** 1 to the number of ranks. */
  tensorParallelDegree?: number;
  /** At most `hybridShardDegree`. */
  contextParallelDegree?: number;
  /** 1 to the number of ranks. */
  expertParallelDegree?: number;
  randomSeed?: number;
}

/** In the order of Python's class, which is that of the hyperparameter. */
const SMP_NAMES = {
  hybridShardDegree: 'hybrid_shard_degree',
  smActivationOffloading: 'sm_activation_offloading',
  activationLoadingHorizon: 'activation_loading_horizon',
  fsdpCacheFlushWarnings: 'fsdp_cache_flush_warnings',
  allowEmptyShards: 'allow_empty_shards',
  tensorParallelDegree: 'tensor_parallel_degree',
  contextParallelDegree: 'context_parallel_degree',
  expertParallelDegree: 'expert_parallel_degree',
  randomSeed: 'random_seed',
} as const satisfies Record<keyof SMPOptions, string>;

/** Model parallelism under torchrun. */
export class SMP {
  readonly options: Readonly<SMPOptions>;

  constructor(options: SMPOptions = {}) {
    this.options = options;
  }

  /** All parameters, null for those that were not given. */
  config(): { [name: string]: PythonValue } {
    const entries = Object.entries(SMP_NAMES) as [keyof SMPOptions, string][];
    return Object.fromEntries(entries.map(([option, name]) => [name, this.options[option] ?? null]));
  }

  /** The given ones: the hyperparameter `mp_parameters`. */
  parameters(): { [name: string]: PythonValue } {
    return Object.fromEntries(Object.entries(this.config()).filter(([, value]) => value !== null));
  }
}

export interface TorchrunOptions {
  /** Ranks on each host. @default its accelerators, else 1 */
  processCountPerNode?: number;
  /** Model parallelism. */
  smp?: SMP;
}

/** torchrun on every host. */
export class Torchrun implements DistributedConfig {
  readonly driverDir = null;
  readonly driverScript = 'torchrun_driver.py';
  readonly options: Readonly<TorchrunOptions>;

  constructor(options: TorchrunOptions = {}) {
    this.options = options;
  }

  config(): { [name: string]: PythonValue } {
    const { processCountPerNode, smp } = this.options;
    return { process_count_per_node: processCountPerNode ?? null, smp: smp?.config() ?? null };
  }
}

export interface MPIOptions {
  /** Ranks on each host. @default its accelerators, else 1 */
  processCountPerNode?: number;
  /** Further arguments of mpirun, one word each. */
  mpiAdditionalOptions?: readonly string[];
}

/** mpirun from the first host, over all hosts. */
export class MPI implements DistributedConfig {
  readonly driverDir = null;
  readonly driverScript = 'mpi_driver.py';
  readonly options: Readonly<MPIOptions>;

  constructor(options: MPIOptions = {}) {
    this.options = options;
  }

  config(): { [name: string]: PythonValue } {
    const { processCountPerNode, mpiAdditionalOptions } = this.options;
    return {
      process_count_per_node: processCountPerNode ?? null,
      mpi_additional_options: mpiAdditionalOptions ? [...mpiAdditionalOptions] : null,
    };
  }
}
