import { statfs } from 'node:fs/promises';
import type { RankFailure } from '@trainyard/api';
import { FAILURE_REASON_MAX } from '@trainyard/api';
import type { AgentLog } from './agent-log.ts';
import { formatBytes } from './clock.ts';
import { listArtifacts } from './artifacts.ts';
import { findFailure, GLOO_EXIT_HINT } from './failure.ts';
import { HostFailure } from './host-failure.ts';
import type { InitClient } from './init-client.ts';
import { InitRefusal } from './init-client.ts';
import { saysRankFailed } from './launcher-report.ts';
import type { Layout } from './layout.ts';
import type { LogFiles } from './log-files.ts';
import type { LogShipper } from './log-shipper.ts';
import type { Peers } from './peers.ts';
import type { Prepared } from './plan-launch.ts';
import type { HostEnd } from './company.ts';
import { Company } from './company.ts';
import { requireFreePorts } from './ports.ts';
import { countOomKills } from './processes.ts';
import type { LaunchRecord, StateStore } from './state.ts';
import { endRanks, superviseStop } from './supervise.ts';
import { headText, rankErrors, tailText } from './tail-file.ts';
import type { AttemptPlan } from './plan.ts';

export interface RunDeps {
  plan: AttemptPlan;
  initSocket: string;
  peers: Pick<Peers, 'ended'>;
  layout: Layout;
  files: LogFiles;
  init: InitClient;
  log: AgentLog;
  state: StateStore;
  shipper: LogShipper;
  /** Resolves when a launcher line says that a rank failed. */
  rankFailed: Promise<void>;
}

export const MAIN = 'main';

export const launchRecord = ({ launch, processesPerHost, mpi }: Prepared): LaunchRecord => ({
  launcher: launch.launcher,
  role: launch.role,
  command: launch.command,
  processesPerHost,
  rankHosts: launch.rankHosts,
  mpiMajor: mpi?.major ?? null,
  companions: (launch.companions ?? []).map(({ id, title }) => ({ id, title })),
  peers: launch.peers ?? [],
  follows: launch.follows ?? null,
});

/** Starts the script; init keeps it whatever happens to this process. @throws HostFailure when it cannot be started */
export async function startScript({ launch, environment }: Prepared, deps: RunDeps): Promise<void> {
  const { files, init, state, log } = deps;
  await requireFreePorts(launch.ports ?? [], deps.plan.host);
  const oomKills = countOomKills();
  const { cwd } = launch;
  try {
    for (const { id, title, argv, env } of launch.companions ?? []) {
      const output = { stdout: files.process(id, 'out'), stderr: files.process(id, 'err') };
      await init.spawn({ id, argv, env: { ...environment, ...env }, cwd, ...output });
      log.say(`Started the ${title}`);
    }
    const output = { stdout: files.launcher('out'), stderr: files.launcher('err') };
    await init.spawn({ id: MAIN, argv: launch.argv, env: environment, cwd, ...output });
  } catch (error) {
    if (!(error instanceof InitRefusal)) throw error;
    throw new HostFailure(
      'ClientError',
      `The script could not be started: ${error.message}. Command "${launch.command}"`,
      error,
    );
  }
  log.say(
    launch.role === 'wait' ? `Waiting for mpirun on ${launch.rankHosts[0]}` : `Started ${launch.command}`,
  );
  await state.enter('training', (current) => {
    current.oomKillsBefore = oomKills;
  });
}

/** Waits for the script's end, ending it when that is due, and reports how it ended. May be called after a crash. */
export async function watchScript(deps: RunDeps): Promise<void> {
  const { plan, init, initSocket, state, shipper, files, log } = deps;
  const launch = state.current.launch!;
  const over = new AbortController();
  const supervised = superviseStop({
    state,
    init,
    launch,
    initSocket,
    maxRuntimeMs: plan.maxRuntimeMs,
    stopGraceMs: plan.stopGraceMs,
    say: (message) => log.say(message),
    signal: over.signal,
  });
  const firstFailure = Promise.race([deps.rankFailed, saidBefore(files)]).then(() => {
    // After a stop the launcher ends its ranks because we told it to.
    if (!state.current.stop) return endRanks({ init, initSocket, launch, signal: over.signal });
  });
  const company = new Company({ ...deps, host: plan.host, launch, signal: over.signal });
  const end = await Promise.race([company.end(), rejected(supervised), rejected(firstFailure)]);
  over.abort();
  await init.signal('*', 'KILL');
  shipper.endOutput();
  await reportEnd(end, launch, deps);
}

