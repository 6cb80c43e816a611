import { spawn } from 'node:child_process';
import { open, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Executor, ExecutorHandle, GangPlan, HostObservation, IsolationReport } from '../executor.ts';
import { ExecutorError } from './executor-error.ts';
import { removeScratch, removeTree, writeGangFiles } from './gang-files.ts';
import { describeEnd, endGang, isGangAlive, stateOf, stateOfHandle } from './gang-life.ts';
import { type GangRendering, type Rung, renderGang } from './gang-rendering.ts';
import { type GangStatus, readGangStatus } from './gang-status.ts';
import { isolationOf, probeIsolation, resolvePython, tailOf } from './isolation-probe.ts';
import { isAlive } from './process-identity.ts';
import { askUntil } from './until.ts';

export interface LocalExecutorOptions {
  dataDir: string;
  /** Unix socket on which the service answers; hosts with a network of their own reach it through their job's door. */
  gatewaySocket: string;
  /** Base URL of the service for hosts without namespaces; asked at each rendering. */
  tcpEndpoint: () => string;
  nodePath: string;
  agentPath: string;
  /** The folder `packages/launch/init`. */
  initDir: string;
  /** Any Python of at least 3.10, a path or a name. */
  pythonPath: string;
  /** @default TRAINYARD_ISOLATION, else `auto`: the highest rung that works */
  isolation?: Rung | 'auto';
  /** `host:port` entries that jobs may reach although the address is this machine's. @default none */
  egressAllow?: string[];
  /** Parent of the short run directories of hosts without namespaces. @default `trainyard-UID` below the temporary directory */
  runParent?: string;
  /** How long a gang may take to start, in milliseconds. @default 30 000 */
  submitTimeoutMs?: number;
}

const PROXY_VARIABLES = ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'http_proxy', 'https_proxy', 'no_proxy'];
/** A gang process's own environment: nothing of the service's but what leads to the internet. */
const PASSED_ON = ['PATH', 'TMPDIR', ...PROXY_VARIABLES];

/**
 * Runs each host of a job as a tree of processes on this machine, isolated as far as the machine allows. The work is done by the
 * gang process, `init/gang.py`, which does not depend on the service; this class starts it, reads its status and ends it.
 */
export class LocalExecutor implements Executor<GangRendering> {
  readonly name = 'local';
  readonly #options: LocalExecutorOptions;
  readonly #submitTimeoutMs: number;
  #pythonPath: string;
  #report: Promise<IsolationReport> | null = null;
  #rung: Rung | null = null;

  constructor(options: LocalExecutorOptions) {
    this.#options = options;
    this.#pythonPath = options.pythonPath;
    this.#submitTimeoutMs = options.submitTimeoutMs ?? 30_000;
  }

  /** Tried once, then remembered. @throws ExecutorError when no host can be started at all */
  probe(): Promise<IsolationReport> {
    this.#report ??= this.#probe();
    return this.#report;
  }

