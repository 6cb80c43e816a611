import { execFile } from 'node:child_process';
import { lookup } from 'node:dns/promises';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { S3Client } from '@trainyard/api';
import { isS3Uri } from '@trainyard/api';
import type { AgentLog } from './agent-log.ts';
import type { Bootstrap } from './bootstrap.ts';
import { prepareChannel } from './channels.ts';
import type { Checkpoints } from './checkpoints.ts';
import { findEntry, installables, prepareCode } from './code.ts';
import { serveDriverSsh } from './driver-ssh.ts';
import { scriptEnvironment } from './environment.ts';
import { fabricReport } from './fabric.ts';
import { hasLegacyKeras, requireFramework } from './frameworks.ts';
import type { Hardware } from './hardware.ts';
import { HostFailure } from './host-failure.ts';
import type { InitClient } from './init-client.ts';
import type { MpiInstallation } from './launchers/launcher.ts';
import { openMpiMajor } from './launchers/mpirun.ts';
import type { Layout } from './layout.ts';
import { writeLayout } from './layout.ts';
import type { LogFiles } from './log-files.ts';
import { giveNotices } from './notices.ts';
import type { AttemptPlan } from './plan.ts';
import type { JobReading, LaunchFacts, Prepared } from './plan-launch.ts';
import { environmentContext, homeDirectory, planLaunch, readJob } from './plan-launch.ts';
import type { PlanSource } from './plan-source.ts';
import { installRequirements, writableLayer } from './requirements.ts';
import type { RuntimePackages } from './runtime-packages.ts';
import { readRuntimePackages } from './runtime-packages.ts';
import type { StateStore } from './state.ts';

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

/**
 * Everything before `start`: the tree, data, checkpoints, code, packages, and the launch itself as a value. What
 * does not need something else runs beside it. May be repeated; whole results stay.
 *
 * @throws HostFailure
 */
export async function prepare(given: PrepareDeps): Promise<Prepared> {
  const failed = new AbortController();
  const deps = { ...given, signal: AbortSignal.any([given.signal, failed.signal]) };
  const { plan, plans, bootstrap, layout, hardware, files, signal } = deps;
  const folders = [homeDirectory(bootstrap), files.ranks];
  await Promise.all([writeLayout(plan, layout), ...folders.map((path) => mkdir(path, { recursive: true }))]);

  const job = readJob(plan);
  const channels = Promise.all(plan.channels.map((channel) => prepareChannel(channel, deps)));
  const packages = readRuntimePackages(plan.runtime.python);
  const facts = Promise.all([packages, plans.scriptCredentials(), plans.jobSecret('collective')]).then(
    ([{ torchVersion }, credentials, collectiveSecret]): LaunchFacts => ({
      plan,
      bootstrap,
      layout,
      hardware,
      torchVersion,
      credentials,
      collectiveSecret,
      layer: null,
      entry: null,
      mpi: null,
      hasLegacyKeras: false,
      addresses: {},
      rankLogDirectory: files.ranks,
    }),
  );
  const [known, { entry, layer }, mpi, addresses, found] = await allOrAbort(failed, [
    facts,
    prepareScript(job, { channels, packages, facts }, deps),
    job.launcher.needsMpi ? packages.then((found) => findMpi(plan, found)) : null,
    bootstrap.isolated ? awaitNames(plan.hosts, signal) : {},
    packages,
    channels,
    deps.checkpoints?.restore(signal),
  ]);
  const versions = new Map([...found.versions, ...(layer?.versions ?? [])]);
  // A command of the job's own may need nothing of what the image promises.
  if (plan.hosts.length > 1) deps.log.say(fabricReport(hardware.fabric, plan.networkInterfaceName));
  const missing =
    job.launcher.name === 'container'
      ? null
      : await requireFramework(plan, versions, job.launcher, (module) => canImport(plan, module));
  const legacy = hasLegacyKeras(plan.frameworkModule, versions);
  const prepared = planLaunch(job, { ...known, entry, layer, mpi, addresses, hasLegacyKeras: legacy });
  await giveNotices(deps, job, prepared, { ...found, missing });
  return prepared;
}

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

