import { clientError } from '../errors.ts';

/**
 * A body that survives broken connections: what was received is kept, the rest is asked for by Range with
 * `If-Match`, so that parts of two versions of an object are never joined.
 *
 * @param ask opens the object from this byte of the body on; must throw when the object changed.
 */
export function resumableBody(
  first: ReadableStream<Uint8Array> | null,
  totalBytes: number,
  ask: (offset: number) => Promise<ReadableStream<Uint8Array> | null>,
  maxFailures: number,
  where: string,
  signal?: AbortSignal,
): ReadableStream<Uint8Array> {
  let reader = first?.getReader();
  let received = 0;
  /** In a row, without a byte in between. */
  let failures = 0;

  const breaks = async (cause: unknown) => {
    signal?.throwIfAborted();
    if (++failures >= maxFailures) {
      const message = `The connection broke ${failures} times at byte ${received} of ${totalBytes} of ${where}`;
      throw clientError('ConnectionFailed', { message, received, totalBytes }, cause);
    }
    reader = (await ask(received))?.getReader();
  };
  const pull = async (controller: ReadableStreamDefaultController<Uint8Array>) => {
    for (;;) {
      let chunk: ReadableStreamReadResult<Uint8Array> | undefined;
      let broken: unknown;
      try {
        chunk = await reader?.read();
      } catch (error) {
        broken = error;
      }
      if (chunk && !chunk.done) {
        if (chunk.value.byteLength === 0) continue;
        received += chunk.value.byteLength;
        failures = 0;
        if (received > totalBytes)
          throw new RangeError(`${where} sent more than the ${totalBytes} bytes it announced`);
        controller.enqueue(chunk.value);
        if (received === totalBytes) controller.close();
        return;
      }
      if (received === totalBytes) return controller.close();
      await breaks(broken);
    }
  };
  return new ReadableStream<Uint8Array>(
    { pull, cancel: (reason) => reader?.cancel(reason) },
    { highWaterMark: 0 },
  );
}
