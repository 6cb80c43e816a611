import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

export interface SpawnRequest {
  id: string;
  argv: string[];
  /** The full environment. */
  env: Record<string, string>;
  cwd: string;
  /** Files that both outputs are appended to. */
  stdout: string;
  stderr: string;
}

export interface ProcessEnd {
  /** Null when a signal ended it. */
  exitCode: number | null;
  /** e.g. `SIGKILL`. */
  signal: string | null;
  /** Epoch milliseconds. */
  endedAt: number;
}

export interface ProcessInfo extends Partial<ProcessEnd> {
  id: string;
  pid: number;
  running: boolean;
}

/** Init refused: bad argument, unknown id, program that cannot be started. */
export class InitRefusal extends Error {
  override readonly name = 'InitRefusal';
}

const CONNECT_TRIES = 50;
const CONNECT_PAUSE_MS = 20;

/**
 * The host's init over its Unix socket: JSON lines, one request, one reply (`packages/launch/init/DESIGN.md`).
 * One connection per request, because a `wait` holds back what follows it. What init started lives on when this
 * process dies.
 */
export class InitClient {
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** May be repeated: a known id answers the process that it started the first time. @throws InitRefusal */
  async spawn(request: SpawnRequest): Promise<{ pid: number }> {
    return (await this.#call({ op: 'spawn', ...request })) as unknown as { pid: number };
  }

  /** Resolves when the process has ended. @throws InitRefusal for an id that was never spawned */
  async wait(id: string): Promise<ProcessEnd> {
    return (await this.#call({ op: 'wait', id })) as unknown as ProcessEnd;
  }

  async list(): Promise<ProcessInfo[]> {
    return (await this.#call({ op: 'list' })).processes as ProcessInfo[];
  }

  /** To the process group; with `*` to every process of the host but init and agent. For KILL: resolves when none is left. */
  async signal(id: string, signal: 'TERM' | 'KILL'): Promise<void> {
    await this.#call({ op: 'signal', id, signal });
  }

  /** The environment of commands that other hosts run here through the remote shell. */
  async environment(env: Record<string, string>): Promise<void> {
    await this.#call({ op: 'environment', env });
  }

  async #call(request: Record<string, unknown>): Promise<Record<string, unknown>> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const reply = JSON.parse(await this.#exchange(`${JSON.stringify(request)}\n`)) as Record<
          string,
          unknown
        >;
        if (reply.ok === true) return reply;
        throw new InitRefusal(`init: ${String(reply.error)}`);
      } catch (error) {
        // Every request may be repeated, so a broken connection is no reason to give up at once.
        if (error instanceof InitRefusal || attempt >= CONNECT_TRIES) throw error;
        await sleep(CONNECT_PAUSE_MS);
      }
    }
  }

  #exchange(line: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.#socketPath);
      socket.on('error', reject);
      socket.on('close', () => reject(new Error(`init closed ${this.#socketPath} without a reply`)));
      const lines = createInterface({ input: socket });
      // readline passes on errors of its input since Node 16; they are handled above.
      lines.on('error', () => {});
      lines.once('line', (reply) => {
        resolve(reply);
        socket.destroy();
      });
      socket.write(line);
    });
  }
}
