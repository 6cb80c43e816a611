import type { RankFailure } from '@trainyard/api';
import type { ProcessEnd } from './init-client.ts';
import type { RankEnd } from './launcher-report.ts';
import { readMpirunWords, readTorchrunTable } from './launcher-report.ts';
import { splitTagged } from './mpi-tags.ts';
import type { LaunchRecord } from './state.ts';
import type { ErrorTrace } from './traceback.ts';
import { isConsequence, MAX_TRACE_LINES, readTrace } from './traceback.ts';

/** The end of a rank's error output. */
export interface RankOutput {
  rank: number;
  text: string;
  /** When it wrote last: the time of its death as other hosts can compare it. */
  writtenAt: number;
}

export interface FailureEvidence {
  host: string;
  launch: LaunchRecord;
  end: ProcessEnd;
  /** A process beside the script whose end this is, such as `parameter server on algo-2`; null: the script's own. */
  culprit: string | null;
  /** Of the launcher, or of the culprit. */
  launcherErrors: string;
  /** Of launchers that give each rank files of its own. */
  ranks: readonly RankOutput[];
  codeDirectory: string;
  /** The out-of-memory killer struck while the script ran; null when that could not be read. */
  oomKills: number | null;
}

/** Shown with an abort that Gloo is known to cause at the very end of a process. */
export const GLOO_EXIT_HINT =
  'Hint: this abort comes from a thread of Gloo that is still alive while Python ends. It is a race in PyTorch, not ' +
  'an error of the script: end the script with dist.destroy_process_group(), sys.stdout.flush() and os._exit(0).';

interface Candidate {
  rank: number | null;
  end: RankEnd | null;
  trace: ErrorTrace | null;
  at: number;
}

/**
 * The first cause on this host. Of all ranks that ended badly the one counts whose own error is no consequence of
 * another rank's death; among those the one that the launcher saw first, then the one that wrote first.
 */
export function findFailure(evidence: FailureEvidence): RankFailure | null {
  if (evidence.culprit !== null) return culpritFailure(evidence, evidence.culprit);
  if (evidence.end.exitCode === 0) return null;
  const candidates = gather(evidence);
  const weight = ({ trace, end }: Candidate): number =>
    (trace && isConsequence(trace) ? 4 : 0) + (end?.signal === 'SIGTERM' ? 2 : 0) + (end?.isFirst ? 0 : 1);
  const first = candidates.toSorted((a, b) => weight(a) - weight(b) || a.at - b.at)[0]!;
  const same = candidates.filter(({ trace }) => trace !== null && trace.key === first.trace?.key);
  return describe(first, same, evidence);
}

/** A server that dies takes the scripts of all hosts with it: whatever they say then is its consequence. */
function culpritFailure(evidence: FailureEvidence, culprit: string): RankFailure {
  const { end, host, launcherErrors, codeDirectory, oomKills } = evidence;
  const trace = readTrace(launcherErrors, codeDirectory);
  return {
    host,
    rank: null,
    localRank: null,
    exitCode: end.exitCode,
    signal: end.signal,
    at: end.endedAt,
    exception: `The ${culprit} ended${trace?.exception ? `: ${trace.exception}` : ' while the script needed it'}`,
    location: null,
    trace: trace?.lines ?? [],
    sameTraceRanks: [],
    isConsequence: false,
    outOfMemory: end.signal === 'SIGKILL' && (oomKills ?? 0) > 0,
  };
}

function gather(evidence: FailureEvidence): Candidate[] {
  const ends = rankEnds(evidence);
  const traces = rankTraces(evidence);
  const ranks = new Set([...ends.keys(), ...traces.keys()]);
  if (ranks.size === 0) {
    const trace = readTrace(evidence.launcherErrors, evidence.codeDirectory);
    return [{ rank: null, end: null, trace, at: evidence.end.endedAt }];
  }
  return [...ranks].map((rank) => ({
    rank,
    end: ends.get(rank) ?? null,
    trace: traces.get(rank)?.trace ?? null,
    at: traces.get(rank)?.at ?? evidence.end.endedAt,
  }));
}

