/**
 * Gang placement over the local hosts, first come first served: all hosts of a job or none, and no job overtakes
 * an older one, so a large job cannot starve behind small ones.
 */
export interface Waiting {
  name: string;
  instanceCount: number;
}

export interface Holding {
  name: string;
  instanceCount: number;
}

export interface Placement {
  /** Jobs that get their hosts now, in order. */
  placed: string[];
  /** Why each other job waits, as a person can act on it. */
  waiting: { name: string; reason: string }[];
}

/**
 * @param hostLimit hosts that this machine offers
 * @param queue waiting jobs, oldest first
 * @param holders jobs that hold hosts now
 */
export function place(hostLimit: number, queue: readonly Waiting[], holders: readonly Holding[]): Placement {
  const held = holders.reduce((sum, job) => sum + job.instanceCount, 0);
  let free = hostLimit - held;
  const placed: Waiting[] = [];
  const waiting: Placement['waiting'] = [];
  let blocker: Waiting | null = null;
  for (const job of queue) {
    if (blocker === null && job.instanceCount <= free) {
      free -= job.instanceCount;
      placed.push(job);
      continue;
    }
    blocker ??= job;
    const users = [...holders, ...placed].map((user) => `${user.name} (${user.instanceCount})`).join(', ');
    const first = waiting.length === 0;
    waiting.push({
      name: job.name,
      reason: first
        ? `Waiting for ${hosts(job.instanceCount)}: ${free} of ${hostLimit} free; held by ${users}`
        : `Waiting for ${hosts(job.instanceCount)}: position ${waiting.length + 1} in the queue, behind ${waiting[waiting.length - 1]!.name}; ${free} of ${hostLimit} free; held by ${users}`,
    });
  }
  return { placed: placed.map((job) => job.name), waiting };
}

function hosts(count: number): string {
  return count === 1 ? '1 host' : `${count} hosts`;
}
