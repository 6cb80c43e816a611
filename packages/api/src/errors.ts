/** Who has to act on an error. */
export type Actor = 'caller' | 'operator' | 'author' | 'us';

export interface CatalogueEntry {
  status: number;
  actor: Actor;
  /** `{field}` is replaced by the data of that name. */
  message: string;
  /** Public page that describes the code. */
  docs: string;
}

const COMMON = 'https://docs.aws.amazon.com/sagemaker/latest/APIReference/CommonErrors.html';
const CREATE = 'https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html';
const DESCRIBE = 'https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html';
const LOGS = 'https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html';
const LOGS_COMMON = 'https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/CommonErrors.html';
const STS = 'https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html';
const S3 = 'https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html';

const json = {
  ValidationException: { status: 400, actor: 'caller', message: '{message}', docs: COMMON },
  SerializationException: { status: 400, actor: 'caller', message: '{message}', docs: COMMON },
  ResourceNotFound: { status: 400, actor: 'caller', message: '{message}', docs: DESCRIBE },
  ResourceInUse: { status: 400, actor: 'caller', message: '{message}', docs: CREATE },
  ResourceLimitExceeded: { status: 400, actor: 'caller', message: '{message}', docs: CREATE },
  ConflictException: { status: 400, actor: 'caller', message: '{message}', docs: COMMON },
  ThrottlingException: { status: 400, actor: 'caller', message: 'Rate exceeded', docs: COMMON },
  AccessDeniedException: { status: 403, actor: 'caller', message: '{message}', docs: COMMON },
  UnrecognizedClientException: {
    status: 403,
    actor: 'caller',
    message: 'The security token included in the request is invalid.',
    docs: COMMON,
  },
  InvalidSignatureException: { status: 403, actor: 'caller', message: '{message}', docs: COMMON },
  IncompleteSignatureException: { status: 403, actor: 'caller', message: '{message}', docs: COMMON },
  MissingAuthenticationTokenException: {
    status: 403,
    actor: 'caller',
    message: 'Missing Authentication Token',
    docs: COMMON,
  },
  ExpiredTokenException: {
    status: 403,
    actor: 'caller',
    message: 'The security token included in the request is expired',
    docs: COMMON,
  },
  UnknownOperationException: { status: 404, actor: 'caller', message: '{message}', docs: COMMON },
  RequestEntityTooLargeException: { status: 413, actor: 'caller', message: '{message}', docs: COMMON },
  RequestTimeoutException: { status: 408, actor: 'caller', message: '{message}', docs: COMMON },
  RequestAbortedException: { status: 400, actor: 'caller', message: '{message}', docs: COMMON },
  MalformedHttpRequestException: { status: 400, actor: 'caller', message: '{message}', docs: COMMON },
  OptInRequired: { status: 403, actor: 'caller', message: '{message}', docs: COMMON },
  NotAuthorized: { status: 401, actor: 'caller', message: '{message}', docs: COMMON },
  InternalFailure: {
    status: 500,
    actor: 'us',
    message:
      'The request failed because of an internal error. Try again; if it stays, see the log of the service.',
    docs: COMMON,
  },
  ServiceUnavailable: { status: 503, actor: 'operator', message: '{message}', docs: COMMON },
  InvalidParameterException: { status: 400, actor: 'caller', message: '{message}', docs: LOGS },
  ResourceNotFoundException: { status: 400, actor: 'caller', message: '{message}', docs: LOGS },
  ResourceAlreadyExistsException: { status: 400, actor: 'caller', message: '{message}', docs: LOGS },
  LimitExceededException: { status: 400, actor: 'caller', message: '{message}', docs: LOGS },
  OperationAbortedException: { status: 400, actor: 'caller', message: '{message}', docs: LOGS_COMMON },
  ServiceUnavailableException: { status: 503, actor: 'operator', message: '{message}', docs: LOGS },
} as const satisfies Record<string, CatalogueEntry>;

const query = {
  ValidationError: { status: 400, actor: 'caller', message: '{message}', docs: STS },
  InvalidAction: {
    status: 400,
    actor: 'caller',
    message: 'Could not find operation {operation} for version {version}',
    docs: STS,
  },
  MissingAction: {
    status: 400,
    actor: 'caller',
    message: 'Missing Action: name the operation in the form body',
    docs: STS,
  },
  MalformedInput: { status: 400, actor: 'caller', message: '{message}', docs: STS },
  AccessDenied: { status: 403, actor: 'caller', message: '{message}', docs: STS },
  InvalidClientTokenId: {
    status: 403,
    actor: 'caller',
    message: 'The security token included in the request is invalid.',
    docs: STS,
  },
  SignatureDoesNotMatch: { status: 403, actor: 'caller', message: '{message}', docs: STS },
  IncompleteSignature: { status: 400, actor: 'caller', message: '{message}', docs: STS },
  MissingAuthenticationToken: {
    status: 403,
    actor: 'caller',
    message: 'Missing Authentication Token',
    docs: STS,
  },
  ExpiredToken: {
    status: 403,
    actor: 'caller',
    message: 'The security token included in the request is expired',
    docs: STS,
  },
  NoSuchEntity: {
    status: 404,
    actor: 'caller',
    message: '{message}',
    docs: 'https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRole.html',
  },
  Throttling: { status: 400, actor: 'caller', message: 'Rate exceeded', docs: STS },
  InternalFailure: {
    status: 500,
    actor: 'us',
    message:
      'The request failed because of an internal error. Try again; if it stays, see the log of the service.',
    docs: STS,
  },
  ServiceUnavailable: { status: 503, actor: 'operator', message: '{message}', docs: STS },
} as const satisfies Record<string, CatalogueEntry>;

