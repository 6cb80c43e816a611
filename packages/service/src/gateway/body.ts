import type { IncomingMessage } from 'node:http';
import { jsonError } from '@trainyard/api';

/** How long the body of a call without streaming may take. */
const BODY_TIMEOUT_MS = 30_000;

/** Refuses a body whose announced size is too large, before a byte of it is read. */
export function refuseLargeBody(request: IncomingMessage, limitBytes: number): void {
  const announced = Number(request.headers['content-length'] ?? 0);
  if (announced > limitBytes) throw tooLarge(announced, limitBytes);
}

/**
 * Reads a whole body.
 *
 * @throws ServiceError RequestEntityTooLargeException at the first byte too many, RequestTimeoutException after
 * 30 s, RequestAbortedException when the client goes away
 */
export function readBody(request: IncomingMessage, limitBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    const timer = setTimeout(
      () =>
        finish(() =>
          reject(
            jsonError('RequestTimeoutException', {
              message: `The body did not arrive within ${BODY_TIMEOUT_MS / 1000} s.`,
            }),
          ),
        ),
      BODY_TIMEOUT_MS,
    );
    const onData = (chunk: Buffer): void => {
      sizeBytes += chunk.length;
      if (sizeBytes > limitBytes) finish(() => reject(tooLarge(sizeBytes, limitBytes)));
      else chunks.push(chunk);
    };
    const onEnd = (): void => finish(() => resolve(Buffer.concat(chunks)));
    const onGone = (): void =>
      finish(() =>
        reject(
          jsonError('RequestAbortedException', { message: 'The connection ended before the body did.' }),
        ),
      );
    const finish = (settle: () => void): void => {
      clearTimeout(timer);
      request.off('data', onData).off('end', onEnd).off('error', onGone).off('close', onGone);
      settle();
    };
    request.on('data', onData).on('end', onEnd).on('error', onGone).on('close', onGone);
  });
}

const tooLarge = (sizeBytes: number, limitBytes: number) =>
  jsonError('RequestEntityTooLargeException', {
    message: `The body has ${sizeBytes} bytes or more; at most ${limitBytes} are accepted.`,
    sizeBytes,
    limitBytes,
  });
