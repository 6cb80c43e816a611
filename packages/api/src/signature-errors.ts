import type { ErrorProtocol, ServiceError } from './errors.ts';
import type { SignatureFailure } from './sigv4/raw-request.ts';

/** The error that each protocol has for a failed verification. */
export function signatureError(
  _failure: SignatureFailure,
  _protocol: Exclude<ErrorProtocol, 'client'>,
): ServiceError {
  throw new Error('follows');
}
