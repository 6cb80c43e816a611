import { closeSync, openSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export interface Finished {
  exitCode: number | null;
  signal: string | null;
  /** Both streams, in the order in which they were written. */
  output: string;
}

/** A host's init as its agent talks to it, but from outside: the socket is a file on the machine. */
export class HostShell {
  /** The host's run directory on the machine. */
  readonly runDir: string;
  /** The same directory as processes of the host see it. */
  readonly insideRun: string;
  // Of all shells: init starts an id only once.
  static #count = 0;

  constructor(runDir: string, insideRun: string) {
    this.runDir = runDir;
    this.insideRun = insideRun;
  }

  /** One reply per request, in order. */
  async call(...requests: object[]): Promise<Record<string, unknown>[]> {
    // The path may be longer than a socket address; through a descriptor of its directory it is not.
    const directory = openSync(this.runDir, 'r');
    const socket = connect(`/proc/self/fd/${directory}/init.sock`);
    try {
      await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
      for (const request of requests) socket.write(`${JSON.stringify(request)}\n`);
      const replies: Record<string, unknown>[] = [];
      for await (const line of createInterface({ input: socket })) {
        if (replies.push(JSON.parse(line) as Record<string, unknown>) === requests.length) break;
      }
      return replies;
    } finally {
      socket.destroy();
      closeSync(directory);
    }
  }

  /** Starts a command line in the host; its output goes to a file of the run directory. @returns its id */
  async start(command: string, env: Record<string, string> = {}, cwd = '/'): Promise<string> {
    HostShell.#count += 1;
    const id = `shell-${process.pid}-${HostShell.#count}`;
    const file = join(this.insideRun, 'state', id);
    const path = '/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin';
    const spawn = {
      op: 'spawn',
      id,
      argv: ['/bin/sh', '-c', command],
      env: { PATH: path, HOME: '/root', LANG: 'C.UTF-8', ...env },
      cwd,
      stdout: file,
      stderr: file,
    };
    const [reply] = await this.call(spawn);
    if (reply?.['ok'] !== true) throw new Error(`spawn was refused: ${JSON.stringify(reply)}`);
    return id;
  }

  async finish(id: string): Promise<Finished> {
    const [end] = await this.call({ op: 'wait', id });
    const { exitCode, signal } = end as unknown as Finished;
    return { exitCode, signal, output: this.output(id) };
  }

  output(id: string): string {
    return readFileSync(join(this.runDir, 'state', id), 'utf8');
  }

  async run(command: string, env: Record<string, string> = {}, cwd = '/'): Promise<Finished> {
    return this.finish(await this.start(command, env, cwd));
  }
}
