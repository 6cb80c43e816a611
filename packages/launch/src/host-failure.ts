import type { FailureClass } from '@trainyard/api';

/**
 * This host cannot do its part outside the script: data, code, requirements, upload. Becomes the report `failed`;
 * class and message are the start of the job's FailureReason.
 */
export class HostFailure extends Error {
  override readonly name = 'HostFailure';
  readonly failureClass: FailureClass;

  constructor(failureClass: FailureClass, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.failureClass = failureClass;
  }
}

/** Anything thrown as a HostFailure; what nobody foresaw is ours to answer for. */
export function asHostFailure(error: unknown): HostFailure {
  if (error instanceof HostFailure) return error;
  if ((error as NodeJS.ErrnoException | null)?.code === 'ENOSPC') {
    return new HostFailure(
      'ClientError',
      `No space left on the disk of this host. ${(error as Error).message}`,
      error,
    );
  }
  const text = error instanceof Error ? error.message : String(error);
  return new HostFailure('InternalServerError', `The agent of this host failed: ${text}`, error);
}
