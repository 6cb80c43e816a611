import { formatDuration } from './duration.ts';

export interface Phase {
  /** Secondary status as SageMaker spells it: `Starting`, `Downloading`, `Training`, `Uploading`, `Completed`… */
  name: string;
  /** Epoch milliseconds. */
  startedAt: number;
}

const LAST = new Set(['Completed', 'Failed', 'Stopped', 'MaxRuntimeExceeded', 'MaxWaitTimeExceeded']);

/** The phases of a job in their order, as the service told them. */
export class Phases {
  readonly all: Phase[] = [];

  get current(): Phase | null {
    return this.all.at(-1) ?? null;
  }

  /** @returns false for one that is known already: told again after a reconnection, or with another message */
  add(phase: Phase): boolean {
    const isKnown = this.all.some(
      ({ name, startedAt }) => name === phase.name && startedAt === phase.startedAt,
    );
    if (isKnown || this.current?.name === phase.name) return false;
    this.all.push(phase);
    return true;
  }

  /** Milliseconds since the first phase began. */
  elapsedMs(now: number): number {
    const [first] = this.all;
    return first ? now - first.startedAt : 0;
  }

  /** `Starting 0.3 s, Downloading 0.1 s, Training 4.2 s`: each phase that something came after. */
  summary(): string {
    return this.all
      .flatMap((phase, index) => {
        const next = this.all[index + 1];
        return next ? [`${phase.name} ${formatDuration(next.startedAt - phase.startedAt)}`] : [];
      })
      .join(', ');
  }

  get isOver(): boolean {
    return LAST.has(this.current?.name ?? '');
  }
}
