import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import type { AgentBootstrap } from '@trainyard/api';
import type { GangPlan, HostLaunch, IsolationReport } from '../executor.ts';

export type Rung = IsolationReport['level'];

/** What of the executor's settings a rendering depends on. */
export interface RenderSettings {
  rung: Rung;
  platform: NodeJS.Platform;
  dataDir: string;
  gatewaySocket: string;
  tcpEndpoint: string;
  nodePath: string;
  agentPath: string;
  initDir: string;
  pythonPath: string;
  /** `host:port` entries that jobs may reach although the address is this machine's; see `init/egress.py`. */
  egressAllow: string[];
  /** Home of the service's user: jobs do not see it. */
  homeDir: string;
  /** The machine's own proxy variables, for hosts that share its network. */
  proxyEnvironment: Record<string, string>;
  /** Parent of the short run directories of jobs without namespaces; private to the user. */
  runParent: string;
}

/** Everything that starts one attempt, as a value; `submit` writes the files and runs the command. */
export interface GangRendering {
  jobName: string;
  attempt: number;
  rung: Rung;
  directory: string;
  /** Short directory for sockets without namespaces; null where `/run/trainyard` serves. */
  runRoot: string | null;
  command: string[];
  files: { path: string; mode: number; text: string }[];
  mounts: { host: string; source: string; target: string }[];
}

/** The job's own network: every job has the same one, each in a namespace of its own. */
const GATEWAY_ADDRESS = '10.77.0.1';
const GATEWAY_PORT = 9400;
const EGRESS_PORT = 9401;
const MOST_HOSTS = 244;
const ML_ROOT = '/opt/ml';
const INSIDE_RUN = '/run/trainyard';
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Pure. @throws RangeError when the network has no room for the hosts. */
export function renderGang(plan: GangPlan, settings: RenderSettings): GangRendering {
  if (plan.hosts.length > MOST_HOSTS) {
    throw new RangeError(
      `${plan.jobName} asks for ${plan.hosts.length} hosts; one machine runs at most ${MOST_HOSTS} of a job`,
    );
  }
  const { rung } = settings;
  const directory = join(settings.dataDir, 'jobs', plan.jobName, String(plan.attempt));
  const runRoot = rung === 'processes' ? join(settings.runParent, shortName(directory)) : null;
  const peersDir = join(runRoot ?? directory, 'peers');
  const addresses = Object.fromEntries(
    plan.hosts.map(({ host }, index) => [host, addressOf(index, rung, settings.platform)]),
  );
  const places = plan.hosts.map((host) => placesOf(host, directory, runRoot));
  const hosts = plan.hosts.map((host, index) => {
    const place = places[index] as HostPlaces;
    return {
      name: host.host,
      address: addresses[host.host],
      directory: place.directory,
      runDir: place.runDir,
      mlDir: place.mlDir,
      peersDir,
      inside: { runDir: place.insideRun },
      mounts: host.mounts.map((mount) => ({ ...mount, target: insideTarget(mount.target, place) })),
      agent: {
        // SIGUSR1 would open Node's inspector, and with it the agent's memory, to every script of the host.
        argv: [
          settings.nodePath,
          '--disable-sigusr1',
          settings.agentPath,
          runRoot === null ? '-' : bootstrapPath(place, runRoot),
        ],
        /** What init reads and gives to each agent; null where the agent reads the file itself. */
        stdin: runRoot === null ? bootstrapPath(place, runRoot) : null,
        env: { HOME: place.home, PATH: SYSTEM_PATH, LANG: 'C.UTF-8' },
      },
    };
  });
  const gang = {
    rung,
    directory,
    peersDir,
    forkDir: plan.forkServerSocket === null ? null : dirname(plan.forkServerSocket),
    gatewayAddress: GATEWAY_ADDRESS,
    gatewaySocket: settings.gatewaySocket,
    networkIsolated: plan.networkIsolated,
    egressAllow: settings.egressAllow,
    hiddenPaths: [settings.dataDir, settings.homeDir],
    visiblePaths: [...plan.visiblePaths, settings.nodePath, settings.agentPath],
    hosts,
  };
  const bootstraps = plan.hosts.map((host, index) => {
    const place = places[index] as HostPlaces;
    const bootstrap: AgentBootstrap = {
      endpointUrl: runRoot === null ? `http://${GATEWAY_ADDRESS}:${GATEWAY_PORT}` : settings.tcpEndpoint,
      token: host.token,
      jobName: plan.jobName,
      attempt: plan.attempt,
      host: host.host,
      initSocket: join(place.insideRun, 'init.sock'),
      stateDir: join(place.insideRun, 'state'),
      mlRoot: place.mlRoot,
      isolation: rung,
      hostAddresses: addresses,
      networkInterface: runRoot === null ? 'eth0' : settings.platform === 'darwin' ? 'lo0' : 'lo',
      egressEnvironment: plan.networkIsolated
        ? {}
        : runRoot === null
          ? egressEnvironment(Object.keys(addresses))
          : settings.proxyEnvironment,
    };
    return { path: bootstrapPath(place, runRoot), mode: 0o600, text: json(bootstrap) };
  });
  return {
    jobName: plan.jobName,
    attempt: plan.attempt,
    rung,
    directory,
    runRoot,
    command: [settings.pythonPath, '-I', '-S', '-E', join(settings.initDir, 'gang.py'), directory],
    files: [
      ...bootstraps,
      { path: join(directory, 'etc/hosts'), mode: 0o644, text: hostsFile(addresses) },
      // Nobody listens there, so a lookup fails at once instead of after a timeout.
      { path: join(directory, 'etc/resolv.conf'), mode: 0o644, text: 'nameserver 127.0.0.1\n' },
      { path: join(directory, 'gang.json'), mode: 0o600, text: json(gang) },
    ],
    mounts: plan.hosts.flatMap(({ host, mounts }) =>
      mounts.map(({ source, target }) => ({ host, source, target })),
    ),
  };
}

