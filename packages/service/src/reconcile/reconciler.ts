import type { Job } from '../store/job-store.ts';
import type { JobStore } from '../store/job-store.ts';
import { HOLDS_HOSTS } from '../jobs/lifecycle.ts';
import { place } from '../placement/placement.ts';
import type { StepContext } from './steps.ts';
import { step } from './steps.ts';

const LEASE_MS = 60_000;
/** How often hosts are looked at when nobody reports anything. */
const TICK_MS = 500;

export interface ReconcilerOptions extends Omit<StepContext, 'placed' | 'waitReason'> {
  jobs: JobStore;
  hostLimit: number;
  /** Identifies this process; a lease of another owner is respected until it ends. */
  owner: string;
  /** Called for errors that no step expected; the job is tried again at the next tick. */
  onError: (job: string, error: unknown) => void;
}

/**
 * The loop that moves jobs: load, act, apply. It is the only writer of job state and the only caller of
 * executors. Every step may be repeated: it reads what is stored, does at most one slow thing under a lease, and
 * applies the result only if the job is still what it was. A killed service goes on where the stored stage says.
 */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #busy = new Map<string, Promise<void>>();
  readonly #again = new Set<string>();
  #timer: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => this.wake(), TICK_MS);
    this.wake();
  }

  /** Ends the loop after the steps under way; used by tests and by the idle exit. A crash is as good. */
  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#timer) clearInterval(this.#timer);
    while (this.#busy.size > 0) await Promise.allSettled(this.#busy.values());
  }

  /** Something changed: look at every open job now. */
  wake(): void {
    if (this.#stopped) return;
    const open = this.#options.jobs.open();
    const queue = open.filter((job) => job.stage === 'queued' && job.endReason === null);
    const holders = open.filter((job) => HOLDS_HOSTS[job.stage]);
    const size = (job: Job): { name: string; instanceCount: number } => ({
      name: job.name,
      instanceCount: job.spec.instanceCount,
    });
    const placement = place(this.#options.hostLimit, queue.map(size), holders.map(size));
    for (const job of open) {
      const waitReason = placement.waiting.find((waiting) => waiting.name === job.name)?.reason ?? null;
      this.#run(job.name, placement.placed.includes(job.name), waitReason);
    }
  }

  #run(name: string, placed: boolean, waitReason: string | null): void {
    if (this.#busy.has(name)) {
      this.#again.add(name);
      return;
    }
    const work = this.#step(name, placed, waitReason)
      .catch((error: unknown) => this.#options.onError(name, error))
      .then((moved) => {
        this.#busy.delete(name);
        const again = this.#again.delete(name);
        if (moved === true || again) setImmediate(() => this.wake());
      });
    this.#busy.set(name, work);
  }

  /** @returns whether the job changed, so that others may be placed or the next step taken at once */
  async #step(name: string, placed: boolean, waitReason: string | null): Promise<boolean> {
    const { jobs, owner } = this.#options;
    const job = jobs.get(name);
    if (!job || job.stage === 'done') return false;
    if (!jobs.lease(name, owner, LEASE_MS)) return false;
    try {
      return await step(job, { ...this.#options, placed, waitReason });
    } finally {
      jobs.release(name, owner);
    }
  }
}
