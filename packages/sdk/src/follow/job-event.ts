import type { SecondaryStatus, TrainingJobStatus } from '@trainyard/api';

interface EventBase {
  /** Place in the job's stream; null when the service has no stream of its own. */
  id: string | null;
  /** Epoch milliseconds; for a `status` the time at which it was read. */
  at: number;
}

/** What happens to a job, in the order in which the service saw it. Lines of one host keep their order. */
export type TrainingJobEvent =
  | ({ type: 'transition'; status: SecondaryStatus; message: string } & EventBase)
  | ({
      type: 'status';
      status: TrainingJobStatus;
      secondaryStatus: SecondaryStatus;
      /** Counted from 1; null where the service does not say. */
      attempt: number | null;
      /** Why the job has no hosts yet: position, blocking resource, who holds it. */
      waitReason: string | null;
      failureReason: string | null;
    } & EventBase)
  | ({
      type: 'log';
      host: string;
      /** Null for launcher and agent, and where the service does not say. */
      rank: number | null;
      source: 'stdout' | 'stderr' | 'agent' | null;
      message: string;
    } & EventBase)
  | ({ type: 'metric'; name: string; value: number; host: string | null; rank: number | null } & EventBase)
  /** Something to know about how the job runs here: a missing accelerator, an ignored member. */
  | ({ type: 'notice'; code: string; message: string; host: string | null } & EventBase);

/** Members by event type: absent ones become null, others are the service's own and are left out. */
const MEMBERS: Readonly<Record<TrainingJobEvent['type'], readonly string[]>> = {
  transition: ['status', 'message'],
  status: ['status', 'secondaryStatus', 'attempt', 'waitReason', 'failureReason'],
  log: ['host', 'rank', 'source', 'message'],
  metric: ['name', 'value', 'host', 'rank'],
  notice: ['code', 'message', 'host'],
};

/**
 * Reads one server-sent event of a service; one without a time gets the present.
 * @returns null for a type of a newer service.
 */
export function parseJobEvent(type: string, id: string | null, data: string): TrainingJobEvent | null {
  if (!Object.hasOwn(MEMBERS, type)) return null;
  const sent = JSON.parse(data) as Record<string, unknown>;
  const members = MEMBERS[type as TrainingJobEvent['type']].map((name) => [name, sent[name] ?? null]);
  const at = sent['at'] ?? sent['startedAt'] ?? Date.now();
  // The service's word is taken for the members that every version sends.
  return { type, id, at, ...Object.fromEntries(members) } as TrainingJobEvent;
}

export function isTerminal(status: TrainingJobStatus): boolean {
  return status === 'Completed' || status === 'Failed' || status === 'Stopped';
}