interface HostPlaces {
  directory: string;
  mlDir: string;
  runDir: string;
  insideRun: string;
  mlRoot: string;
  home: string;
}

function placesOf({ host }: HostLaunch, attemptDirectory: string, runRoot: string | null): HostPlaces {
  const directory = join(attemptDirectory, 'hosts', host);
  const mlDir = join(directory, 'ml');
  if (runRoot === null) {
    return {
      directory,
      mlDir,
      runDir: join(directory, 'run'),
      insideRun: INSIDE_RUN,
      mlRoot: ML_ROOT,
      home: '/root',
    };
  }
  const runDir = join(runRoot, host);
  return { directory, mlDir, runDir, insideRun: runDir, mlRoot: mlDir, home: join(directory, 'home') };
}

/** It holds the host's token: with namespaces it lies where the host does not see it. */
const bootstrapPath = (place: HostPlaces, runRoot: string | null): string =>
  join(runRoot === null ? place.directory : place.runDir, 'agent.json');

/** Without namespaces a path below `/opt/ml` means the same place below the host's private directory. */
function insideTarget(target: string, place: HostPlaces): string {
  if (target !== ML_ROOT && !target.startsWith(`${ML_ROOT}/`)) {
    throw new RangeError(`mount target ${target} is not below ${ML_ROOT}`);
  }
  return place.mlRoot + target.slice(ML_ROOT.length);
}

function addressOf(index: number, rung: Rung, platform: NodeJS.Platform): string {
  if (rung !== 'processes') return `10.77.0.${11 + index}`;
  // macOS answers on 127.0.0.1 only unless an administrator adds aliases.
  return platform === 'darwin' ? '127.0.0.1' : `127.0.1.${index + 1}`;
}

/** Both lines per host: without the mapped one, reverse lookups of IPv4-mapped addresses warn and wait. */
function hostsFile(addresses: Record<string, string>): string {
  const lines = Object.entries(addresses).flatMap(([name, address]) => [
    `${address} ${name}`,
    `::ffff:${address} ${name}`,
  ]);
  return `127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n${lines.join('\n')}\n`;
}

function egressEnvironment(hosts: string[]): Record<string, string> {
  const proxy = `http://${GATEWAY_ADDRESS}:${EGRESS_PORT}`;
  const direct = ['localhost', '127.0.0.1', '::1', GATEWAY_ADDRESS, '10.77.0.0/24', ...hosts].join(',');
  return Object.fromEntries(
    Object.entries({ http_proxy: proxy, https_proxy: proxy, no_proxy: direct }).flatMap(([name, value]) => [
      [name, value],
      [name.toUpperCase(), value],
    ]),
  );
}

function shortName(directory: string): string {
  return createHash('sha256').update(directory).digest('hex').slice(0, 12);
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 1)}\n`;
}
