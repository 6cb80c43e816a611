import type { Cluster } from '../cluster.ts';
import type { Fabric } from '../fabric.ts';
import type { EntryKind, JobParameters } from '../parameters.ts';

export type LauncherName =
  | 'container'
  | 'single'
  | 'torchrun'
  | 'mpirun'
  | 'smddp'
  | 'tensorflow-servers'
  | 'multi-worker'
  | 'mxnet-servers';

/** Everything a launcher decides from. */
export interface LaunchContext {
  host: string;
  instanceType: string;
  cluster: Cluster;
  parameters: JobParameters;
  entry: { kind: EntryKind; program: string };
  /** The script's own arguments. */
  arguments: string[];
  /** What the job says, else the host's accelerators, else 1; for every launcher. */
  processesPerHost: number;
  networkInterface: string;
  fabric: Pick<Fabric, 'kind' | 'hasRdma'>;
  /** Where ranks meet: a name under which every host can reach the first one. */
  master: { address: string; port: number };
  /** A name or address under which every host reaches `host`. */
  reach: (host: string) => string;
  /** The IP address of `host`, for what takes no names. */
  ipOf: (host: string) => string;
  /** The port of `host` that stands for AWS's `port`: the same one, but where hosts share one network. */
  portOf: (host: string, port: number) => number;
  /** False where hosts share one network: then ports must differ between jobs and are always given. */
  isolated: boolean;
  codeDirectory: string;
  /** Where each rank's output goes, one file per rank and stream. */
  rankLogDirectory: string;
  /** Between SIGTERM and SIGKILL of a stop; launchers must not cut it short. */
  stopGraceMs: number;
  /** Starts Python, forked from the preloaded server where there is one. */
  python: string;
  /** The interpreter itself, as AWS's toolkit would print it. */
  interpreter: string;
  /** ssh-compatible. */
  remoteShell: string;
  mpi: MpiInstallation | null;
  /** The runtime has Keras 2 (`tf-keras`) beside a TensorFlow whose own Keras is 3. */
  hasLegacyKeras: boolean;
  /** The job only compiles its graphs ahead, as RUN_NEURON_PARALLEL_COMPILE asks for. */
  compilesForNeuron: boolean;
  torchMajor: number | null;
  /** The job's own command instead of a script. */
  containerCommand: string[] | null;
  /** Variables of the script that exist before the launcher adds its own; what `-x` can name. */
  environmentNames: readonly string[];
}

export interface MpiInstallation {
  /** 4 for Open MPI 4.1, 5 for Open MPI 5. */
  major: number;
  /** Whether the runtime has the mpi4py package. */
  hasMpi4py: boolean;
}

/** A process beside the script that serves scripts of several hosts. */
export interface Companion {
  /** Also the name of its log files. */
  id: 'ps' | 'scheduler' | 'server';
  /** `parameter server on algo-2`. */
  title: string;
  argv: string[];
  /** On top of the script's environment with the launcher's. */
  env: Record<string, string>;
}

/** A port that a process of this host will listen on, known before it starts. */
export interface ListeningPort {
  port: number;
  /** What will listen: `torchrun's store`. */
  use: string;
}

/** What one host does for a job; a value that can be compared. */
export interface Launch {
  launcher: LauncherName;
  /** `wait`: the lead host's launcher starts this host's ranks; argv only waits for its end. */
  role: 'run' | 'wait';
  argv: string[];
  cwd: string;
  /** Added to the script's environment; {@link LAUNCHER_VARIABLES} says why. */
  env: Record<string, string>;
  /** The command line as AWS's toolkit prints it. */
  command: string;
  /** Hosts that have ranks, in rank order; empty when the launcher gives no ranks. */
  rankHosts: string[];
  /** Started before the script, ended when the scripts of all {@link peers} have ended; none by default. */
  companions?: Companion[];
  /** Hosts whose scripts depend on this host's companions. */
  peers?: string[];
  /** This host's script may serve for ever: it is ended when that host's script is done and this one idle. */
  follows?: string;
  /** Looked at before the start, so that a taken port is named instead of guessed from a library's words. */
  ports?: ListeningPort[];
}

/** One launcher. Pure: the same context gives the same launch, and nothing is started. */
export interface Launcher {
  readonly name: LauncherName;
  /** The runtime's Open MPI is looked for. */
  readonly needsMpi?: boolean;
  /** It is itself a program of the image's framework. */
  readonly needsFramework?: boolean;
  /** @throws HostFailure when the job cannot be launched this way, with what to change */
  plan(context: LaunchContext): Launch;
}