const s3Entry = <S extends number, A extends Actor, M extends string>(status: S, actor: A, message: M) => ({
  status,
  actor,
  message,
  docs: S3,
});

const s3 = {
  NoSuchBucket: s3Entry(404, 'caller', 'The specified bucket does not exist'),
  NoSuchKey: s3Entry(404, 'caller', 'The specified key does not exist.'),
  NoSuchUpload: s3Entry(
    404,
    'caller',
    'The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.',
  ),
  BucketAlreadyOwnedByYou: s3Entry(
    409,
    'caller',
    'Your previous request to create the named bucket succeeded and you already own it.',
  ),
  BucketAlreadyExists: s3Entry(
    409,
    'caller',
    'The requested bucket name is not available. Select a different name and try again.',
  ),
  BucketNotEmpty: s3Entry(409, 'caller', 'The bucket you tried to delete is not empty'),
  OperationAborted: s3Entry(
    409,
    'caller',
    'A conflicting conditional operation is currently in progress against this resource. Try again.',
  ),
  AccessDenied: s3Entry(403, 'caller', '{message}'),
  SignatureDoesNotMatch: s3Entry(
    403,
    'caller',
    'The request signature we calculated does not match the signature you provided. Check your key and signing method.',
  ),
  InvalidAccessKeyId: s3Entry(
    403,
    'caller',
    'The AWS Access Key Id you provided does not exist in our records.',
  ),
  InvalidToken: s3Entry(400, 'caller', 'The provided token is malformed or otherwise invalid.'),
  ExpiredToken: s3Entry(400, 'caller', 'The provided token has expired.'),
  RequestTimeTooSkewed: s3Entry(
    403,
    'caller',
    'The difference between the request time and the current time is too large.',
  ),
  PreconditionFailed: s3Entry(412, 'caller', 'At least one of the pre-conditions you specified did not hold'),
  InvalidRange: s3Entry(416, 'caller', 'The requested range is not satisfiable'),
  BadDigest: s3Entry(400, 'caller', '{message}'),
  InvalidDigest: s3Entry(400, 'caller', 'The Content-MD5 you specified was invalid.'),
  XAmzContentSHA256Mismatch: s3Entry(
    400,
    'caller',
    "The provided 'x-amz-content-sha256' header does not match what was computed.",
  ),
  IncompleteBody: s3Entry(
    400,
    'caller',
    'You did not provide the number of bytes specified by the Content-Length HTTP header.',
  ),
  InvalidArgument: s3Entry(400, 'caller', '{message}'),
  InvalidRequest: s3Entry(400, 'caller', '{message}'),
  MalformedXML: s3Entry(
    400,
    'caller',
    'The XML you provided was not well-formed or did not validate against our published schema',
  ),
  InvalidBucketName: s3Entry(400, 'caller', 'The specified bucket is not valid.'),
  KeyTooLongError: s3Entry(400, 'caller', 'Your key is too long'),
  MetadataTooLarge: s3Entry(400, 'caller', 'Your metadata headers exceed the maximum allowed metadata size'),
  EntityTooLarge: s3Entry(400, 'caller', 'Your proposed upload exceeds the maximum allowed size'),
  EntityTooSmall: s3Entry(400, 'caller', 'Your proposed upload is smaller than the minimum allowed size'),
  InvalidPart: s3Entry(
    400,
    'caller',
    "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.",
  ),
  InvalidPartOrder: s3Entry(
    400,
    'caller',
    'The list of parts was not in ascending order. Parts must be ordered by part number.',
  ),
  TooManyParts: s3Entry(400, 'caller', 'An upload has at most 10000 parts; part number {part} is above.'),
  AuthorizationHeaderMalformed: s3Entry(400, 'caller', '{message}'),
  AuthorizationQueryParametersError: s3Entry(400, 'caller', '{message}'),
  RequestTimeout: s3Entry(
    400,
    'caller',
    'Your socket connection to the server was not read from or written to within the timeout period.',
  ),
  MissingContentLength: s3Entry(411, 'caller', 'You must provide the Content-Length HTTP header.'),
  MethodNotAllowed: s3Entry(405, 'caller', 'The specified method is not allowed against this resource.'),
  NotImplemented: s3Entry(501, 'caller', '{message}'),
  SlowDown: s3Entry(503, 'operator', 'Please reduce your request rate.'),
  ServiceUnavailable: s3Entry(503, 'operator', '{message}'),
  InternalError: s3Entry(500, 'us', 'We encountered an internal error. Please try again.'),
} as const;

