import { setTimeout as sleep } from 'node:timers/promises';
import type { InitClient } from './init-client.ts';

/** Asks the init of the host where it runs to say when the process `main` has ended; waits until there is one. */
const WAIT_PROGRAM = `
import json, os, socket, time
while True:
    link = socket.socket(socket.AF_UNIX)
    link.connect(os.environ["TRAINYARD_INIT_SOCKET"])
    link.sendall(b'{"op":"wait","id":"main"}\\n')
    if json.loads(link.makefile().readline() or "{}").get("ok"):
        break
    time.sleep(0.1)
`;

const quote = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`;

/**
 * Words that wait, over the remote shell, until the script of `host` has ended. Their own exit code says nothing: that
 * host may end this call together with everything else that its script left behind.
 */
export function waitForScript(
  host: string,
  programs: { remoteShell: string; interpreter: string },
): string[] {
  const remote = `exec ${quote(programs.interpreter)} -I -S -c ${quote(WAIT_PROGRAM)}`;
  return ['/bin/sh', '-c', '"$@"; exit 0', 'trainyard-wait', programs.remoteShell, host, remote];
}

/** Other hosts of the job, as far as their scripts are concerned. */
export class Peers {
  /** Asked once per host and life of the agent. */
  readonly #asked = new Map<string, Promise<void>>();
  readonly #init: Pick<InitClient, 'spawn' | 'wait'>;
  readonly #programs: { remoteShell: string; interpreter: string };

  constructor(
    init: Pick<InitClient, 'spawn' | 'wait'>,
    programs: { remoteShell: string; interpreter: string },
  ) {
    this.#init = init;
    this.#programs = programs;
  }

  /**
   * Resolves when the script of `host` has ended, also when it had not begun yet. Init keeps the question, so that it
   * may be asked again after a crash; killing all processes of this host answers it at once.
   */
  ended(host: string): Promise<void> {
    const known = this.#asked.get(host) ?? this.#ask(host);
    this.#asked.set(host, known);
    return known;
  }

  /** Forgets all answers: those that came because everything in this host was killed were none. */
  reset(): void {
    this.#asked.clear();
  }

  get isAsking(): boolean {
    return this.#asked.size > 0;
  }

  async #ask(host: string): Promise<void> {
    const id = `wait-${host}`;
    await this.#init.spawn({
      id,
      argv: waitForScript(host, this.#programs),
      env: { PATH: process.env.PATH ?? '/usr/bin:/bin' },
      cwd: '/',
      stdout: '/dev/null',
      stderr: '/dev/null',
    });
    await this.#init.wait(id);
  }
}

/** The hosts of a job as one of them sees them. */
export interface JobHosts {
  own: string;
  others: readonly string[];
}

/** The scripts of a job seldom end at the same instant; only after this is it worth a word. */
const AWAITED_AFTER_MS = 5000;
const ANSWER_MS = 2000;

/**
 * One sentence on a script that has ended well while those of other hosts go on; null when they end within a few
 * seconds, or `signal` says that nobody waits any more.
 */
export async function awaitedNotice(
  peers: Pick<Peers, 'ended'>,
  { own, others }: JobHosts,
  endedAt: number,
  signal: AbortSignal,
): Promise<string | null> {
  if (others.length === 0) return null;
  const pause = (ms: number): Promise<void> => sleep(ms, undefined, { signal }).catch(() => {});
  await pause(AWAITED_AFTER_MS);
  if (signal.aborted) return null;
  const running = new Set(others);
  for (const host of others) void peers.ended(host).then(() => running.delete(host));
  await pause(ANSWER_MS);
  if (signal.aborted || running.size === 0) return null;
  return `The script on ${own} ended at ${new Date(endedAt).toISOString().slice(11, 19)} UTC with exit code 0; the job goes on until the script on ${[...running].join(', ')} ends.`;
}