/** Why launchers set what they set; each name is a field of some `Launch.env`. */
export const LAUNCHER_VARIABLES: Readonly<Record<string, string>> = {
  FI_PROVIDER: 'EFA devices were found on this host: libfabric must use them.',
  FI_EFA_USE_DEVICE_RDMA:
    'EFA devices with RDMA were found on this host: they can write into memory of a GPU.',
  RDMAV_FORK_SAFE:
    'EFA devices with RDMA were found on this host: data loaders fork while memory is registered.',
  NCCL_PROTO: 'As AWS sets it for torchrun.',
  OMP_NUM_THREADS: 'What torchrun itself sets for several ranks of a host, without its banner.',
  TF_CONFIG: 'As AWS’s TensorFlow toolkit sets it: who is master, worker and parameter server, and where.',
  CUDA_VISIBLE_DEVICES: 'Accelerators are the script’s; a parameter server has none.',
  DMLC_ROLE:
    'As AWS’s MXNet toolkit sets it: this process works; scheduler and servers have roles of their own.',
  DMLC_NUM_WORKER: 'As AWS’s MXNet toolkit sets it: one worker on each host.',
  DMLC_NUM_SERVER: 'As AWS’s MXNet toolkit sets it: one server on each host.',
  DMLC_PS_ROOT_URI: 'As AWS’s MXNet toolkit sets it: address of the scheduler, on the first host.',
  DMLC_PS_ROOT_PORT: 'As AWS’s MXNet toolkit sets it: 8000, or the hyperparameter _ps_port.',
  PS_VERBOSE: 'As AWS’s MXNet toolkit sets it: 0, or the hyperparameter _ps_verbose.',
  TF_USE_LEGACY_KERAS:
    'Keras 3 cannot fit under MultiWorkerMirrored or parameter servers; this runtime has Keras 2 beside it.',
  PYTHON_EXEC: 'torchrun starts ranks with this interpreter, which forks them from the preloaded server.',
  TRAINYARD_PRELOAD: 'A single process takes the preloaded interpreter only when it is ready at once.',
  TRAINYARD_RANK_LOGS:
    'Each rank writes its output to files of its own here, so that lines keep their order and rank.',
  TORCH_ELASTIC_SHUTDOWN_TIMEOUT:
    'torchrun would kill ranks 30 s after a stop; they have the time that the job has.',
  OMPI_ALLOW_RUN_AS_ROOT: 'The script is root in its own host only; Open MPI may run as such.',
  OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: 'Open MPI asks twice.',
  OMPI_MCA_plm_rsh_agent: 'Open MPI 4.1 reaches the other hosts through their init instead of ssh.',
  PRTE_MCA_plm_ssh_agent: 'Open MPI 5 reaches the other hosts through their init instead of ssh.',
  PRTE_MCA_plm_ssh_no_tree_spawn: 'Hosts are reached from the first one only, as AWS does with Open MPI 4.1.',
  OMPI_MCA_odls_base_sigkill_timeout:
    'Open MPI 4.1 would kill ranks 1 s after a stop; they have the time that the job has.',
};

/** What makes either generation of Open MPI reach the other hosts and leave ranks the time of a stop. */
export function openMpiEnvironment(context: LaunchContext): Record<string, string> {
  const killAfter = String(Math.ceil(context.stopGraceMs / 1000));
  return {
    OMPI_ALLOW_RUN_AS_ROOT: '1',
    OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1',
    OMPI_MCA_plm_rsh_agent: context.remoteShell,
    PRTE_MCA_plm_ssh_agent: context.remoteShell,
    PRTE_MCA_plm_ssh_no_tree_spawn: '1',
    OMPI_MCA_odls_base_sigkill_timeout: killAfter,
  };
}

/** Keeps an option and its value on one line of a command. */
export const words = (...items: string[]): string[] => items;

/** The words that start the script as plain Python or as a command, without a launcher. */
export function scriptCommand(
  context: LaunchContext,
  python: string,
  pythonOptions: string[] = [],
): string[] {
  const { entry } = context;
  switch (entry.kind) {
    case 'program':
      return [python, ...pythonOptions, entry.program, ...context.arguments];
    case 'package':
      return [python, ...pythonOptions, '-m', entry.program.replace(/\.py$/, ''), ...context.arguments];
    case 'command':
      // sh runs a file without a first line `#!` too; "$@" keeps each argument whole.
      return ['/bin/sh', '-c', '"$0" "$@"', `./${entry.program}`, ...context.arguments];
  }
}

/** The same as AWS's toolkit shows it to the user. */
export function scriptCommandText(context: LaunchContext, pythonOptions: string[] = []): string {
  if (context.entry.kind !== 'command')
    return scriptCommand(context, context.interpreter, pythonOptions).join(' ');
  return `/bin/sh -c "${[`./${context.entry.program}`, ...context.arguments].join(' ')}"`;
}
