import type { RuntimePlan } from '@trainyard/api';
import type { Executor, GangPlan, HostLaunch, HostObservation } from '../executors/executor.ts';
import { cut, failureReason, isFailure } from '../jobs/failure-reason.ts';
import { hostMounts, hostPlans, STOP_GRACE_MS } from '../jobs/host-plan.ts';
import type { Outcome, Stage } from '../jobs/lifecycle.ts';
import { OUTCOME_TRANSITION } from '../jobs/lifecycle.ts';
import { mergePlan } from '../jobs/merge.ts';
import type { Host, HostStore } from '../store/host-store.ts';
import type { Job, JobChange, JobStore, EndReason } from '../store/job-store.ts';
import type { KeyStore } from '../store/key-store.ts';
import type { Database } from '../store/database.ts';

/** After another host failed: time for a last word before SIGKILL. The failed host itself may take 2 s; all ranks are gone within 5 s. */
const PEER_FAILED_GRACE_MS = 2_000;
/** Hosts of one job never end at the same instant; only a host that is waited for is worth a word. */
const ENDED_EARLIER_MS = 5_000;
/** How long hosts may take to answer a stop beyond its grace before they count as lost. */
const STOP_SLACK_MS = 30_000;
/** Hosts that started but whose agents never register count as lost. */
const REGISTER_DEADLINE_MS = 120_000;
/** Credentials outlive the longest legal run of an attempt by a day: uploads come after the ranks. */
const KEY_SLACK_MS = 24 * 3600 * 1000;
const INTERNAL_ERROR = 'InternalServerError: We encountered an internal error. Please try again.';

export interface StepContext {
  db: Database;
  jobs: JobStore;
  hosts: HostStore;
  keys: KeyStore;
  executor: Executor;
  region: string;
  accountId: string;
  networkInterfaceName: string;
  now: () => number;
  /** Host tokens must be the same when a step is repeated. */
  hostToken: (job: string, attempt: number, host: string) => string;
  /** @throws Error naming the runtime that is gone and the command that makes it again. */
  runtimePlan: (runtime: string) => RuntimePlan;
  forkServerSocket: (runtime: string) => Promise<string | null>;
  visiblePaths: (runtime: RuntimePlan) => string[];
  fileSystemPath: (id: string) => string | null;
  /** Removes what the service kept for the attempt: parts, the hosts' directories. */
  removeAttempt: (job: Job) => Promise<void>;
  /** A change that watchers want to see. */
  changed: (job: string) => void;
  /** A command was given to a host. */
  commanded: (job: string, attempt: number, host: string) => void;
  placed: boolean;
  waitReason: string | null;
}

type Step = (job: Job, context: StepContext) => Promise<boolean>;

/** One step per stage. */
const STEPS: Record<Exclude<Stage, 'done'>, Step> = {
  queued: async (job, context) => queued(job, context),
  launching,
  preparing,
  training,
  ending,
  uploading,
  closing,
};

/** @returns whether anything changed */
export async function step(job: Job, context: StepContext): Promise<boolean> {
  if (job.stage === 'done') return false;
  return STEPS[job.stage](job, context);
}

function apply(job: Job, context: StepContext, change: JobChange): boolean {
  const applied = context.jobs.apply(job, change);
  if (applied) context.changed(job.name);
  return applied !== null;
}

function queued(job: Job, context: StepContext): boolean {
  const { spec } = job;
  const waited = context.now() - job.createdAt;
  if (job.endReason === 'user')
    return apply(job, context, finished(job, context, { kind: 'stopped' }, 'done'));
  if (spec.maxWaitMs !== null && waited > spec.maxWaitMs && !context.placed) {
    return apply(job, context, finished(job, context, { kind: 'max_wait' }, 'done'));
  }
  if (spec.maxPendingMs !== null && job.attempt === 1 && waited > spec.maxPendingMs && !context.placed) {
    return apply(job, context, finished(job, context, { kind: 'stopped' }, 'done'));
  }
  if (!context.placed) {
    if (context.waitReason === null || context.waitReason === job.waitReason) return false;
    return apply(job, context, {
      waitReason: context.waitReason,
      ...(job.secondaryStatus === 'Pending'
        ? {}
        : { transition: 'pending', transitionMessage: context.waitReason }),
    });
  }
  let runtime: RuntimePlan;
  try {
    runtime = context.runtimePlan(spec.runtime);
  } catch (error) {
    const reason = cut(`ClientError: The hosts were not started: ${(error as Error).message}`);
    return apply(job, context, finished(job, context, { kind: 'failed', reason, retryable: false }, 'done'));
  }
  return context.db.transaction(() => {
    const now = context.now();
    const applied = context.jobs.apply(job, {
      at: now,
      stage: 'launching',
      transition: 'launching',
      waitReason: null,
      attemptStartAt: now,
      trainingStartAt: job.trainingStartAt ?? now,
    });
    if (!applied) return false;
    const remaining = Math.max(1000, spec.maxRuntimeMs - job.usedMs);
    const key = (): ReturnType<KeyStore['mint']> =>
      context.keys.mint(job.name, job.attempt, now + remaining + STOP_GRACE_MS + KEY_SLACK_MS);
    const plans = hostPlans(spec, {
      arn: job.arn,
      attempt: job.attempt,
      region: context.region,
      accountId: context.accountId,
      networkInterfaceName: context.networkInterfaceName,
      runtime,
      agentCredentials: key(),
      scriptCredentials: spec.networkIsolated ? null : key(),
      maxRuntimeMs: remaining,
      request: job.request as unknown as Record<string, unknown>,
    });
    context.hosts.insert(
      job.name,
      job.attempt,
      plans.map((plan) => ({ plan, token: context.hostToken(job.name, job.attempt, plan.host) })),
    );
    context.changed(job.name);
    return true;
  });
}

