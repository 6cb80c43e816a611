import { execFile } from 'node:child_process';
import { lookup } from 'node:dns/promises';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { S3Client } from '@trainyard/api';
import { isS3Uri } from '@trainyard/api';
import type { AgentLog } from './agent-log.ts';
import { scriptArguments } from './arguments.ts';
import type { Bootstrap } from './bootstrap.ts';
import { hostPrograms } from './bootstrap.ts';
import { prepareChannel } from './channels.ts';
import type { Checkpoints } from './checkpoints.ts';
import { readCluster } from './cluster.ts';
import { findEntry, installables, prepareCode } from './code.ts';
import type { EnvironmentContext } from './environment.ts';
import { masterOf, scriptEnvironment } from './environment.ts';
import type { Hardware } from './hardware.ts';
import { missingAccelerator } from './hardware.ts';
import { HostFailure } from './host-failure.ts';
import type { InitClient } from './init-client.ts';
import { chooseLauncher, containerCommand, processesPerHost } from './launchers/choose.ts';
import type { Launch, LaunchContext, MpiInstallation } from './launchers/launcher.ts';
import { openMpiMajor } from './launchers/mpirun.ts';
import type { Layout } from './layout.ts';
import { writeLayout } from './layout.ts';
import type { LogFiles } from './log-files.ts';
import type { EntryKind } from './parameters.ts';
import { readParameters } from './parameters.ts';
import type { PlanSource } from './plan-source.ts';
import type { PackageLayer } from './requirements.ts';
import { installRequirements } from './requirements.ts';
import type { RuntimePackages } from './runtime-packages.ts';
import { readRuntimePackages, versionNotice } from './runtime-packages.ts';
import type { StateStore } from './state.ts';
import type { AttemptPlan } from './plan.ts';

export interface PrepareDeps {
  bootstrap: Bootstrap;
  plan: AttemptPlan;
  plans: PlanSource;
  layout: Layout;
  files: LogFiles;
  hardware: Hardware;
  s3: S3Client;
  init: InitClient;
  log: AgentLog;
  state: StateStore;
  checkpoints: Checkpoints | null;
  signal: AbortSignal;
}

export interface Prepared {
  launch: Launch;
  /** The script's full environment with the launcher's. */
  environment: Record<string, string>;
  processesPerHost: number;
  mpi: MpiInstallation | null;
}

/**
 * Everything before `start`: the tree, data, checkpoints, code, packages, and the launch itself as a value. What
 * does not need something else runs beside it. May be repeated; whole results stay.
 *
 * @throws HostFailure
 */
export async function prepare(given: PrepareDeps): Promise<Prepared> {
  const { layout, plan, init } = given;
  const failed = new AbortController();
  const deps = { ...given, signal: AbortSignal.any([given.signal, failed.signal]) };
  // pip runs below init and knows no abort.
  deps.signal.addEventListener('abort', () => void init.signal('*', 'KILL').catch(() => {}));
  const home = deps.bootstrap.isolated
    ? (process.env.HOME ?? '/root')
    : join(deps.bootstrap.stateDir, 'home');
  await Promise.all([
    writeLayout(plan, layout),
    mkdir(home, { recursive: true }),
    mkdir(deps.files.ranks, { recursive: true }),
  ]);
  const parameters = readParameters(plan);
  const cluster = readCluster(plan, parameters);
  const launcher = chooseLauncher(plan, parameters, cluster);
  const usesMpi = launcher.name === 'mpirun' || launcher.name === 'smddp';
  const channels = Promise.all(plan.channels.map((channel) => prepareChannel(channel, deps)));
  const packages = readRuntimePackages(plan.runtime.python);

  const environmentWith = async (layer: PackageLayer | null): Promise<EnvironmentContext> => ({
    plan: plan,
    layout,
    parameters,
    cluster,
    hardware: deps.hardware,
    torchVersion: (await packages).torchVersion,
    arguments: scriptArguments(parameters.user),
    master: masterOf(plan, cluster, deps.bootstrap),
    layer,
    credentials: plan.networkIsolated ? null : await deps.plans.scriptCredentials(),
    isolated: deps.bootstrap.isolated,
    egressEnvironment: plan.networkIsolated ? {} : deps.bootstrap.egressEnvironment,
    initSocket: deps.bootstrap.initSocket,
    home,
    systemPath: process.env.PATH ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  });

  const code = async (): Promise<{
    entry: { kind: EntryKind; program: string } | null;
    layer: PackageLayer | null;
  }> => {
    // Under network isolation the code itself comes through a channel.
    if (parameters.submitDirectory !== null && !isS3Uri(parameters.submitDirectory)) await channels;
    await prepareCode(parameters.submitDirectory, deps);
    if (launcher.name === 'container') return { entry: null, layer: null };
    if (parameters.program === null) throw noEntry();
    const entry = await findEntry(parameters.program, layout);
    return { entry, layer: await install(entry.kind, await environmentWith(null), await packages, deps) };
  };

  const [{ entry, layer }, mpi] = await allOrAbort(failed, [
    code(),
    usesMpi ? packages.then((found) => findMpi(plan, found)) : null,
    channels,
    deps.checkpoints?.restore(deps.signal),
    deps.bootstrap.isolated ? awaitNames(plan.hosts, deps.signal) : undefined,
    packages.then((found) => giveNotices(deps, found.torchVersion, cluster.groupHosts)),
  ]);

  const context = await environmentWith(layer);
  const environment = scriptEnvironment(context);
  const perHost = processesPerHost(parameters, deps.hardware, plan.instanceType);
  const programs = hostPrograms(deps.bootstrap);
  const launchContext: LaunchContext = {
    host: plan.host,
    instanceType: plan.instanceType,
    cluster,
    parameters,
    entry: entry ?? { kind: 'command', program: '' },
    arguments: context.arguments,
    processesPerHost: perHost,
    networkInterface: plan.networkInterfaceName,
    fabric: deps.hardware.fabric,
    master: context.master,
    isolated: deps.bootstrap.isolated,
    codeDirectory: layout.of('code'),
    rankLogDirectory: deps.files.ranks,
    stopGraceMs: plan.stopGraceMs,
    python: programs.python,
    interpreter: plan.runtime.python,
    remoteShell: programs.remoteShell,
    mpi,
    torchMajor: Number.parseInt(context.torchVersion ?? '', 10) || null,
    containerCommand: containerCommand(plan, parameters),
    environmentNames: Object.keys(environment),
  };
  const launch = launcher.plan(launchContext);
  return { launch, environment: { ...environment, ...launch.env }, processesPerHost: perHost, mpi };
}

