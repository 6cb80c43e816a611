import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { LogSource } from '@trainyard/api';

/** Names in the host's log directory; they survive any crash of the agent. */
export class LogFiles {
  readonly directory: string;
  readonly ranks: string;

  constructor(directory: string) {
    this.directory = directory;
    this.ranks = join(directory, 'ranks');
  }

  /** The agent's own sentences. */
  get agent(): string {
    return join(this.directory, 'agent.jsonl');
  }

  /** Output of the launcher. */
  launcher(stream: 'out' | 'err'): string {
    return this.process('main', stream);
  }

  /** Output of a process that init started: the launcher `main`, or a server beside it. */
  process(id: 'main' | 'ps' | 'scheduler' | 'server', stream: 'out' | 'err'): string {
    return join(this.directory, `${id}.${stream}`);
  }

  rank(rank: number, stream: 'out' | 'err'): string {
    return join(this.ranks, `rank-${rank}.${stream}`);
  }

  /** All files, relative to the directory, in a fixed order. */
  async list(): Promise<string[]> {
    const [files, ranks] = await Promise.all(
      [this.directory, this.ranks].map((path) => readdir(path).catch(() => [])),
    );
    return [...files!, ...ranks!.map((name) => `ranks/${name}`)]
      .filter((name) => describeLogFile(name) !== null)
      .sort();
  }
}

export interface LogFileKind {
  /** `json`: {@link AgentLine}s; `launcher`: may carry mpirun's tags. */
  form: 'json' | 'launcher' | 'plain';
  source: LogSource;
  rank: number | null;
}

/** What a file of the log directory holds; null for other files. */
export function describeLogFile(name: string): LogFileKind | null {
  if (name === 'agent.jsonl') return { form: 'json', source: 'agent', rank: null };
  const match = /^(?:(main|requirements|ps|scheduler|server)|ranks\/rank-(\d+))\.(out|err)$/.exec(name);
  if (!match) return null;
  const source = match[3] === 'out' ? 'stdout' : 'stderr';
  if (match[2] !== undefined) return { form: 'plain', source, rank: Number(match[2]) };
  return { form: match[1] === 'main' ? 'launcher' : 'plain', source, rank: null };
}