/** What the executor is asked for; a function of what is stored, so that it can be made again after a crash. */
export async function gangPlan(job: Job, context: StepContext): Promise<GangPlan> {
  const runtime = context.runtimePlan(job.spec.runtime);
  const mounts = hostMounts(job.spec, context.fileSystemPath);
  return {
    jobName: job.name,
    attempt: job.attempt,
    hosts: context.hosts.ofAttempt(job.name, job.attempt).map(
      (host): HostLaunch => ({
        host: host.host,
        token: context.hostToken(job.name, job.attempt, host.host),
        mounts,
      }),
    ),
    networkIsolated: job.spec.networkIsolated,
    forkServerSocket: await context.forkServerSocket(job.spec.runtime),
    visiblePaths: context.visiblePaths(runtime),
  };
}

async function launching(job: Job, context: StepContext): Promise<boolean> {
  try {
    const handle = await context.executor.submit(context.executor.render(await gangPlan(job, context)));
    return apply(job, context, { stage: 'preparing', handle });
  } catch (error) {
    const message = (error as Error).message;
    context.hosts.notice(job.name, job.attempt, null, 'LaunchFailed', message);
    return apply(job, context, {
      stage: 'closing',
      outcome: {
        kind: 'failed',
        reason: cut(`InternalServerError: The hosts could not be started: ${message}`),
        retryable: true,
      },
    });
  }
}

/** Asks the executor which hosts are gone and notes it; a host that came to its end by itself is not lost. */
async function observe(job: Job, context: StepContext): Promise<Host[]> {
  const observations: HostObservation[] = job.handle ? await context.executor.observe(job.handle) : [];
  const hosts = context.hosts.ofAttempt(job.name, job.attempt);
  for (const host of hosts) {
    const seen = observations.find((observation) => observation.host === host.host);
    if (host.gone !== null || seen?.state === 'running') continue;
    context.hosts.gone(job.name, job.attempt, host.host, seen?.detail ?? 'its processes are gone');
  }
  return context.hosts.ofAttempt(job.name, job.attempt);
}

async function preparing(job: Job, context: StepContext): Promise<boolean> {
  const hosts = await observe(job, context);
  const trouble = await endIfTrouble(job, hosts, context);
  if (trouble !== null) return trouble;
  if (context.now() - job.stageSince > REGISTER_DEADLINE_MS) {
    const silent = hosts.filter((host) => host.registeredAt === null);
    for (const host of silent) {
      context.hosts.gone(
        job.name,
        job.attempt,
        host.host,
        `its agent did not register within ${REGISTER_DEADLINE_MS / 1000} s`,
      );
    }
    if (silent.length > 0) return true;
  }
  // First, also when a fast host's two reports came together: every job shows the same course.
  const downloading = hosts.some((host) => host.phase === 'downloading' || host.phase === 'ready');
  if (downloading && job.secondaryStatus === 'Starting')
    return apply(job, context, { transition: 'downloading' });
  if (hosts.every((host) => host.phase === 'ready')) {
    return context.db.transaction(() => {
      if (!apply(job, context, { stage: 'training', transition: 'training' })) return false;
      for (const host of hosts) command(job, host, context, { kind: 'start' });
      return true;
    });
  }
  return false;
}

