import { jsonError, queryError, type S3ErrorCode, type ServiceError, s3Error } from './errors.ts';
import type { JsonErrorCode, QueryErrorCode } from './errors.ts';
import type { SignatureFailure, SignatureFailureReason } from './sigv4/raw-request.ts';

/** Which error each protocol has for a failure. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html */
const CODES: Readonly<
  Record<SignatureFailureReason, { json: JsonErrorCode; query: QueryErrorCode; s3: S3ErrorCode }>
> = {
  missing: {
    json: 'MissingAuthenticationTokenException',
    query: 'MissingAuthenticationToken',
    s3: 'AccessDenied',
  },
  ambiguous: { json: 'IncompleteSignatureException', query: 'IncompleteSignature', s3: 'InvalidArgument' },
  malformed: {
    json: 'IncompleteSignatureException',
    query: 'IncompleteSignature',
    s3: 'AuthorizationHeaderMalformed',
  },
  unsupported: { json: 'IncompleteSignatureException', query: 'IncompleteSignature', s3: 'NotImplemented' },
  wrong_service: {
    json: 'InvalidSignatureException',
    query: 'SignatureDoesNotMatch',
    s3: 'AuthorizationHeaderMalformed',
  },
  wrong_region: {
    json: 'InvalidSignatureException',
    query: 'SignatureDoesNotMatch',
    s3: 'AuthorizationHeaderMalformed',
  },
  unknown_key: {
    json: 'UnrecognizedClientException',
    query: 'InvalidClientTokenId',
    s3: 'InvalidAccessKeyId',
  },
  invalid_token: { json: 'UnrecognizedClientException', query: 'InvalidClientTokenId', s3: 'InvalidToken' },
  expired_token: { json: 'ExpiredTokenException', query: 'ExpiredToken', s3: 'ExpiredToken' },
  skewed_past: {
    json: 'InvalidSignatureException',
    query: 'SignatureDoesNotMatch',
    s3: 'RequestTimeTooSkewed',
  },
  skewed_future: {
    json: 'InvalidSignatureException',
    query: 'SignatureDoesNotMatch',
    s3: 'RequestTimeTooSkewed',
  },
  expired: { json: 'InvalidSignatureException', query: 'SignatureDoesNotMatch', s3: 'AccessDenied' },
  unsigned_header: { json: 'InvalidSignatureException', query: 'SignatureDoesNotMatch', s3: 'AccessDenied' },
  bad_signature: {
    json: 'InvalidSignatureException',
    query: 'SignatureDoesNotMatch',
    s3: 'SignatureDoesNotMatch',
  },
  body_mismatch: {
    json: 'InvalidSignatureException',
    query: 'SignatureDoesNotMatch',
    s3: 'XAmzContentSHA256Mismatch',
  },
};

/** Reasons whose fixed message in the catalogue is AWS's own; all others carry the failure's message. */
const FIXED: ReadonlySet<SignatureFailureReason> = new Set(['unknown_key', 'invalid_token', 'expired_token']);

/**
 * The error that a protocol has for a failed verification. S3 tells malformed query parameters from a malformed
 * header, so that `inQuery` matters there.
 */
export function signatureError(
  failure: SignatureFailure,
  protocol: 'json' | 'query' | 's3',
  { inQuery = false }: { inQuery?: boolean } = {},
): ServiceError {
  const codes = CODES[failure.reason];
  const data = {
    ...failure.data,
    reason: failure.reason,
    ...(FIXED.has(failure.reason) ? {} : { message: failure.message }),
  };
  if (protocol === 'json') return jsonError(codes.json, data);
  if (protocol === 'query') return queryError(codes.query, data);
  const isQueryForm = inQuery && codes.s3 === 'AuthorizationHeaderMalformed';
  return s3Error(isQueryForm ? 'AuthorizationQueryParametersError' : codes.s3, data);
}
