import type { AgentLog } from './agent-log.ts';
import type { ArtifactDeps } from './artifacts.ts';
import { uploadArtifacts } from './artifacts.ts';
import type { Checkpoints } from './checkpoints.ts';
import { AttemptOver } from './control-channel.ts';
import type { HostFailure } from './host-failure.ts';
import { asHostFailure } from './host-failure.ts';
import type { InitClient } from './init-client.ts';
import type { LogShipper } from './log-shipper.ts';
import type { JobHosts, Peers } from './peers.ts';
import { awaitedNotice } from './peers.ts';
import type { Prepared } from './plan-launch.ts';
import type { RunDeps } from './run-script.ts';
import { launchRecord, MAIN, startScript, watchScript } from './run-script.ts';
import type { AttemptState, StateStore } from './state.ts';

export interface AttemptDeps {
  state: StateStore;
  init: InitClient;
  log: AgentLog;
  shipper: LogShipper;
  checkpoints: Checkpoints | null;
  peers: Peers;
  hosts: JobHosts;
  run: RunDeps;
  artifacts: ArtifactDeps;
  prepare: (signal: AbortSignal) => Promise<Prepared>;
}

/**
 * One host's way through an attempt. Each stage begins from the state on disk, so an agent that attaches after a
 * crash enters at the stage where the last one stood.
 */
export async function runAttempt(deps: AttemptDeps): Promise<void> {
  const { state } = deps;
  try {
    if (isBefore(state.current, 'training')) await prepareAndStart(deps);
    if (state.current.phase === 'training') await train(deps);
    if (isBefore(state.current, 'uploaded')) await upload(deps);
  } catch (error) {
    if (error instanceof AttemptOver) throw error;
    await fail(asHostFailure(error), deps);
  }
  await state.until(({ finish }) => finish);
  await deps.shipper.drain();
}

const ORDER = [
  'registered',
  'downloading',
  'ready',
  'training',
  'exited',
  'uploading',
  'uploaded',
  'failed',
] as const;

const isBefore = ({ phase }: AttemptState, other: AttemptState['phase']): boolean =>
  ORDER.indexOf(phase) < ORDER.indexOf(other);

/** Ends in `training`, or in `exited` when the job was stopped before its script began. */
async function prepareAndStart(deps: AttemptDeps): Promise<void> {
  const { state, init } = deps;
  const running = (await init.list()).some(({ id }) => id === MAIN);
  // Started by an agent that died before it could write that down.
  if (running) return state.enter('training');
  // The reports go out beside the work.
  if (state.current.nextReportSeq === 0) void state.enter('registered');
  void state.enter('downloading');

  const stopped = new AbortController();
  const stop = state
    .until((current) => current.stop !== null || current.finish, stopped.signal)
    .then(
      () => stopped.abort(),
      () => {},
    );
  try {
    const prepared = await deps.prepare(stopped.signal);
    await init.environment(prepared.environment);
    await state.enter('ready', (current) => {
      current.launch = launchRecord(prepared);
    });
    await state.until(({ startCommanded }) => startCommanded, stopped.signal);
    stopped.abort();
    await stop;
    await startScript(prepared, deps.run);
  } catch (error) {
    if (state.current.stop === null && !state.current.finish) throw error;
    await endUnstarted(deps);
  } finally {
    stopped.abort();
  }
}

/** A stop came before the script: there is nothing to signal and nothing to upload. */
async function endUnstarted({ state, init, shipper }: AttemptDeps): Promise<void> {
  await init.signal('*', 'KILL');
  shipper.endOutput();
  await state.report(
    {
      kind: 'exited',
      endedBy: state.current.stop?.endedBy ?? 'stop',
      exitCode: null,
      signal: null,
      failure: null,
      failureFile: null,
      command: '',
      model: [],
      output: [],
    },
    (current) => {
      current.phase = 'exited';
    },
  );
}

async function train(deps: AttemptDeps): Promise<void> {
  const over = new AbortController();
  const syncing = deps.checkpoints?.run(over.signal);
  try {
    await watchScript(deps.run);
  } finally {
    over.abort();
    await syncing;
  }
}

/** Last checkpoints at once; artifacts when the service has decided who gives what. */
async function upload(deps: AttemptDeps): Promise<void> {
  const { state, shipper } = deps;
  const wasStarted = state.current.startedAtMs !== null;
  const checkpoints = wasStarted ? deps.checkpoints?.finish() : undefined;
  // A failure shows where it is awaited below; until then it must not count as unhandled.
  checkpoints?.catch(() => {});
  const waited = new AbortController();
  const waiting = wasStarted ? tellWhoIsAwaited(deps, waited.signal) : undefined;
  await state.until((current) => current.upload !== null || current.finish || current.stop !== null);
  waited.abort();
  await waiting;
  await state.until((current) => current.upload !== null || current.finish);
  if (state.current.upload) {
    if (state.current.phase !== 'uploading') await state.enter('uploading');
    await uploadArtifacts(state.current.upload, deps.artifacts);
  }
  await checkpoints;
  if (!state.current.upload) return;
  // Whoever sees the job end sees all of its lines.
  await shipper.drain();
  await state.enter('uploaded');
}

/** A script has ended on this host while others go on: the job's description says who waits for whom since when. */
async function tellWhoIsAwaited(deps: AttemptDeps, signal: AbortSignal): Promise<void> {
  const { state, peers, hosts, init } = deps;
  const { launch, endedAt, hasFailed, stop } = state.current;
  if (launch?.role !== 'run' || endedAt === null || hasFailed || stop) return;
  peers.reset();
  const notice = await awaitedNotice(peers, hosts, endedAt, signal);
  if (notice) {
    const told = (current: AttemptState): void => {
      current.endedAt = null;
    };
    await state.report({ kind: 'notice', code: 'awaits_hosts', message: notice }, told);
  }
  // The questions are processes of this host.
  if (peers.isAsking) await init.signal('*', 'KILL');
}

async function fail(failure: HostFailure, { state, init, log, shipper }: AttemptDeps): Promise<void> {
  log.say(`${failure.failureClass}: ${failure.message}`);
  if (failure.failureClass === 'InternalServerError') console.error(failure);
  await init.signal('*', 'KILL');
  shipper.endOutput();
  await state.report(
    { kind: 'failed', failureClass: failure.failureClass, message: failure.message },
    (current) => {
      current.phase = 'failed';
    },
  );
}