async function training(job: Job, context: StepContext): Promise<boolean> {
  const hosts = await observe(job, context);
  const trouble = await endIfTrouble(job, hosts, context);
  if (trouble !== null) return trouble;
  if (hosts.every((host) => host.exited !== null))
    return apply(job, context, { stage: 'ending', endReason: 'script_ended' });
  const ended = hosts.filter(
    (host) => host.exited !== null && context.now() - host.exited.at > ENDED_EARLIER_MS,
  );
  if (ended.length > 0) {
    const others = hosts.filter((host) => host.exited === null).map((host) => host.host);
    for (const host of ended) {
      context.hosts.notice(
        job.name,
        job.attempt,
        host.host,
        'HostEndedEarlier',
        `${host.host} ended with exit code 0 at ${new Date(host.exited!.at).toISOString()}; the job goes on with ${others.join(', ')}.`,
      );
    }
  }
  return false;
}

/** Moves to `ending` when a stop was asked for or a host cannot go on; null when all is well. */
async function endIfTrouble(job: Job, hosts: Host[], context: StepContext): Promise<boolean | null> {
  const lost = hosts.find((host) => host.gone !== null && host.exited === null && host.failed === null);
  const overtime = hosts.some((host) => host.exited?.endedBy === 'max_runtime');
  let reason: EndReason | null = null;
  if (job.endReason === 'user') reason = 'user';
  else if (overtime) reason = 'max_runtime';
  else if (hosts.some((host) => host.failed !== null)) reason = 'prepare_failed';
  else if (hosts.some(isFailure)) reason = 'peer_failed';
  else if (lost) reason = 'host_lost';
  if (reason === null) return null;
  const isStop = reason === 'user' || reason === 'max_runtime';
  const stopReason = reason === 'prepare_failed' ? 'peer_failed' : reason;
  return context.db.transaction(() => {
    const changed = apply(job, context, {
      stage: 'ending',
      endReason: reason,
      ...(isStop && job.status !== 'Stopping' ? { transition: 'stopping' as const } : {}),
    });
    if (!changed) return false;
    for (const host of hosts) {
      if (host.exited !== null || host.failed !== null || host.gone !== null) continue;
      command(job, host, context, {
        kind: 'stop',
        reason: stopReason as 'user' | 'max_runtime' | 'peer_failed' | 'host_lost',
        graceMs: isStop ? STOP_GRACE_MS : PEER_FAILED_GRACE_MS,
      });
    }
    return true;
  });
}

async function ending(job: Job, context: StepContext): Promise<boolean> {
  const hosts = await observe(job, context);
  const isStop = job.endReason === 'user' || job.endReason === 'max_runtime';
  const patience = (isStop ? STOP_GRACE_MS : PEER_FAILED_GRACE_MS) + STOP_SLACK_MS;
  const open = hosts.filter((host) => host.exited === null && host.failed === null && host.gone === null);
  if (open.length > 0) {
    // The user's stop may come while another ending is under way; it changes nothing any more.
    if (context.now() - job.stageSince < patience) return false;
    for (const host of open) {
      context.hosts.gone(job.name, job.attempt, host.host, `it did not stop within ${patience / 1000} s`);
    }
    return true;
  }
  const outcome = decide(job, hosts);
  const alive = hosts.filter((host) => host.exited !== null && host.gone === null);
  const ran = hosts.some((host) => host.exited !== null && host.exited.command !== '');
  if (alive.length === 0 || !ran) return apply(job, context, finished(job, context, outcome, 'closing'));
  const plan = mergePlan(
    alive.map((host) => ({ host: host.host, model: host.exited!.model, output: host.exited!.output })),
    job.spec.outputCompression,
  );
  return context.db.transaction(() => {
    const changed = apply(job, context, {
      stage: 'uploading',
      outcome,
      transition: job.status === 'Stopping' ? 'stoppingUpload' : 'uploading',
    });
    if (!changed) return false;
    for (const host of alive) command(job, host, context, { kind: 'upload', ...plan.get(host.host)! });
    return true;
  });
}

