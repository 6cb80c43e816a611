import { positiveInteger } from '../parameters.ts';
import type { Companion, LaunchContext, Launcher } from './launcher.ts';
import { single } from './single.ts';

const SCHEDULER_PORT = 8000;

/**
 * MXNet's parameter servers as AWS's toolkit starts them: a scheduler on the first host, a server on each, and the
 * script, which is the worker. Works with one host too.
 *
 * @param script starts the worker: the script itself, or mpirun where the job asks for both
 */
export const mxnetServers = (script: Launcher = single): Launcher => ({
  name: 'mxnet-servers',
  needsFramework: true,
  needsMpi: script.needsMpi ?? false,
  plan(context) {
    const hosts = context.cluster.distributionHosts;
    const lead = hosts[0]!;
    const { port, env } = rendezvous(context);
    const worker = script.plan({
      ...context,
      environmentNames: [...context.environmentNames, ...Object.keys(env)],
    });
    const isLead = context.host === lead;
    return {
      ...worker,
      launcher: script === single ? 'mxnet-servers' : worker.launcher,
      env: { ...worker.env, ...env, DMLC_ROLE: 'worker' },
      companions: [...(isLead ? [role(context, 'scheduler', env)] : []), role(context, 'server', env)],
      peers: hosts.filter((host) => host !== context.host),
      ports: isLead ? [{ port, use: "MXNet's scheduler (hyperparameter _ps_port)" }] : [],
    };
  },
});

function rendezvous(context: LaunchContext): { port: number; env: Record<string, string> } {
  const { user } = context.parameters;
  const hosts = context.cluster.distributionHosts;
  const lead = hosts[0]!;
  const port = positiveInteger(user._ps_port) ?? context.portOf(lead, SCHEDULER_PORT);
  return {
    port,
    env: {
      DMLC_NUM_WORKER: String(hosts.length),
      DMLC_NUM_SERVER: String(hosts.length),
      DMLC_PS_ROOT_URI: context.ipOf(lead),
      DMLC_PS_ROOT_PORT: String(port),
      PS_VERBOSE: String(user._ps_verbose ?? '0'),
    },
  };
}

/** Importing MXNet with a role runs it; it ends by itself when the workers are done. */
const role = (
  context: LaunchContext,
  id: 'scheduler' | 'server',
  env: Record<string, string>,
): Companion => ({
  id,
  title: `MXNet ${id} on ${context.host}`,
  argv: [context.python, '-c', 'import mxnet'],
  env: { ...env, DMLC_ROLE: id },
});
