import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, open, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { tailOf } from './isolation-probe.ts';
import { isAlive, type ProcessIdentity, processIdentity, sendSignal } from './process-identity.ts';
import { runtimeFingerprint } from './runtime-fingerprint.ts';
import { askUntil } from './until.ts';

export interface ForkServersOptions {
  /** Private to the service, e.g. `DATA/run`; a directory per runtime is made in it. */
  runDir: string;
  /** The folder `packages/launch/init`. */
  initDir: string;
  /** After how many seconds without a fork a server ends by itself. @default 3600 */
  idleSeconds?: number;
}

export interface ForkServerStatus {
  runtime: string;
  python: string;
  /** `preloading`: imports run, requests wait. `failed`: it could not preload; ranks start with a fresh interpreter. */
  state: 'preloading' | 'ready' | 'ended' | 'failed';
  pid: number | null;
  /** Interpreters forked since it started, and those that run, when it last said so. */
  forks: number;
  running: number;
  preloadMs: number | null;
  detail: string | null;
}

interface ServerReply {
  pid: number;
  forks: number;
  running: number;
  preloadMs: number;
}

interface Server {
  directory: string;
  fingerprint: string;
  process: ProcessIdentity;
  control: Socket;
  status: ForkServerStatus;
}

const BIND_DEADLINE_MS = 10_000;

/**
 * One preloaded interpreter per runtime: see `init/fork_server.py`. It outlives a killed service for a minute, in which the next service takes it
 * over; it ends by itself when no service comes or nobody uses it.
 */
export class ForkServers {
  readonly #options: ForkServersOptions;
  readonly #servers = new Map<string, Server>();
  readonly #queues = new Map<string, Promise<unknown>>();
  /** Of runtimes that have no server because none could be started. */
  readonly #failures = new Map<string, ForkServerStatus>();

  constructor(options: ForkServersOptions) {
    this.#options = options;
  }

