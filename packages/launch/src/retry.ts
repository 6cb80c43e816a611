import { setTimeout as sleep } from 'node:timers/promises';

const FIRST_DELAY_MS = 50;
const MAX_DELAY_MS = 2000;

export interface RetryOptions {
  signal?: AbortSignal;
  /** True for an error that another try cannot heal; it is thrown. */
  isFinal: (error: unknown) => boolean;
  /** Once, when the first try failed. */
  onTrouble?: (error: unknown) => void;
}

/**
 * Tries until it works: the service may be away for hours while ranks train on. Full jitter keeps the hosts of
 * a large job from coming back in step.
 */
export async function retryForever<T>(work: () => Promise<T>, options: RetryOptions): Promise<T> {
  for (let attempt = 0; ; attempt += 1) {
    options.signal?.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (options.isFinal(error) || options.signal?.aborted) throw error;
      if (attempt === 0) options.onTrouble?.(error);
      const ceiling = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
      await sleep(ceiling * (0.5 + Math.random() / 2), undefined, { signal: options.signal });
    }
  }
}
