import { setTimeout as sleep } from 'node:timers/promises';
import { isServiceError } from '@trainyard/api';
import { ServiceUnavailable } from '../errors.ts';
import { parseJobEvent } from './job-event.ts';
import type { TrainingJobEvent } from './job-event.ts';
import { readServerSentEvents } from './server-sent-events.ts';

export interface EventSource {
  /** A stream of the job's events after an id. May find another service than before. */
  open(lastEventId: string | null, signal: AbortSignal): Promise<ReadableStream<Uint8Array>>;
}

export interface StreamTimes {
  /** Without a byte for so long the connection counts as lost; the service sends a comment at least every 15 s. */
  silenceMs: number;
  /** First and longest pause before opening again. */
  pauseMs: readonly [number, number];
  /** How long a service may be away before this gives up. */
  patienceMs: number;
}

export const DEFAULT_STREAM_TIMES: StreamTimes = {
  silenceMs: 60_000,
  pauseMs: [50, 2_000],
  patienceMs: 120_000,
};

/**
 * The events of a job up to its end, each once and in order: a dropped stream is opened again after the last event
 * that was read.
 * @throws ServiceUnavailable when no service came back within the patience.
 */
export async function* followStream(
  source: EventSource,
  options: { after: string | null; signal?: AbortSignal | undefined; times?: StreamTimes },
): AsyncGenerator<TrainingJobEvent> {
  const times = options.times ?? DEFAULT_STREAM_TIMES;
  let lastId = options.after;
  let pauseMs = times.pauseMs[0];
  let awaySince: number | null = null;
  for (;;) {
    options.signal?.throwIfAborted();
    const quiet = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, quiet.signal]) : quiet.signal;
    const watchdog = setTimeout(() => quiet.abort(), times.silenceMs);
    let lost: unknown;
    try {
      const stream = await source.open(lastId, signal);
      awaySince = null;
      for await (const event of readServerSentEvents(stream, () => watchdog.refresh())) {
        lastId = event.id ?? lastId;
        pauseMs = times.pauseMs[0];
        if (event.type === 'end') return;
        const parsed = parseJobEvent(event.type, event.id, event.data);
        if (parsed) yield parsed;
      }
    } catch (error) {
      options.signal?.throwIfAborted();
      if (isRefusal(error)) throw error;
      lost = error;
    } finally {
      clearTimeout(watchdog);
      quiet.abort();
    }
    awaySince ??= Date.now();
    if (Date.now() - awaySince > times.patienceMs) {
      if (lost instanceof ServiceUnavailable) throw lost;
      throw new ServiceUnavailable(
        '',
        `The service went away and did not come back within ${times.patienceMs / 1000} s. The job is not affected: follow it again later.`,
        { cause: lost },
      );
    }
    await sleep(pauseMs, undefined, options.signal && { signal: options.signal });
    pauseMs = Math.min(pauseMs * 2, times.pauseMs[1]);
  }
}

/** An answer that will not change by asking again. */
function isRefusal(error: unknown): boolean {
  return isServiceError(error) && error.status >= 400 && error.status < 500;
}
