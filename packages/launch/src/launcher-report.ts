import { constants } from 'node:os';

/** How one rank ended, as its launcher says. */
export interface RankEnd {
  rank: number;
  localRank: number | null;
  /** Null when a signal ended it. */
  exitCode: number | null;
  signal: string | null;
  /** The launcher calls this one the first. */
  isFirst: boolean;
}

/** Lines that a launcher writes when it starts to end a job because a rank failed. */
const FAILURE_BEGINS: readonly RegExp[] = [
  /Sending process \d+ closing signal SIG/,
  /failed \(exitcode: -?\d+\) local_rank: \d+/,
  /MPI_ABORT was invoked on rank \d+/,
  /Per user-direction, the job has been aborted/,
  /(?:mpirun|prterun) (?:noticed that process rank|detected that one or more processes)/,
];

export const saysRankFailed = (line: string): boolean => FAILURE_BEGINS.some((pattern) => pattern.test(line));

/** Ranks in torchrun's table at its end; empty when torchrun did not come so far. */
export function readTorchrunTable(text: string): RankEnd[] {
  const table =
    /\n=+\n.* FAILED\n-+\n(?<failures>[\s\S]*?)\nRoot Cause \(first observed failure\):\n(?<root>[\s\S]*?)\n=+/.exec(
      text,
    )?.groups;
  if (!table) return singleFailure(text);
  return [...readEntries(table.root!, true), ...readEntries(table.failures!, false)];
}

function readEntries(text: string, isFirst: boolean): RankEnd[] {
  const pattern = /rank\s*: (\d+) \(local_rank: (\d+)\)\s*\n\s*exitcode\s*: (-?\d+)/g;
  return [...text.matchAll(pattern)].map((match) => ({
    rank: Number(match[1]),
    localRank: Number(match[2]),
    ...exitOf(Number(match[3])),
    isFirst,
  }));
}

/** The line that torchrun writes before its table; it knows only the local rank. */
function singleFailure(text: string): RankEnd[] {
  const match = /failed \(exitcode: (-?\d+)\) local_rank: (\d+)/.exec(text);
  if (!match) return [];
  return [{ rank: -1, localRank: Number(match[2]), ...exitOf(Number(match[1])), isFirst: true }];
}

/** Python's convention: a negative code is a signal. */
function exitOf(code: number): Pick<RankEnd, 'exitCode' | 'signal'> {
  return code < 0 ? { exitCode: null, signal: signalName(-code) } : { exitCode: code, signal: null };
}

export function signalName(number: number): string {
  const found = Object.entries(constants.signals).find(([, value]) => value === number);
  return found?.[0] ?? `SIG${number}`;
}

/** The rank that Open MPI (4.1 or 5) blames in its closing words, which it wraps at 76 columns. */
export function readMpirunWords(text: string): RankEnd[] {
  const words = text.replace(/\s+/g, ' ');
  const first = { localRank: null, isFirst: true };
  const killed =
    /(?:mpirun|prterun) noticed that process rank (\d+) with PID \d+ on node \S+ exited on signal (\d+)/.exec(
      words,
    );
  if (killed)
    return [{ ...first, rank: Number(killed[1]), exitCode: null, signal: signalName(Number(killed[2])) }];
  const aborted = /MPI_ABORT was invoked on rank (\d+) in communicator .*? with errorcode (\d+)/.exec(words);
  if (aborted) return [{ ...first, rank: Number(aborted[1]), exitCode: Number(aborted[2]), signal: null }];
  const exited = /Process name: \[(?:\[\d+,\d+\]|[^\]@]*@1),(\d+)\] Exit code: (\d+)/.exec(words);
  if (exited) return [{ ...first, rank: Number(exited[1]), exitCode: Number(exited[2]), signal: null }];
  return [];
}
