import { join } from 'node:path';
import type { AccessCredentials } from '@trainyard/api';
import { scriptArguments } from './arguments.ts';
import type { Bootstrap } from './bootstrap.ts';
import { hostPrograms } from './bootstrap.ts';
import type { Cluster } from './cluster.ts';
import { readCluster } from './cluster.ts';
import type { EnvironmentContext } from './environment.ts';
import { masterOf, portOf, scriptEnvironment } from './environment.ts';
import type { Hardware } from './hardware.ts';
import { chooseLauncher, containerCommand, processesPerHost } from './launchers/choose.ts';
import type { Launch, Launcher, MpiInstallation } from './launchers/launcher.ts';
import type { Layout } from './layout.ts';
import type { EntryKind, JobParameters } from './parameters.ts';
import { readParameters } from './parameters.ts';
import type { AttemptPlan } from './plan.ts';
import type { PackageLayer } from './requirements.ts';

/** What is known of a job before anything was downloaded. */
export interface JobReading {
  parameters: JobParameters;
  cluster: Cluster;
  launcher: Launcher;
}

export function readJob(plan: AttemptPlan): JobReading {
  const parameters = readParameters(plan);
  const cluster = readCluster(plan, parameters);
  return { parameters, cluster, launcher: chooseLauncher(plan, parameters, cluster) };
}

/** Facts of the host and of what was prepared. */
export interface LaunchFacts {
  plan: AttemptPlan;
  bootstrap: Bootstrap;
  layout: Layout;
  hardware: Hardware;
  torchVersion: string | null;
  credentials: AccessCredentials | null;
  collectiveSecret: string | null;
  layer: PackageLayer | null;
  /** Null for a command of the job's own. */
  entry: { kind: EntryKind; program: string } | null;
  mpi: MpiInstallation | null;
  hasLegacyKeras: boolean;
  /** IP address of every host of the job, as far as names were looked up. */
  addresses: Readonly<Record<string, string>>;
  rankLogDirectory: string;
}

export interface Prepared {
  launch: Launch;
  /** The script's full environment with the launcher's. */
  environment: Record<string, string>;
  processesPerHost: number;
  mpi: MpiInstallation | null;
}

const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Private to the host: with namespaces `/root` is, without them the machine's would not be. */
export const homeDirectory = ({ isolated, stateDir }: Bootstrap): string =>
  isolated ? (process.env.HOME ?? '/root') : join(stateDir, 'home');

export function environmentContext(job: JobReading, facts: LaunchFacts): EnvironmentContext {
  const { plan, bootstrap, layout, hardware, torchVersion, credentials, layer } = facts;
  return {
    plan,
    layout,
    parameters: job.parameters,
    cluster: job.cluster,
    hardware,
    torchVersion,
    arguments: scriptArguments(job.parameters.user),
    master: masterOf(plan, job.cluster, bootstrap),
    layer,
    credentials: plan.networkIsolated ? null : credentials,
    collectiveSecret: facts.collectiveSecret,
    isolated: bootstrap.isolated,
    coresPerRank: coresPerRank(job, facts),
    egressEnvironment: plan.networkIsolated ? {} : bootstrap.egressEnvironment,
    initSocket: bootstrap.initSocket,
    home: homeDirectory(bootstrap),
    systemPath: process.env.PATH ?? SYSTEM_PATH,
  };
}

function coresPerRank(job: JobReading, { plan, bootstrap, hardware }: LaunchFacts): number | null {
  if (!bootstrap.sharesMachine || plan.hosts.length === 1) return null;
  const ranks =
    plan.hosts.length * processesPerHost(job.parameters, hardware, plan.instanceType, plan.environment);
  return Math.max(1, Math.floor(hardware.cpuCount / ranks));
}

/** What this host will start. @throws HostFailure when the job cannot be launched */
export function planLaunch(job: JobReading, facts: LaunchFacts): Prepared {
  const { plan, bootstrap, layout, hardware, mpi } = facts;
  const context = environmentContext(job, facts);
  const environment = scriptEnvironment(context);
  const perHost = processesPerHost(job.parameters, hardware, plan.instanceType, plan.environment);
  const programs = hostPrograms(bootstrap);
  const launch = job.launcher.plan({
    host: plan.host,
    instanceType: plan.instanceType,
    cluster: job.cluster,
    parameters: job.parameters,
    entry: facts.entry ?? { kind: 'command', program: '' },
    arguments: context.arguments,
    processesPerHost: perHost,
    networkInterface: plan.networkInterfaceName,
    fabric: hardware.fabric,
    master: context.master,
    reach: (host) => (bootstrap.isolated ? host : (bootstrap.hostAddresses[host] ?? '127.0.0.1')),
    ipOf: (host) => bootstrap.hostAddresses[host] ?? facts.addresses[host] ?? host,
    portOf: (host, port) => portOf(plan, bootstrap.isolated, host, port),
    isolated: bootstrap.isolated,
    codeDirectory: layout.of('code'),
    rankLogDirectory: facts.rankLogDirectory,
    stopGraceMs: plan.stopGraceMs,
    python: programs.python,
    interpreter: plan.runtime.python,
    remoteShell: programs.remoteShell,
    mpi,
    hasLegacyKeras: facts.hasLegacyKeras,
    compilesForNeuron: plan.environment.RUN_NEURON_PARALLEL_COMPILE === '1',
    torchMajor: Number.parseInt(facts.torchVersion ?? '', 10) || null,
    containerCommand: containerCommand(plan, job.parameters),
    environmentNames: Object.keys(environment),
  });
  return { launch, environment: { ...environment, ...launch.env }, processesPerHost: perHost, mpi };
}