/** Errors that arise on this side of the wire: no service sent them. */
const client = {
  ConnectionFailed: {
    status: 0,
    actor: 'operator',
    message: '{message}',
    docs: 'https://fetch.spec.whatwg.org/#concept-network-error',
  },
  InvalidResponse: {
    status: 0,
    actor: 'operator',
    message: '{message}',
    docs: 'https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html',
  },
} as const satisfies Record<string, CatalogueEntry>;

/** Every code, by the protocol whose form it takes: one code may have another status in another protocol. */
export const ERROR_CATALOGUE = { json, query, s3, client } as const;

export type ErrorProtocol = keyof typeof ERROR_CATALOGUE;
export type JsonErrorCode = keyof typeof json;
export type QueryErrorCode = keyof typeof query;
export type S3ErrorCode = keyof typeof s3;
export type ClientErrorCode = keyof typeof client;

/** Fields for the message template and for programs that read the error. */
export type ErrorData = Readonly<Record<string, unknown>>;

export interface ServiceErrorInit {
  code: string;
  status: number;
  actor: Actor;
  message: string;
  data?: ErrorData;
  cause?: unknown;
}

/** An error in wire form, made by a service or read from its answer. Match on `code`, never on the message. */
export class ServiceError extends Error {
  override readonly name = 'ServiceError';
  /** As on the wire, without namespace: `ValidationException`, `NoSuchKey`. */
  readonly code: string;
  /** HTTP status; 0 when no answer came. */
  readonly status: number;
  readonly actor: Actor;
  readonly data: ErrorData;

  constructor(init: ServiceErrorInit) {
    super(init.message, init.cause === undefined ? undefined : { cause: init.cause });
    this.code = init.code;
    this.status = init.status;
    this.actor = init.actor;
    this.data = init.data ?? {};
  }
}

/** Narrows by code: `isServiceError(error, 'NoSuchKey', 'NoSuchBucket')`; without codes, any ServiceError. */
export function isServiceError(error: unknown, ...codes: readonly string[]): error is ServiceError {
  return error instanceof ServiceError && (codes.length === 0 || codes.includes(error.code));
}

/** @throws Error when the template needs a field that `data` lacks. */
function make(entry: CatalogueEntry, code: string, data: ErrorData, cause?: unknown): ServiceError {
  const message = entry.message.replace(/\{(\w+)\}/g, (_, field: string) => {
    if (data[field] === undefined)
      throw new Error(`error ${code} needs the field "${field}" for its message`);
    return String(data[field]);
  });
  return new ServiceError({ code, status: entry.status, actor: entry.actor, message, data, cause });
}

/** `message` in `data` replaces a fixed message. */
const withMessage = (entry: CatalogueEntry, data: ErrorData): CatalogueEntry =>
  typeof data.message === 'string' ? { ...entry, message: '{message}' } : entry;

/** Error of a JSON service (sagemaker, logs, monitoring): `jsonError('ValidationException', { message: '…' })`. */
export function jsonError(code: JsonErrorCode, data: ErrorData = {}, cause?: unknown): ServiceError {
  return make(withMessage(json[code], data), code, data, cause);
}

/** Error of a query service (sts, iam). */
export function queryError(code: QueryErrorCode, data: ErrorData = {}, cause?: unknown): ServiceError {
  return make(withMessage(query[code], data), code, data, cause);
}

/** Error of S3: `s3Error('NoSuchKey', { Key: key })`. */
export function s3Error(code: S3ErrorCode, data: ErrorData = {}, cause?: unknown): ServiceError {
  return make(withMessage(s3[code], data), code, data, cause);
}

/** Error that arose before or instead of an answer. */
export function clientError(
  code: ClientErrorCode,
  data: ErrorData & { message: string },
  cause?: unknown,
): ServiceError {
  return make(client[code], code, data, cause);
}

/** An error as a client read it from an answer. Codes outside the catalogue are kept: the caller acts on 4xx, the operator on 5xx. */
export function errorFromCode(
  protocol: Exclude<ErrorProtocol, 'client'>,
  code: string,
  status: number,
  message: string,
  data: ErrorData = {},
): ServiceError {
  const catalogue: Readonly<Record<string, CatalogueEntry>> = ERROR_CATALOGUE[protocol];
  const entry = Object.hasOwn(catalogue, code) ? catalogue[code] : undefined;
  const actor = entry?.actor ?? (status >= 500 ? 'operator' : 'caller');
  return new ServiceError({ code, status, actor, message: message || `${code} (status ${status})`, data });
}