  /** @throws Error before {@link probe} has answered: the rung decides every path */
  render(plan: GangPlan): GangRendering {
    if (this.#rung === null) throw new Error('LocalExecutor.render needs the rung: await probe() first');
    return this.#render(plan, this.#rung, this.#options.dataDir, this.#options.agentPath);
  }

  /**
   * Starts an attempt once, however often it is asked: a second call finds the first one's gang process, also after a crash of
   * the service in between, and an attempt that has ended is not started again. After an ExecutorError nothing is left, and
   * submitting again tries again.
   */
  async submit(rendering: GangRendering): Promise<ExecutorHandle> {
    const status = await this.#settled(
      rendering,
      (await readGangStatus(rendering.directory)) ?? (await this.#start(rendering)),
    );
    const { jobName, attempt } = rendering;
    return { executor: this.name, jobName, attempt, state: { ...stateOf(rendering, status) } };
  }

  async observe(handle: ExecutorHandle): Promise<HostObservation[]> {
    const state = stateOfHandle(handle);
    const isRunning = await isGangAlive(state);
    // Read after the process was looked at: a gang process writes its last word before it ends.
    const status = await readGangStatus(state.directory);
    return state.hosts.map((host) => {
      const seen = status?.hosts[host];
      if (seen?.state === 'gone') return { host, state: 'gone', detail: describeEnd(seen) };
      if (isRunning) return { host, state: 'running', detail: null };
      const detail = `its gang process (pid ${state.gang.pid}) was killed, or the machine was restarted`;
      return { host, state: 'gone', detail };
    });
  }

  /** Keeps the hosts' `ml` and run directories until {@link purge}. @throws ExecutorError when a process survives SIGKILL */
  async cancel(handle: ExecutorHandle): Promise<void> {
    const state = stateOfHandle(handle);
    await endGang(state);
    await removeScratch(state.directory, state.runRoot, state.hosts);
  }

  /** Ends the attempt if need be and removes everything of it. May be repeated. */
  async purge(handle: ExecutorHandle): Promise<void> {
    await this.cancel(handle);
    await removeTree(stateOfHandle(handle).directory);
  }

  async #probe(): Promise<IsolationReport> {
    this.#pythonPath = await resolvePython(this.#options.pythonPath);
    const wanted = this.#options.isolation ?? isolationOf(process.env['TRAINYARD_ISOLATION']);
    const runDir = join(this.#options.dataDir, 'run');
    const report = await probeIsolation(wanted, runDir, (rung, directory) => this.#tryRung(rung, directory));
    this.#rung = report.level;
    return report;
  }

  #render(plan: GangPlan, rung: Rung, dataDir: string, agentPath: string): GangRendering {
    const { tcpEndpoint, egressAllow = [], runParent, ...options } = this.#options;
    return renderGang(plan, {
      ...options,
      rung,
      platform: process.platform,
      dataDir,
      agentPath,
      tcpEndpoint: tcpEndpoint(),
      pythonPath: this.#pythonPath,
      egressAllow,
      homeDir: homedir(),
      proxyEnvironment: pick(process.env, PROXY_VARIABLES),
      runParent: runParent ?? join(tmpdir(), `trainyard-${process.getuid?.() ?? 'user'}`),
    });
  }

  /** One host whose agent ends at once, on the way that every job takes. */
  async #tryRung(rung: Rung, directory: string): Promise<string | null> {
    const agentPath = join(directory, 'agent.mjs');
    await writeFile(agentPath, '');
    const rendering = this.#render(
      {
        jobName: 'probe',
        attempt: 1,
        hosts: [{ host: 'algo-1', token: '', mounts: [] }],
        networkIsolated: false,
        forkServerSocket: null,
        visiblePaths: [],
      },
      rung,
      directory,
      agentPath,
    );
    try {
      const handle = await this.submit(rendering);
      const ended = await askUntil(async () => {
        const [host] = await this.observe(handle);
        return host?.state === 'gone' ? (host.detail ?? 'ended') : null;
      }, this.#submitTimeoutMs);
      const log = await tailOf(
        join(
          rendering.runRoot ?? join(rendering.directory, 'hosts'),
          'algo-1',
          rendering.runRoot ? 'agent.log' : 'run/agent.log',
        ),
      );
      await this.cancel(handle);
      return ended === 'exit status 0'
        ? null
        : `Node does not run in a host: ${ended ?? 'it never ended'}. ${log}`.trim();
    } catch (error) {
      return (error as Error).message;
    }
  }

  /** Spawns the gang process and waits for the first status of an attempt. */
  async #start(rendering: GangRendering): Promise<GangStatus> {
    await writeGangFiles(rendering);
    const logPath = join(rendering.directory, 'outer.log');
    const log = await open(logPath, 'a', 0o600);
    const [command, ...args] = rendering.command as [string, ...string[]];
    const env = pick(process.env, PASSED_ON);
    let failure: string | null = null;
    try {
      const child = spawn(command, args, {
        detached: true,
        cwd: '/',
        env,
        stdio: ['ignore', log.fd, log.fd],
      });
      child.on('error', (error) => (failure = error.message));
      // 75 means that another gang process has the attempt: its status is the one to wait for.
      child.on(
        'exit',
        (code, signal) => (failure = code === 75 || code === 0 ? failure : `exit ${code ?? signal}`),
      );
      child.unref();
    } finally {
      await log.close();
    }
    const status = await askUntil(
      async () => (await readGangStatus(rendering.directory)) ?? failure,
      this.#submitTimeoutMs,
    );
    if (status !== null && typeof status !== 'string') return status;
    const output = await tailOf(logPath);
    await removeTree(rendering.directory);
    throw new ExecutorError(
      'start',
      `${nameOf(rendering)}: the gang process did not come up: ${status ?? `silent for ${this.#submitTimeoutMs} ms`}. ${output}`.trim(),
    );
  }

  /** Waits until all hosts run or none will. */
  async #settled(rendering: GangRendering, first: GangStatus): Promise<GangStatus> {
    const settled = await askUntil(async () => {
      const lives = await isAlive(first.gang);
      const status = await readGangStatus(rendering.directory);
      return status === null || !lives || status.state !== 'starting' ? { status, lives } : null;
    }, this.#submitTimeoutMs);
    const status = settled?.status ?? first;
    if (status.state === 'running' || status.state === 'ended') return status;
    const why =
      status.error?.message ??
      (settled === null
        ? `not ready after ${this.#submitTimeoutMs} ms`
        : 'the gang process was killed while it started');
    const output = await tailOf(join(rendering.directory, 'outer.log'));
    await endGang(stateOf(rendering, status));
    await removeScratch(rendering.directory, rendering.runRoot, Object.keys(status.hosts));
    await removeTree(rendering.directory);
    throw new ExecutorError(
      status.error?.step ?? 'start',
      `${nameOf(rendering)} cannot start: ${why}. ${output}`.trim(),
    );
  }
}

function nameOf({ jobName, attempt }: GangRendering): string {
  return `${jobName} (attempt ${attempt})`;
}

function pick(environment: NodeJS.ProcessEnv, names: string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => (environment[name] ? [[name, environment[name]] as const] : [])),
  );
}
