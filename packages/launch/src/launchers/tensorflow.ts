import type { Companion, LaunchContext, Launcher } from './launcher.ts';
import { single } from './single.ts';

const MASTER_PORT = 2222;
const SERVER_PORT = 2223;
const WORKER_PORT = 8890;

/**
 * TensorFlow's parameter servers as AWS's toolkit starts them: one beside each script; the first host's script is the
 * master, the others' are workers.
 */
export const tensorflowServers: Launcher = {
  name: 'tensorflow-servers',
  needsFramework: true,
  plan(context) {
    const hosts = context.cluster.distributionHosts;
    const lead = hosts[0]!;
    // A single host needs no server: AWS's toolkit then starts the script alone.
    if (hosts.length < 2) return { ...single.plan(context), launcher: 'tensorflow-servers' };
    const at = (host: string, port: number): string => `${context.reach(host)}:${context.portOf(host, port)}`;
    const cluster = {
      master: [at(lead, MASTER_PORT)],
      ps: hosts.map((host) => at(host, SERVER_PORT)),
      worker: hosts.slice(1).map((host) => at(host, MASTER_PORT)),
    };
    const index = hosts.indexOf(context.host);
    const task = index === 0 ? { index: 0, type: 'master' } : { index: index - 1, type: 'worker' };
    const script = single.plan(context);
    return {
      ...script,
      launcher: 'tensorflow-servers',
      env: { ...script.env, ...legacyKeras(context), TF_CONFIG: configOf(cluster, task) },
      companions: [server(context, configOf(cluster, { index, type: 'ps' }))],
      peers: hosts.filter((host) => host !== context.host),
      ...(index === 0 ? {} : { follows: lead }),
      ports: [
        { port: context.portOf(context.host, MASTER_PORT), use: `TensorFlow's ${task.type}` },
        { port: context.portOf(context.host, SERVER_PORT), use: 'the parameter server' },
      ],
    };
  },
};

/** MultiWorkerMirroredStrategy: the script alone on every host; no chief, as in AWS's toolkit. */
export const multiWorker: Launcher = {
  name: 'multi-worker',
  needsFramework: true,
  plan(context) {
    const hosts = context.cluster.distributionHosts;
    const port = (host: string): number => context.portOf(host, WORKER_PORT);
    const worker = hosts.map((host) => `${context.reach(host)}:${port(host)}`);
    const task = { index: hosts.indexOf(context.host), type: 'worker' };
    const script = single.plan(context);
    return {
      ...script,
      launcher: 'multi-worker',
      env: { ...script.env, ...legacyKeras(context), TF_CONFIG: configOf({ worker }, task) },
      ports: [{ port: port(context.host), use: "TensorFlow's worker" }],
    };
  },
};

/** Member order as AWS's toolkit writes it, for scripts that compare text. */
const configOf = (cluster: Record<string, string[]>, task: { index: number; type: string }): string =>
  JSON.stringify({ cluster, environment: 'cloud', task });

const legacyKeras = ({ hasLegacyKeras, environmentNames }: LaunchContext): Record<string, string> =>
  hasLegacyKeras && !environmentNames.includes('TF_USE_LEGACY_KERAS') ? { TF_USE_LEGACY_KERAS: '1' } : {};

/** Accelerators are the script's: the server is told of none. It never ends by itself. */
const SERVER_PROGRAM = `
import json, os
import tensorflow as tf
config = json.loads(os.environ["TF_CONFIG"])
settings = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
tf.distribute.Server(
    config["cluster"], job_name="ps", task_index=config["task"]["index"], config=settings
).join()
`;

const server = (context: LaunchContext, config: string): Companion => ({
  id: 'ps',
  title: `parameter server on ${context.host}`,
  argv: [context.python, '-c', SERVER_PROGRAM],
  env: { TF_CONFIG: config, CUDA_VISIBLE_DEVICES: '' },
});
