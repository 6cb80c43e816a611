import type { SecondaryStatus, TrainingJobStatus } from '@trainyard/api';

interface EventBase {
  /** Place in the job's stream; null when the service has no stream of its own. */
  id: string | null;
  /** Epoch milliseconds. */
  at: number;
}

/** What happens to a job, in the order in which the service saw it. Lines of one host keep their order. */
export type TrainingJobEvent =
  | ({ type: 'transition'; status: SecondaryStatus; message: string } & EventBase)
  | ({
      type: 'status';
      status: TrainingJobStatus;
      secondaryStatus: SecondaryStatus;
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

/** Reads one server-sent event. @returns null for a type of a newer service. */
export function parseJobEvent(type: string, id: string | null, data: string): TrainingJobEvent | null {
  if (!isKnown(type)) return null;
  const fields = JSON.parse(data) as Partial<Record<'host' | 'rank' | 'source' | 'failureReason', never>>;
  const { host = null, rank = null, source = null, failureReason = null } = fields;
  // The service's own word is taken for the members that every version sends.
  return { ...fields, host, rank, source, failureReason, type, id } as unknown as TrainingJobEvent;
}

function isKnown(type: string): type is TrainingJobEvent['type'] {
  return ['transition', 'status', 'log', 'metric', 'notice'].includes(type);
}

export function isTerminal(status: TrainingJobStatus): boolean {
  return status === 'Completed' || status === 'Failed' || status === 'Stopped';
}