interface Pending {
  channels: Promise<unknown>;
  packages: Promise<RuntimePackages>;
  facts: Promise<LaunchFacts>;
}

/** Code, entry point, and packages on top of the runtime's. */
async function prepareScript(
  { parameters, ...job }: JobReading,
  pending: Pending,
  deps: PrepareDeps,
): Promise<Pick<LaunchFacts, 'entry' | 'layer'>> {
  const { submitDirectory, program } = parameters;
  // Under network isolation the code itself comes through a channel.
  if (submitDirectory !== null && !isS3Uri(submitDirectory)) await pending.channels;
  await prepareCode(submitDirectory, deps);
  const layerDirectory = join(deps.bootstrap.stateDir, 'layer');
  if (job.launcher.name === 'container') {
    const [packages] = await Promise.all([pending.packages, pending.channels]);
    await serveDriverSsh(deps.layout, deps.plan.channels);
    const { python } = deps.plan.runtime;
    return { entry: null, layer: await writableLayer({ python, packages, layerDirectory }) };
  }
  if (program === null) {
    throw new HostFailure(
      'ClientError',
      'The job names no script: the hyperparameter sagemaker_program is missing and there is no ContainerEntrypoint.',
    );
  }
  const entry = await findEntry(program, deps.layout);
  const what = await installables(deps.layout, entry.kind);
  if (!what.requirements && !what.package) return { entry, layer: null };
  const layer = await installRequirements(what, {
    python: deps.plan.runtime.python,
    packages: await pending.packages,
    codeDirectory: deps.layout.of('code'),
    layerDirectory,
    logDirectory: deps.files.directory,
    networkIsolated: deps.plan.networkIsolated,
    environment: scriptEnvironment(environmentContext({ parameters, ...job }, await pending.facts)),
    init: deps.init,
    log: deps.log,
    signal: deps.signal,
  });
  return { entry, layer };
}

/** Null when the runtime has no mpirun. @throws HostFailure for an MPI that is not Open MPI */
async function findMpi(plan: AttemptPlan, packages: RuntimePackages): Promise<MpiInstallation | null> {
  // Settings in the job's home could name a plugin, and this is a process of the agent, closed to the job's code.
  const env = { PATH: [...plan.runtime.binDirs, process.env.PATH ?? ''].join(':'), HOME: '/dev/null' };
  const text = await new Promise<string | null>((resolve) => {
    execFile('mpirun', ['--version'], { env }, (error, stdout) => resolve(error ? null : stdout));
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

/** Of the runtime's own packages, whatever lies in the job's folders. */
function canImport({ runtime }: AttemptPlan, module: string): Promise<boolean> {
  const program = `import importlib.util, sys; sys.exit(importlib.util.find_spec(${JSON.stringify(module)}) is None)`;
  return new Promise((resolve) => {
    execFile(runtime.python, ['-I', '-c', program], { cwd: '/', env: {} }, (error) => resolve(!error));
  });
}

const NAMES_TIMEOUT_MS = 15 * 60_000;
const NAMES_MAX_PAUSE_MS = 30_000;

/**
 * Names of a cluster may come up late; AWS's toolkit waits as long.
 *
 * @returns the address of each host
 * @throws HostFailure naming the host
 */
async function awaitNames(hosts: readonly string[], signal: AbortSignal): Promise<Record<string, string>> {
  const started = performance.now();
  const found = await Promise.all(
    hosts.map(async (host) => {
      for (let pause = 100; ; pause = Math.min(NAMES_MAX_PAUSE_MS, pause * 2)) {
        const found = await lookup(host).catch(() => null);
        if (found) return [host, found.address] as const;
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
  return Object.fromEntries(found);
}
