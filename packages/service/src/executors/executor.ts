/**
 * An executor starts the hosts of one attempt together, says when a host is gone, and stops them. It knows
 * nothing of HTTP, of the store or of job states. Every verb may be repeated: `submit` of an attempt that is
 * already running returns its handle, `cancel` of one that is gone succeeds.
 */
export interface Executor<Rendered = unknown> {
  readonly name: string;
  /** What this machine allows and why; shown by `trainyard doctor` and recorded in each job. */
  probe(): Promise<IsolationReport>;
  /** Pure: what would be started, as a value that can be printed and compared. */
  render(plan: GangPlan): Rendered;
  /** Starts all hosts or none. @throws ExecutorError naming the step that failed. */
  submit(rendered: Rendered): Promise<ExecutorHandle>;
  observe(handle: ExecutorHandle): Promise<HostObservation[]>;
  /** Ends every process of the attempt and removes what it left (mounts, namespaces, sockets). */
  cancel(handle: ExecutorHandle): Promise<void>;
}

export interface IsolationReport {
  /** Highest rung first: `namespaces` (root), `user-namespaces`, `processes`. */
  level: 'namespaces' | 'user-namespaces' | 'processes';
  /** One line per probe: what was tried and what the machine said. */
  probes: { rung: string; available: boolean; detail: string }[];
}

/** JSON-serialisable; the store keeps it so that a restarted service can adopt the attempt. */
export interface ExecutorHandle {
  executor: string;
  jobName: string;
  attempt: number;
  /** Private to the executor. */
  state: Record<string, unknown>;
}

export interface HostObservation {
  host: string;
  state: 'running' | 'gone';
  /** Why it is gone: exit status of its init, signal; null while running. */
  detail: string | null;
}

export interface HostMount {
  source: string;
  /** Absolute path inside the host, below the ML root: `/opt/ml/input/data/train`. */
  target: string;
  readOnly: boolean;
}

export interface HostLaunch {
  host: string;
  token: string;
  mounts: HostMount[];
}

export interface GangPlan {
  jobName: string;
  attempt: number;
  hosts: HostLaunch[];
  /** No way out of the job's own network except to the service. */
  networkIsolated: boolean;
  /** Fork server to offer inside the hosts; null when preloading is off. */
  forkServerSocket: string | null;
  /** Directories that hosts must be able to read besides the system: the runtime, Node, the agent's file. */
  visiblePaths: string[];
}