/** What the attempt came to, from everything the hosts told. */
export function decide(job: Job, hosts: readonly Host[]): Outcome {
  switch (job.endReason) {
    case 'user':
      return { kind: 'stopped' };
    case 'max_runtime':
      return { kind: 'max_runtime' };
    case 'prepare_failed': {
      const failed = hosts
        .filter((host) => host.failed !== null)
        .sort((a, b) => a.failed!.at - b.failed!.at)[0]!;
      const { failureClass, message } = failed.failed!;
      return {
        kind: 'failed',
        reason: cut(`${failureClass}: ${message}`),
        retryable: failureClass === 'InternalServerError',
      };
    }
    case 'host_lost': {
      const lost = hosts.find((host) => host.gone !== null && host.exited === null);
      // A script failure that was seen before the host went away is the better reason.
      if (
        hosts.some(
          (host) =>
            isFailure(host) &&
            host.exited!.endedBy === 'script' &&
            host.exited!.failure?.isConsequence === false,
        )
      ) {
        return { kind: 'failed', reason: failureReason(hosts), retryable: false };
      }
      return {
        kind: 'failed',
        reason: cut(`${INTERNAL_ERROR} Host ${lost?.host ?? ''} was lost: ${lost?.gone ?? ''}.`),
        retryable: true,
      };
    }
    default:
      return hosts.some(isFailure)
        ? { kind: 'failed', reason: failureReason(hosts), retryable: false }
        : { kind: 'completed' };
  }
}

async function uploading(job: Job, context: StepContext): Promise<boolean> {
  const hosts = await observe(job, context);
  const outcome = job.outcome!;
  const failed = hosts.find((host) => host.exited !== null && host.failed !== null);
  const lost = hosts.find((host) => host.gone !== null && host.exited !== null && host.phase !== 'uploaded');
  if (failed || lost) {
    const reason = failed
      ? cut(`${failed.failed!.failureClass}: Artifact upload failed: ${failed.failed!.message}`)
      : cut(`${INTERNAL_ERROR} Host ${lost!.host} was lost while it uploaded artifacts: ${lost!.gone}.`);
    // The script's own failure stays the reason; what became of the artifacts is said beside it.
    if (outcome.kind === 'failed') {
      context.hosts.notice(job.name, job.attempt, (failed ?? lost)!.host, 'UploadFailed', reason);
      return apply(job, context, finished(job, context, outcome, 'closing'));
    }
    return apply(
      job,
      context,
      finished(job, context, { kind: 'failed', reason, retryable: !failed }, 'closing'),
    );
  }
  if (!hosts.every((host) => host.exited === null || host.phase === 'uploaded')) return false;
  return apply(job, context, finished(job, context, outcome, 'closing'));
}

/** Records how it ended: reason first, hosts are released after that. Another attempt shows no end. */
function finished(job: Job, context: StepContext, outcome: Outcome, stage: 'closing' | 'done'): JobChange {
  const now = context.now();
  if (stage === 'closing' && willRetry(job, outcome)) return { stage, outcome };
  return {
    at: now,
    stage,
    outcome,
    transition: OUTCOME_TRANSITION[outcome.kind],
    waitReason: null,
    failureReason: outcome.kind === 'failed' ? outcome.reason : null,
    trainingEndAt: job.trainingStartAt === null ? null : now,
    usedMs: job.usedMs + (job.attemptStartAt === null ? 0 : now - job.attemptStartAt),
    attemptStartAt: null,
  };
}

export function willRetry(job: Job, outcome: Outcome): boolean {
  return (
    outcome.kind === 'failed' &&
    outcome.retryable &&
    job.endReason !== 'user' &&
    job.attempt <= job.spec.maxRetries
  );
}

async function closing(job: Job, context: StepContext): Promise<boolean> {
  const outcome = job.outcome!;
  const retry = willRetry(job, outcome);
  // A failed launch comes here without an end on record.
  if (!retry && job.attemptStartAt !== null)
    return apply(job, context, { ...finished(job, context, outcome, 'closing') });
  for (const host of context.hosts.ofAttempt(job.name, job.attempt))
    command(job, host, context, { kind: 'finish' });
  if (job.handle) await context.executor.cancel(job.handle);
  await context.removeAttempt(job);
  context.keys.revoke(job.name, job.attempt);
  if (!retry) return apply(job, context, { stage: 'done', handle: null });
  const now = context.now();
  const reason = outcome.kind === 'failed' ? outcome.reason : '';
  context.hosts.notice(
    job.name,
    job.attempt,
    null,
    'AttemptFailed',
    `Attempt ${job.attempt} ended: ${reason}`,
  );
  return apply(job, context, {
    at: now,
    stage: 'queued',
    transition: 'restarting',
    attempt: job.attempt + 1,
    outcome: null,
    endReason: null,
    handle: null,
    usedMs: job.usedMs + (job.attemptStartAt === null ? 0 : now - job.attemptStartAt),
    attemptStartAt: null,
  });
}

function command(
  job: Job,
  host: Host,
  context: StepContext,
  body: Parameters<HostStore['command']>[3],
): void {
  context.hosts.command(job.name, job.attempt, host.host, body);
  context.commanded(job.name, job.attempt, host.host);
}