const noEntry = (): HostFailure =>
  new HostFailure(
    'ClientError',
    'The job names no script: the hyperparameter sagemaker_program is missing and there is no ContainerEntrypoint.',
  );

/** The first failure ends the others, and is thrown when they have ended: nothing goes on behind a report. */
async function allOrAbort<T extends readonly unknown[]>(
  failed: AbortController,
  work: { [K in keyof T]: Promise<T[K]> | T[K] },
): Promise<T> {
  const promises = work.map((item) => Promise.resolve(item));
  try {
    return (await Promise.all(promises)) as unknown as T;
  } catch (error) {
    failed.abort();
    await Promise.allSettled(promises);
    throw error;
  }
}

async function install(
  kind: EntryKind,
  context: EnvironmentContext,
  packages: RuntimePackages,
  deps: PrepareDeps,
): Promise<PackageLayer | null> {
  const what = await installables(deps.layout, kind);
  if (!what.requirements && !what.package) return null;
  return installRequirements(what, {
    python: deps.plan.runtime.python,
    packages,
    codeDirectory: deps.layout.of('code'),
    layerDirectory: join(deps.bootstrap.stateDir, 'layer'),
    logDirectory: deps.files.directory,
    networkIsolated: deps.plan.networkIsolated,
    environment: scriptEnvironment(context),
    init: deps.init,
    log: deps.log,
  });
}

/** Null when the runtime has no mpirun. @throws HostFailure for an MPI that is not Open MPI */
async function findMpi(plan: AttemptPlan, packages: RuntimePackages): Promise<MpiInstallation | null> {
  const path = [...plan.runtime.binDirs, process.env.PATH ?? ''].join(':');
  const text = await new Promise<string | null>((resolve) => {
    execFile('mpirun', ['--version'], { env: { ...process.env, PATH: path } }, (error, stdout) =>
      resolve(error ? null : stdout),
    );
  });
  if (text === null) return null;
  const major = openMpiMajor(text);
  if (major === null) {
    throw new HostFailure(
      'ClientError',
      `mpirun of the runtime ${plan.runtime.name} says "${text.split('\n')[0]}"; jobs with mpi need Open MPI 4.1 or 5.`,
    );
  }
  return { major, hasMpi4py: packages.versions.has('mpi4py') };
}

const NAMES_TIMEOUT_MS = 15 * 60_000;
const NAMES_MAX_PAUSE_MS = 30_000;

/** Names of a cluster may come up late; AWS's toolkit waits as long. @throws HostFailure naming the host */
async function awaitNames(hosts: readonly string[], signal: AbortSignal): Promise<void> {
  const started = performance.now();
  await Promise.all(
    hosts.map(async (host) => {
      for (let pause = 100; ; pause = Math.min(NAMES_MAX_PAUSE_MS, pause * 2)) {
        const found = await lookup(host).catch(() => null);
        if (found) return;
        if (performance.now() - started > NAMES_TIMEOUT_MS) {
          throw new HostFailure(
            'InternalServerError',
            `The name of host ${host} does not resolve on this host.`,
          );
        }
        await sleep(pause, undefined, { signal });
      }
    }),
  );
}

/** Once per job and group: on a machine of one's own all hosts look alike. */
async function giveNotices(
  { plan, hardware, state }: PrepareDeps,
  torchVersion: string | null,
  groupHosts: readonly string[],
): Promise<void> {
  if (state.resumed) return;
  const accelerator = plan.host === groupHosts[0] ? missingAccelerator(plan.instanceType, hardware) : null;
  const version =
    plan.host === plan.hosts[0] && plan.frameworkModule !== null
      ? versionNotice(plan.image, torchVersion)
      : null;
  await Promise.all([
    accelerator && state.notice('missing_accelerator', accelerator),
    version && state.notice('framework_version', version),
  ]);
}
