import { fabricVariables } from '../fabric.ts';
import { HostFailure } from '../host-failure.ts';
import type { LaunchContext, Launcher, ListeningPort } from './launcher.ts';
import { words } from './launcher.ts';

/**
 * torchrun on every host with a static rendezvous, as AWS's toolkit starts it. It runs as `python -m
 * torch.distributed.run` so that it too can be forked from the preloaded server.
 */
export const torchrun: Launcher = {
  name: 'torchrun',
  needsFramework: true,
  plan(context) {
    const { cluster, entry } = context;
    if (entry.kind !== 'program') {
      throw new HostFailure(
        'ClientError',
        `torch_distributed starts Python scripts only, but the entry point is ${describeEntry(context)}. ` +
          'Name a .py file as entry point and leave setup.py out of the source folder.',
      );
    }
    const options = [
      ...words('--nnodes', String(cluster.distributionHosts.length)),
      ...words('--nproc_per_node', String(context.processesPerHost)),
      ...rendezvous(context),
    ];
    const compile = context.compilesForNeuron ? ['neuron_parallel_compile'] : [];
    const script = [entry.program, ...context.arguments];
    return {
      launcher: 'torchrun',
      role: 'run',
      argv: [...compile, context.python, '-m', 'torch.distributed.run', ...options, ...script],
      cwd: context.codeDirectory,
      env: environment(context),
      command: [...compile, 'torchrun', ...options, ...script].join(' '),
      rankHosts: cluster.distributionHosts,
      ports: storePort(context),
    };
  },
};

/** Only the first host listens, and only at a port that was given. */
function storePort(context: LaunchContext): ListeningPort[] {
  const isGiven = rendezvous(context).length > 0;
  const isFirst = context.host === context.cluster.distributionHosts[0];
  return isGiven && isFirst ? [{ port: context.master.port, use: "torchrun's store" }] : [];
}

function rendezvous({ cluster, master, host, isolated }: LaunchContext): string[] {
  // A single host needs no address; where jobs share a network, torchrun's fixed default port would clash.
  if (cluster.distributionHosts.length === 1 && isolated) return [];
  return [
    ...words('--master_addr', master.address),
    ...words('--master_port', String(master.port)),
    ...words('--node_rank', String(cluster.distributionHosts.indexOf(host))),
  ];
}

function environment(context: LaunchContext): Record<string, string> {
  return {
    ...fabricVariables(context.fabric),
    NCCL_PROTO: 'simple',
    ...(context.processesPerHost > 1 && !context.environmentNames.includes('OMP_NUM_THREADS')
      ? { OMP_NUM_THREADS: '1' }
      : {}),
    PYTHON_EXEC: context.python,
    TRAINYARD_RANK_LOGS: context.rankLogDirectory,
    TORCH_ELASTIC_SHUTDOWN_TIMEOUT: String(Math.ceil(context.stopGraceMs / 1000)),
  };
}

function describeEntry({ entry }: LaunchContext): string {
  return entry.kind === 'package'
    ? `a package (setup.py beside ${entry.program})`
    : `the command ${entry.program}`;
}