function rankEnds({ launch, launcherErrors, host }: FailureEvidence): Map<number, RankEnd> {
  const firstRank = Math.max(0, launch.rankHosts.indexOf(host)) * launch.processesPerHost;
  const found =
    launch.launcher === 'torchrun' ? readTorchrunTable(launcherErrors) : mpiEnds(launch, launcherErrors);
  return new Map(
    found.map((end): [number, RankEnd] => {
      const rank = end.rank >= 0 ? end.rank : firstRank + (end.localRank ?? 0);
      return [rank, { ...end, rank }];
    }),
  );
}

const mpiEnds = (launch: LaunchRecord, text: string): RankEnd[] =>
  launch.launcher === 'mpirun' || launch.launcher === 'smddp' ? readMpirunWords(text) : [];

/** Ranks whose output ends in an error, from files of their own or from the tagged lines of mpirun. */
function rankTraces(evidence: FailureEvidence): Map<number, { trace: ErrorTrace; at: number }> {
  const outputs = evidence.ranks.length > 0 ? evidence.ranks : taggedOutputs(evidence);
  const found = outputs.flatMap(({ rank, text, writtenAt }) => {
    const trace = readTrace(text, evidence.codeDirectory);
    // Words on the error stream are no error by themselves.
    return trace?.exception ? [[rank, { trace, at: writtenAt }] as const] : [];
  });
  return new Map(found);
}

function taggedOutputs({ launch, launcherErrors, end }: FailureEvidence): RankOutput[] {
  if (launch.mpiMajor === null) return [];
  const texts = new Map<number, string[]>();
  for (const line of launcherErrors.split('\n')) {
    for (const { rank, text } of splitTagged(line, 'stderr', {
      hostOfRank: () => '',
      mpiMajor: launch.mpiMajor,
    })) {
      if (rank !== null) texts.set(rank, [...(texts.get(rank) ?? []), text]);
    }
  }
  // They all stand in one file: when each wrote is not known, so the order of ranks decides.
  return [...texts].map(([rank, lines]) => ({ rank, text: lines.join('\n'), writtenAt: end.endedAt }));
}

function describe(first: Candidate, same: readonly Candidate[], evidence: FailureEvidence): RankFailure {
  const { launch, end, oomKills } = evidence;
  const { rank, trace } = first;
  const host = rank === null ? evidence.host : (hostOfRank(launch, rank) ?? evidence.host);
  // What the launcher says of the rank; the launcher's own end stands for a script that it is itself.
  const isLauncher = launch.rankHosts.length > 0;
  const own = first.end ?? (isLauncher && rank !== null ? { exitCode: null, signal: null } : end);
  const lines = trace?.lines ?? lastWords(evidence, rank);
  const isGlooExit =
    own.signal === 'SIGABRT' &&
    lines.some((line) => line.includes('terminate called without an active exception'));
  return {
    host,
    rank,
    localRank: rank === null ? null : (first.end?.localRank ?? rank % launch.processesPerHost),
    exitCode: own.exitCode,
    signal: own.signal,
    at: first.at,
    exception: trace?.exception ?? null,
    location: trace?.location ?? null,
    trace: (isGlooExit ? [...lines, GLOO_EXIT_HINT] : lines).slice(-MAX_TRACE_LINES),
    sameTraceRanks: same
      .map((candidate) => candidate.rank)
      .filter((other) => other !== null)
      .toSorted((a, b) => a - b),
    // A host that only waits can lose nothing but its link to the lead host.
    isConsequence: launch.role === 'wait' || (trace !== null && isConsequence(trace)),
    outOfMemory: own.signal === 'SIGKILL' && (oomKills ?? 0) > 0,
  };
}

function lastWords({ ranks, launcherErrors }: FailureEvidence, rank: number | null): string[] {
  const text = ranks.find((output) => output.rank === rank)?.text ?? launcherErrors;
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .slice(-10);
}

/** Slots are filled host by host. */
export function hostOfRank(
  launch: Pick<LaunchRecord, 'rankHosts' | 'processesPerHost'>,
  rank: number,
): string | null {
  return launch.rankHosts[Math.floor(rank / launch.processesPerHost)] ?? null;
}
