import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { HostCommand, HostPhase, HostReport, StopReason } from '@trainyard/api';
import { replaceFile, syncFile } from './atomic-file.ts';
import type { LauncherName } from './launchers/launcher.ts';

/** How this host was started; kept because an agent that attaches again must still name ranks and command. */
export interface LaunchRecord {
  launcher: LauncherName;
  /** `wait`: another host's mpirun starts this host's ranks. */
  role: 'run' | 'wait';
  /** As AWS's toolkit prints it. */
  command: string;
  processesPerHost: number;
  /** Hosts that have ranks, in rank order. */
  rankHosts: string[];
  /** Of the mpirun in use; null for other launchers. */
  mpiMajor: number | null;
  /** Processes beside the script, as the init knows them. */
  companions: { id: string; title: string }[];
  /** Other hosts of the distribution whose scripts depend on the companions. */
  peers: string[];
  /** Host whose end is the end of this host's script; null: it ends by itself. */
  follows: string | null;
}

export interface StopRecord {
  endedBy: 'stop' | 'max_runtime';
  reason: StopReason;
  graceMs: number;
  /** On the monotonic clock; null until SIGTERM was sent. */
  signalledAtMs: number | null;
}

export type UploadCommand = Omit<Extract<HostCommand, { kind: 'upload' }>, 'id' | 'kind'>;

/** Everything of one attempt on one host that a crash of the agent must not lose. */
export interface AttemptState {
  version: 1;
  phase: HostPhase;
  nextReportSeq: number;
  /** Not acknowledged yet, in order. */
  reports: HostReport[];
  ackedCommand: number;
  launch: LaunchRecord | null;
  startCommanded: boolean;
  /** Monotonic time of `start`; MaxRuntime counts from it. */
  startedAtMs: number | null;
  /** Kills by the out-of-memory killer before the script began. */
  oomKillsBefore: number | null;
  stop: StopRecord | null;
  /** The script was ended because the host that it follows is done: a good end. */
  endedWithLead: boolean;
  /** When the script ended, epoch milliseconds; null before, and once the description says who is waited for. */
  endedAt: number | null;
  /** The script ended badly; nobody waits for its artifacts then. */
  hasFailed: boolean;
  upload: UploadCommand | null;
  /** Artifacts that are in the object store already. */
  uploaded: string[];
  finish: boolean;
}

const fresh = (): AttemptState => ({
  version: 1,
  phase: 'registered',
  nextReportSeq: 0,
  reports: [],
  ackedCommand: -1,
  launch: null,
  startCommanded: false,
  startedAtMs: null,
  oomKillsBefore: null,
  stop: null,
  endedWithLead: false,
  endedAt: null,
  hasFailed: false,
  upload: null,
  uploaded: [],
  finish: false,
});

const NO_COMPANIONS: Partial<LaunchRecord> = { companions: [], peers: [], follows: null };

/** An agent of an earlier version may have left less. */
const complete = (found: AttemptState): AttemptState => ({
  ...fresh(),
  ...found,
  launch: found.launch && { ...NO_COMPANIONS, ...found.launch },
});

/** Report without what the store adds. */
export type NewReport = HostReport extends infer R
  ? R extends unknown
    ? Omit<R, 'seq' | 'at'>
    : never
  : never;

/**
 * The attempt's state in memory and on disk. Commands of the service only change the state; the attempt waits
 * for states, never for messages, so it does not matter whether a change came now or before a crash.
 */
export class StateStore {
  readonly current: AttemptState;
  /** True when an earlier agent of the same host and attempt left state. */
  readonly resumed: boolean;
  readonly #path: string;
  readonly #waiters = new Set<() => void>();
  #writing: Promise<void> | null = null;
  #dirty = false;

  private constructor(path: string, found: AttemptState | null) {
    this.#path = path;
    this.resumed = found !== null;
    this.current = found ? complete(found) : fresh();
  }

  static open(directory: string): StateStore {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const path = join(directory, 'state.json');
    return new StateStore(path, readJson<AttemptState>(path));
  }

  /** Resolves when the change, and every one before it, is on disk. Changes made meanwhile share one write. */
  async update(change: (state: AttemptState) => void): Promise<void> {
    change(this.current);
    for (const wake of this.#waiters) wake();
    this.#dirty = true;
    while (this.#dirty || this.#writing) {
      if (!this.#writing) {
        this.#dirty = false;
        this.#writing = this.#save().finally(() => {
          this.#writing = null;
        });
      }
      await this.#writing;
    }
  }

  async #save(): Promise<void> {
    try {
      await replaceFile(this.#path, JSON.stringify(this.current));
      syncFile(this.#path).catch(() => {});
    } catch (error) {
      // With a full disk the host can still say so and end in order; it only could not survive a crash now.
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
      console.error(`cannot keep the state of the attempt: ${String(error)}`);
    }
  }

  /** Numbers a report and keeps it until the service has acknowledged it. */
  report(report: NewReport, change: (state: AttemptState) => void = () => {}): Promise<void> {
    return this.update((state) => {
      state.reports.push({ ...report, seq: state.nextReportSeq, at: Date.now() } as HostReport);
      state.nextReportSeq += 1;
      change(state);
    });
  }

  /** Goes to a phase, with whatever belongs to it in the same write. */
  enter(phase: HostPhase, change: (state: AttemptState) => void = () => {}): Promise<void> {
    return this.report({ kind: 'phase', phase, detail: null }, (state) => {
      state.phase = phase;
      change(state);
    });
  }

  notice(code: string, message: string): Promise<void> {
    return this.report({ kind: 'notice', code, message });
  }

  /** Resolves once the state fits, at once when it does already. */
  until(fits: (state: AttemptState) => boolean, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        this.#waiters.delete(look);
        signal?.removeEventListener('abort', aborted);
        settle();
      };
      const look = (): void => {
        if (fits(this.current)) end(resolve);
      };
      const aborted = (): void => end(() => reject(signal!.reason as Error));
      if (signal?.aborted) return reject(signal.reason as Error);
      this.#waiters.add(look);
      signal?.addEventListener('abort', aborted);
      look();
    });
  }
}

/** Null when there is no such file; every file of the agent is written whole, so a damaged one is an error. */
export function readJson<T>(path: string): T | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as T;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
