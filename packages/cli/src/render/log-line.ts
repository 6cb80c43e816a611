import { printable, type Style, type Terminal } from './terminal.ts';

/** `algo-1 rank 0`: what nearly every label fits into. */
export const LABEL_WIDTH = 13;
const HOST_STYLES: readonly Style[] = ['cyan', 'green', 'yellow', 'magenta', 'blue'];

interface Line {
  host: string;
  rank: number | null;
  message: string;
}

/** `algo-1 rank 0`, or the host alone for lines of its launcher and agent. */
export function logLabel({ host, rank }: Pick<Line, 'host' | 'rank'>): string {
  return rank === null ? host : `${host} rank ${rank}`;
}

const MPI_TAG = /^\[\d+,mpirank:(\d+),([^\]]+)\]<\w+>:?/;

/** mpirun's lines all come from the first host and carry who wrote them; the label says it better. */
function withoutTag(line: Line): Line {
  const tag = MPI_TAG.exec(line.message);
  return tag ? { host: tag[2]!, rank: Number(tag[1]), message: line.message.slice(tag[0].length) } : line;
}

/** `algo-1 rank 0 │ text` and a line end, each host in a colour of its own. */
export function logLine(terminal: Terminal, logged: Line, labelWidth = LABEL_WIDTH): string {
  const line = withoutTag(logged);
  const label = `${logLabel(line).padEnd(labelWidth)} │`;
  const text = terminal.isInteractive ? printable(line.message) : line.message;
  return `${terminal.style(line.rank === null ? 'dim' : hostStyle(line.host), label)} ${text}\n`;
}

/** The same host has the same colour in every run: `algo-1` the first, `algo-2` the second. */
function hostStyle(host: string): Style {
  const number = Number(/-(\d+)$/.exec(host)?.[1] ?? 1);
  return HOST_STYLES[(number - 1) % HOST_STYLES.length] ?? 'cyan';
}
