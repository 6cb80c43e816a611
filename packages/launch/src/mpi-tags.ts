import type { LogSource } from '@trainyard/api';

export interface TaggedText {
  /** Null for mpirun's own words. */
  rank: number | null;
  source: LogSource;
  message: string;
  /** What the rank wrote, without the tag. */
  text: string;
}

/** `[1,3]<stdout>:text` of Open MPI 4.1, `[1,3]<stdout>: text` of Open MPI 5. */
const TAG = /\[1,(\d+)\]<(stdout|stderr)>:/g;

/**
 * Splits a line of `mpirun --tag-output` into what each rank wrote: ranks that write without a newline end up on
 * one line. Tags take the form of AWS's toolkit, `[1,mpirank:3,algo-2]<stdout>:text`, with the host where the rank
 * really runs (AWS computes it and is wrong when hosts are not in order).
 */
export function splitTagged(
  line: string,
  source: LogSource,
  mpi: { hostOfRank: (rank: number) => string; mpiMajor: number },
): TaggedText[] {
  const tags = [...line.matchAll(TAG)];
  if (tags.length === 0) return [{ rank: null, source, message: line, text: line }];
  const before = line.slice(0, tags[0]!.index);
  const pieces = tags.map((tag, index): TaggedText => {
    const rank = Number(tag[1]);
    const raw = line.slice(tag.index + tag[0].length, tags[index + 1]?.index);
    const text = mpi.mpiMajor >= 5 && raw.startsWith(' ') ? raw.slice(1) : raw;
    const message = `[1,mpirank:${rank},${mpi.hostOfRank(rank)}]<${tag[2]}>:${text}`;
    return { rank, source: tag[2] as LogSource, message, text };
  });
  return before === '' ? pieces : [{ rank: null, source, message: before, text: before }, ...pieces];
}
