import { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { ExecutorHandle, GangPlan } from '@trainyard/service';
import type { ExecutorHarness } from '../../../packages/service/src/executors/executor.contract.ts';
// Executors are not public; their process tests are the one place outside the service that opens one.
import { LocalExecutor, type LocalExecutorOptions } from '@trainyard/service';
import { until } from '../../support/until.ts';
import { HostShell } from './host-shell.ts';

export const ROOT = resolve(import.meta.dirname, '../../..');
export const INIT_DIR = join(ROOT, 'packages/launch/init');
export type Rung = 'namespaces' | 'user-namespaces' | 'processes';

interface LocalState {
  directory: string;
  runRoot: string | null;
  gang: { pid: number };
}

/** A local executor in a directory of its own, and what tests do to its hosts. */
export class LocalHarness implements ExecutorHarness {
  readonly dataDir: string;
  readonly executor: LocalExecutor;
  readonly #options: LocalExecutorOptions;
  readonly #handles: ExecutorHandle[] = [];

  constructor(options: LocalExecutorOptions) {
    this.#options = options;
    this.dataDir = options.dataDir;
    this.executor = new LocalExecutor(options);
  }

  /** @returns why a host cannot be started on the rung, as the machine says it */
  static async open(rung: Rung, options: Partial<LocalExecutorOptions> = {}): Promise<LocalHarness | string> {
    const uid = process.getuid?.() ?? -1;
    if (rung === 'namespaces' && uid !== 0) return `needs root, this is uid ${uid}`;
    if (rung === 'user-namespaces' && uid === 0)
      return 'root uses namespaces directly; user.test.ts runs this rung';
    // Below the working copy rather than below /tmp, which hosts do not see anyway: what is hidden must be hidden on purpose.
    const dataDir = mkdtempSync(join(options.dataDir ?? tmpdir(), 'ty-'));
    const harness = new LocalHarness({
      gatewaySocket: join(dataDir, 'run/gateway.sock'),
      tcpEndpoint: () => 'http://127.0.0.1:9',
      nodePath: process.execPath,
      agentPath: join(import.meta.dirname, 'waiting-agent.mjs'),
      initDir: INIT_DIR,
      pythonPath: process.env['TRAINYARD_INIT_PYTHON'] ?? (uid === 0 ? 'python3' : '/usr/bin/python3'),
      runParent: join(dataDir, 'r'),
      ...options,
      dataDir,
      isolation: rung,
    });
    try {
      await harness.executor.probe();
    } catch (error) {
      rmSync(dataDir, { recursive: true, force: true });
      return (error as Error).message;
    }
    return harness;
  }

  async reopen(): Promise<LocalExecutor> {
    const executor = new LocalExecutor(this.#options);
    await executor.probe();
    return executor;
  }

  plan(jobName: string, hosts: number, mountSource?: string): GangPlan {
    const mounts =
      mountSource === undefined
        ? []
        : [{ source: mountSource, target: '/opt/ml/input/data/train', readOnly: true }];
    return {
      jobName,
      attempt: 1,
      hosts: Array.from({ length: hosts }, (_, index) => ({
        host: `algo-${index + 1}`,
        token: `token-${index + 1}`,
        mounts,
      })),
      networkIsolated: false,
      forkServerSocket: null,
      visiblePaths: [],
    };
  }

  async submit(plan: GangPlan): Promise<ExecutorHandle> {
    const handle = await this.executor.submit(this.executor.render(plan));
    this.#handles.push(handle);
    return handle;
  }

  shell(handle: ExecutorHandle, host: string): HostShell {
    const { directory, runRoot } = stateOf(handle);
    return runRoot === null
      ? new HostShell(join(directory, 'hosts', host, 'run'), '/run/trainyard')
      : new HostShell(join(runRoot, host), join(runRoot, host));
  }

  mlDir(handle: ExecutorHandle, host: string): string {
    return join(stateOf(handle).directory, 'hosts', host, 'ml');
  }

  async agentStarts(handle: ExecutorHandle, host: string): Promise<number> {
    return this.#agentPids(handle, host).length;
  }

  async finishAgent(handle: ExecutorHandle, host: string): Promise<void> {
    await this.#signalAgent(handle, host, 'USR2');
  }

  async killAgent(handle: ExecutorHandle, host: string): Promise<void> {
    await this.#signalAgent(handle, host, 'KILL');
  }

  async loseHost(handle: ExecutorHandle, host: string): Promise<void> {
    process.kill(this.initPid(handle, host), 'SIGKILL');
  }

  async startStubborn(handle: ExecutorHandle, host: string): Promise<void> {
    const shell = this.shell(handle, host);
    const id = await shell.start(
      "trap '' TERM HUP INT; (setsid sh -c 'trap \"\" TERM; echo up; while :; do sleep 100; done' &)",
    );
    await until('the stubborn process', () => shell.output(id).includes('up'));
  }

  async leftovers(handle: ExecutorHandle): Promise<string[]> {
    return leftoversOf(stateOf(handle));
  }

  async discard(handle: ExecutorHandle): Promise<void> {
    await this.executor.purge(handle);
  }

  async close(): Promise<void> {
    for (const handle of this.#handles) await this.executor.purge(handle);
    rmSync(this.dataDir, { recursive: true, force: true });
  }

  /** What its agent is told at the start; on the machine, for hosts with namespaces do not see it. */
  bootstrapPath(handle: ExecutorHandle, host: string): string {
    const { directory, runRoot } = stateOf(handle);
    return join(runRoot === null ? join(directory, 'hosts', host) : join(runRoot, host), 'agent.json');
  }

  /** Pid of a host's init on the machine. */
  initPid(handle: ExecutorHandle, host: string): number {
    const status = JSON.parse(readFileSync(join(stateOf(handle).directory, 'status.json'), 'utf8'));
    return status.hosts[host].process.pid as number;
  }

  gangPid(handle: ExecutorHandle): number {
    return stateOf(handle).gang.pid;
  }

  #agentPids(handle: ExecutorHandle, host: string): string[] {
    try {
      const text = readFileSync(join(this.shell(handle, host).runDir, 'state/agent-starts'), 'utf8');
      return text.split('\n').slice(0, -1);
    } catch {
      return [];
    }
  }

  async #signalAgent(handle: ExecutorHandle, host: string, signal: string): Promise<void> {
    const pid = this.#agentPids(handle, host).at(-1);
    // `exec` keeps the shell from being one more process that the agent's end takes along.
    await this.shell(handle, host).start(`exec kill -${signal} ${pid}`);
  }
}

function stateOf(handle: ExecutorHandle): LocalState {
  return handle.state as unknown as LocalState;
}

/** Everything on this machine that names the attempt's directory, or is in a namespace that none of us is in. */
function leftoversOf({ directory, runRoot }: LocalState): string[] {
  const found: string[] = [];
  const words = [directory, ...(runRoot === null ? [] : [runRoot])];
  for (const pid of readdirSync('/proc').filter(
    (name) => /^\d+$/.test(name) && Number(name) !== process.pid,
  )) {
    const about = ['cmdline', 'environ', 'mountinfo'].map((name) => read(`/proc/${pid}/${name}`));
    const hit = words.some((word) => about.some((text) => text.includes(word)));
    if (hit && !/^State:\s+[ZX]/m.test(read(`/proc/${pid}/status`))) {
      found.push(`process ${pid} (${about[0]?.replaceAll('\0', ' ').trim()}) in ${namespaceOf(pid)}`);
    }
  }
  const mounts = read('/proc/self/mountinfo')
    .split('\n')
    .filter((line) => words.some((word) => line.includes(word)));
  found.push(...mounts.map((line) => `mount ${line}`));
  const sockets = read('/proc/net/unix')
    .split('\n')
    .filter((line) => words.some((word) => line.includes(word)));
  found.push(...sockets.map((line) => `socket ${line}`));
  if (runRoot !== null && exists(runRoot)) found.push(`directory ${runRoot}`);
  if (exists(join(directory, 'peers'))) found.push(`directory ${directory}/peers`);
  return found;
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

function exists(path: string): boolean {
  try {
    return readdirSync(path).length >= 0;
  } catch {
    return false;
  }
}

function namespaceOf(pid: string): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return 'an unreadable network namespace';
  }
}

/** A directory of the working copy that hosts would see if it were not hidden from them. */
export function visibleScratch(): string {
  const path = join(ROOT, '.trainyard/test');
  mkdirSync(path, { recursive: true, mode: 0o755 });
  return path;
}