/** Resolves when an agent before this one has read that a rank failed. */
async function saidBefore(files: LogFiles): Promise<void> {
  if (!saysRankFailed(await tailText(files.launcher('err')))) await new Promise(() => {});
}

/** Passes on the failure of work that is meant to run beside another. */
const rejected = (work: Promise<void>): Promise<never> =>
  new Promise((_, reject) => {
    work.catch(reject);
  });

async function reportEnd(end: HostEnd, launch: LaunchRecord, deps: RunDeps): Promise<void> {
  const { plan, layout, files, state, log } = deps;
  const [launcherErrors, ranks, failureFile, artifacts] = await Promise.all([
    tailText(end.culprit ? files.process(end.culprit.id, 'err') : files.launcher('err')),
    rankErrors(files),
    headText(layout.of('failure'), FAILURE_REASON_MAX),
    listArtifacts(layout),
  ]);
  const oomNow = countOomKills();
  const { oomKillsBefore, stop } = state.current;
  const found = findFailure({
    host: plan.host,
    launch,
    end,
    culprit: end.culprit?.title ?? null,
    launcherErrors,
    ranks,
    codeDirectory: layout.of('code'),
    oomKills: oomNow === null || oomKillsBefore === null ? null : oomNow - oomKillsBefore,
  });
  const failure = found && (await withFullDisk(found, layout.root));
  const mpi = launch.role === 'wait' ? `mpirun on ${launch.rankHosts[0]} has ended` : null;
  log.say(mpi ?? describeEnd(end, failure, stop !== null));
  if (failure?.trace.includes(GLOO_EXIT_HINT)) await state.notice('gloo_exit_race', GLOO_EXIT_HINT);
  await state.report(
    {
      kind: 'exited',
      endedBy: stop?.endedBy ?? 'script',
      exitCode: end.exitCode,
      signal: end.signal,
      failure,
      failureFile,
      command: launch.command,
      ...artifacts,
    },
    (current) => {
      current.phase = 'exited';
      current.endedAt = end.endedAt;
      current.hasFailed = end.exitCode !== 0 && stop === null;
    },
  );
}

/** With less than this on its disk, a script that fails without a word failed for want of it. */
const SCARCE_BYTES = 32 * 2 ** 20;

/** On a full disk the error that a rank prints is not kept either, so that nothing would tell what happened. */
async function withFullDisk(failure: RankFailure, path: string): Promise<RankFailure> {
  if (failure.exception !== null) return failure;
  const { bavail, bsize } = await statfs(path);
  if (bavail * bsize >= SCARCE_BYTES) return failure;
  const exception = `No space left on the disk of this host (${formatBytes(bavail * bsize)} free); what the script printed last may be lost`;
  return { ...failure, exception };
}

function describeEnd(end: HostEnd, failure: RankFailure | null, isStopped: boolean): string {
  if (end.exitCode === 0) return 'The script ended (exit code 0)';
  const how = end.signal ?? `exit code ${end.exitCode}`;
  if (isStopped || !failure) return `The script ended (${how})`;
  if (end.culprit) return `The ${end.culprit.title} ended (${how})`;
  const who =
    failure.rank === null ? `The script on ${failure.host}` : `Rank ${failure.rank} on ${failure.host}`;
  const what = failure.exception ?? failure.trace.at(-1) ?? how;
  const where = failure.location ? ` at ${failure.location}` : '';
  const code = failure.signal ?? (failure.exitCode === null ? how : `exit code ${failure.exitCode}`);
  return `${who} failed${where}: ${what} (${code})`;
}