  /**
   * The socket to offer in hosts, of a server that matches the packages as they are now. Returns as soon as the socket takes requests, before
   * the imports are done. Null when there is nothing to preload or preloading failed: everything works without, only slower.
   */
  ensure(runtime: { name: string; python: string }): Promise<string | null> {
    const turn = (this.#queues.get(runtime.python) ?? Promise.resolve()).then(async () => {
      try {
        return await this.#ensure(runtime);
      } catch (error) {
        this.#failures.set(runtime.python, failed(runtime, (error as Error).message));
        return null;
      }
    });
    this.#queues.set(runtime.python, turn);
    return turn;
  }

  /** As last heard; asks each server, so the next call knows more. */
  status(): ForkServerStatus[] {
    for (const { control } of this.#servers.values()) if (control.writable) control.write('status\n');
    return [...[...this.#servers.values()].map(({ status }) => ({ ...status })), ...this.#failures.values()];
  }

  /** Ends all servers; what they have forked runs on. */
  async stop(): Promise<void> {
    await Promise.all(this.#queues.values());
    await Promise.all([...this.#servers.values()].map((server) => end(server)));
    this.#servers.clear();
  }

  async #ensure({ name, python }: { name: string; python: string }): Promise<string | null> {
    const fingerprint = await runtimeFingerprint(python, this.#options.initDir);
    if (fingerprint === null) return null;
    const directory = join(
      this.#options.runDir,
      `fork-${createHash('sha256').update(python).digest('hex').slice(0, 8)}`,
    );
    const known = this.#servers.get(python);
    if (known?.fingerprint === fingerprint) {
      if (known.status.state === 'failed') return null;
      if (known.status.state !== 'ended') return socketOf(directory);
    }
    if (known !== undefined) {
      this.#servers.delete(python);
      await end(known);
    }
    const adopted = known === undefined ? await this.#adopt(directory, fingerprint) : null;
    const process = adopted ?? (await this.#start(python, directory, fingerprint));
    const control = await connectTo(join(directory, 'control.sock'));
    const status: ForkServerStatus = {
      ...failed({ name, python }, null),
      state: 'preloading',
      pid: process.pid,
    };
    this.#failures.delete(python);
    this.#servers.set(python, { directory, fingerprint, process, control, status });
    listen(control, status, join(directory, 'log'));
    return socketOf(directory);
  }

  /** A server that an earlier service left; one that no longer matches is ended. */
  async #adopt(directory: string, fingerprint: string): Promise<ProcessIdentity | null> {
    const text = await readFile(join(directory, 'server.json'), 'utf8').catch(() => null);
    if (text === null) return null;
    const left = JSON.parse(text) as { process: ProcessIdentity; fingerprint: string };
    if (!(await isAlive(left.process))) return null;
    if (left.fingerprint === fingerprint) return left.process;
    await endProcess(left.process);
    return null;
  }

  async #start(python: string, directory: string, fingerprint: string): Promise<ProcessIdentity> {
    await mkdir(join(directory, 'jobs'), { recursive: true, mode: 0o700 });
    await forget(directory);
    const log = await open(join(directory, 'log'), 'w', 0o600);
    const { initDir, idleSeconds = 3600 } = this.#options;
    const controlPath = join(directory, 'control.sock');
    const argv = [
      join(initDir, 'fork_server.py'),
      socketOf(directory),
      controlPath,
      fingerprint,
      String(idleSeconds),
    ];
    // What it has in its memory, every rank has: so no variable of the service's, and no home.
    const env = { PATH: '/usr/local/bin:/usr/bin:/bin', LANG: 'C.UTF-8', HOME: '/nonexistent' };
    let failure: string | null = null;
    try {
      const child = spawn(python, argv, { detached: true, cwd: '/', env, stdio: ['ignore', log.fd, log.fd] });
      child.on('error', (error) => (failure = error.message));
      child.on('exit', (code, signal) => (failure = `it ended (${code ?? signal})`));
      child.unref();
      const socket = await askUntil(
        async () => (await connectTo(controlPath).catch(() => null)) ?? failure,
        BIND_DEADLINE_MS,
      );
      if (socket === null || typeof socket === 'string' || child.pid === undefined) {
        throw new Error(
          `the fork server of ${python} did not start: ${socket ?? 'no socket'}. ${await tailOf(join(directory, 'log'))}`,
        );
      }
      socket.destroy();
      const process = await processIdentity(child.pid);
      await writeFile(join(directory, 'server.json'), JSON.stringify({ process, fingerprint }), {
        mode: 0o600,
      });
      return process;
    } finally {
      await log.close();
    }
  }
}

function failed({ name, python }: { name: string; python: string }, detail: string | null): ForkServerStatus {
  return { runtime: name, python, state: 'failed', pid: null, forks: 0, running: 0, preloadMs: null, detail };
}

/** The directory holds nothing else, because it is the directory that hosts see: a socket made anew is found in it. */
function socketOf(directory: string): string {
  return join(directory, 'jobs', 'fork.sock');
}

function connectTo(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(socket.off('error', reject)));
    socket.once('error', reject);
  });
}

/** Keeps a server alive by staying attached, and its status up to date. The first reply comes when the imports are done. */
function listen(control: Socket, status: ForkServerStatus, logPath: string): void {
  let text = '';
  control.setEncoding('utf8');
  control.on('data', (data: string) => {
    text += data;
    const lines = text.split('\n');
    text = lines.pop() ?? '';
    const last = lines.at(-1);
    if (last === undefined) return;
    const { pid, forks, running, preloadMs } = JSON.parse(last) as ServerReply;
    Object.assign(status, { state: 'ready', pid, forks, running, preloadMs });
  });
  control.on('error', () => {});
  control.on('close', () => {
    status.state = status.state === 'preloading' ? 'failed' : 'ended';
    status.pid = null;
    void tailOf(logPath).then((detail) => (status.detail = detail || null));
  });
  control.write('attach\n');
  control.unref();
}

async function end({ control, process, directory }: Server): Promise<void> {
  control.destroy();
  await endProcess(process);
  await forget(directory);
}

/** Leaves the directories: running hosts have them mounted, and find the sockets of the next server in them. */
async function forget(directory: string): Promise<void> {
  const names = ['jobs/fork.sock', 'control.sock', 'server.json'];
  await Promise.all(names.map((name) => rm(join(directory, name), { force: true })));
}

/** It has nothing to tidy up, and while it imports it does not listen. */
async function endProcess(process: ProcessIdentity): Promise<void> {
  if (!(await isAlive(process))) return;
  sendSignal(process.pid, 'SIGKILL');
  await askUntil(async () => ((await isAlive(process)) ? null : true), 5_000);
}
