import type { PythonValue } from '@trainyard/api';
import type { InstanceGroup } from '../instance-groups.ts';

/** Names inside are those of SageMaker; camelCase is accepted as well. */
export interface Strategy {
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

/** torchrun on every host. */
export interface TorchDistributed extends Strategy {}

/** PyTorch DDP started by mpirun from the first host. */
export interface PyTorchDdp extends Strategy, MpiOptions {}

/** mpirun from the first host. */
export interface Mpi extends Strategy, MpiOptions {
  /**
   * Ranks on each host.
   * @default the host's accelerators, else 1
   */
  processes_per_host?: number;
  /** The same. */
  processesPerHost?: number;
}

/** A parameter server beside the worker of every host. */
export interface ParameterServer extends Strategy {}

/** TensorFlow's MultiWorkerMirroredStrategy: TF_CONFIG with one worker per host. */
export interface MultiWorkerMirroredStrategy extends Strategy {}

/** torch-xla on GPUs, with the Training Compiler. */
export interface PyTorchXla extends Strategy {}

/** The data-parallel library, started by mpirun from the first host. */
export interface DataParallel extends Strategy, MpiOptions {}

/** The model-parallel library: the first version with `mpi`, the second with `torch_distributed`. */
export interface ModelParallel extends Strategy {
  /** Parameters of the library, or the path of a JSON file with them. */
  parameters?: ModelParallelParameters | string;
}

/** Those that have rules; all others are passed on as they are. */
export interface ModelParallelParameters {
  partitions?: number;
  microbatches?: number;
  active_microbatches?: number;
  pipeline?: 'simple' | 'interleaved' | '_only_forward';
  /** `cluster`, `spread`, or, outside AWS, an order of the letters D, P and T. */
  placement_strategy?: string;
  optimize?: 'speed' | 'memory';
  auto_partition?: boolean;
  /** Less than `partitions`; needed when `auto_partition` is false. */
  default_partition?: number;
  contiguous?: boolean;
  load_partition?: boolean;
  partition_file?: string;
  /** 0 to 1. */
  memory_weight?: number;
  horovod?: boolean;
  /** Not together with `horovod`. */
  ddp?: boolean;
  /** With `ddp` only. */
  ddp_port?: number;
  /** With `ddp` only. */
  ddp_dist_backend?: string;
  deterministic_server?: boolean;
  [parameter: string]: PythonValue | undefined;
}

/** One of AWS's libraries. */
export type SmDistributed =
  | { dataparallel: DataParallel; modelparallel?: never }
  | { modelparallel: ModelParallel; dataparallel?: never };

/** Everything that `distribution` may hold; each estimator's own type leaves out what its framework refuses. */
export interface AnyDistribution {
  torch_distributed?: TorchDistributed;
  pytorchddp?: PyTorchDdp;
  mpi?: Mpi;
  parameter_server?: ParameterServer;
  multi_worker_mirrored_strategy?: MultiWorkerMirroredStrategy;
  pytorchxla?: PyTorchXla;
  smdistributed?: SmDistributed;
  /** The group of hosts that the strategy starts on: one of the estimator's, or its name. */
  instance_groups?: InstanceGroupChoice;
}

export type InstanceGroupChoice = readonly [] | readonly [InstanceGroup | string];

export type StrategyName = Exclude<keyof AnyDistribution, 'instance_groups'>;

type Without<Names extends keyof AnyDistribution> = { [Name in Names]?: never };

/**
 * How a PyTorch script is started on the hosts. `pytorchddp` and `smdistributed` exclude each other; strategies of other
 * frameworks are left out.
 */
export type PyTorchDistribution = Pick<AnyDistribution, 'torch_distributed' | 'mpi' | 'parameter_server'> &
  Without<'multi_worker_mirrored_strategy' | 'pytorchxla'> &
  (
    | (Pick<AnyDistribution, 'pytorchddp'> & Without<'smdistributed'>)
    | (Pick<AnyDistribution, 'smdistributed'> & Without<'pytorchddp'>)
  );

/** With the Training Compiler, which excludes AWS's libraries. */
export type CompilerDistribution = Pick<AnyDistribution, 'pytorchxla' | 'torch_distributed' | 'mpi'> &
  Without<Exclude<StrategyName, 'pytorchxla' | 'torch_distributed' | 'mpi'>>;

/** How a TensorFlow script is started. `multi_worker_mirrored_strategy` stands alone or with `mpi`. */
export type TensorFlowDistribution = Pick<AnyDistribution, 'mpi'> &
  Without<'torch_distributed' | 'pytorchddp' | 'pytorchxla'> &
  (
    | (Pick<AnyDistribution, 'smdistributed' | 'parameter_server'> &
        Without<'multi_worker_mirrored_strategy'>)
    | (Pick<AnyDistribution, 'multi_worker_mirrored_strategy'> &
        Without<'smdistributed' | 'parameter_server'>)
  );

/** How an MXNet script is started. */
export type MXNetDistribution = Pick<AnyDistribution, 'mpi' | 'parameter_server'> &
  Without<Exclude<StrategyName, 'mpi' | 'parameter_server'>>;

/** How a Hugging Face script is started: as PyTorch's. */
export type HuggingFaceDistribution = PyTorchDistribution;

/**
 * The hosts of a job with the distribution on them: all of one type, or groups of several types of which one may be
 * chosen in `distribution.instance_groups`.
 */
export type HostsAnd<Distribution> = UniformHosts<Distribution> | GroupedHosts<Distribution>;

interface UniformHosts<Distribution> {
  instanceGroups?: undefined;
  distribution?: Distribution & Without<'instance_groups'>;
}

interface GroupedHosts<Distribution> {
  instanceGroups: readonly InstanceGroup[];
  instanceCount?: undefined;
  instanceType?: undefined;
  distribution?: Distribution & Pick<AnyDistribution, 'instance_groups'>;
}
