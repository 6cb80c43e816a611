import { type CatalogueEntry, ERROR_CATALOGUE, ServiceError } from '@trainyard/api';
import { ObjectStoreError, type ObjectStoreErrorCode } from '../../objects/errors.ts';

const DOCS = 'https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html';

/** Codes that only the embedded S3 sends, beside those of the catalogue. */
const OWN_ERRORS = {
  AccessControlListNotSupported: {
    status: 400,
    actor: 'caller',
    message: 'The bucket does not allow ACLs',
    docs: DOCS,
  },
  // S3 itself never runs full. 507 says what happened, and clients do not repeat it as they do 500 and 503.
  InsufficientStorage: {
    status: 507,
    actor: 'operator',
    message: 'The disk that holds the objects is full; nothing was stored.',
    docs: 'https://www.rfc-editor.org/rfc/rfc4918#section-11.5',
  },
  InvalidPartNumber: {
    status: 416,
    actor: 'caller',
    message: 'The requested partnumber is not satisfiable',
    docs: DOCS,
  },
  InvalidStorageClass: {
    status: 400,
    actor: 'caller',
    message: 'The storage class you specified is not valid',
    docs: DOCS,
  },
  InvalidURI: { status: 400, actor: 'caller', message: "Couldn't parse the specified URI.", docs: DOCS },
  MalformedTrailerError: {
    status: 400,
    actor: 'caller',
    message: 'The request contained trailing data that was not well-formed.',
    docs: DOCS,
  },
  MaxMessageLengthExceeded: {
    status: 400,
    actor: 'caller',
    message: 'Your request was too big.',
    docs: DOCS,
  },
  NotModified: { status: 304, actor: 'caller', message: 'Not Modified', docs: DOCS },
} as const satisfies Record<string, CatalogueEntry>;

const S3_ERRORS = { ...ERROR_CATALOGUE.s3, ...OWN_ERRORS } as const satisfies Record<
  ObjectStoreErrorCode,
  CatalogueEntry
>;

export type S3ErrorCode = keyof typeof S3_ERRORS;

/** Elements of the error beside its message: `BucketName`, `Key`… */
export type S3ErrorData = Readonly<Record<string, string | number>>;

/** A refusal in S3's words. */
export class S3Error extends ServiceError {
  /** Sent with the answer: `ETag` of a 304, `Content-Range` of a 416. */
  readonly headers: Readonly<Record<string, string>>;

  /** @param message required where the catalogue has no text of its own */
  constructor(
    code: S3ErrorCode,
    message: string = S3_ERRORS[code].message,
    data: S3ErrorData = {},
    headers: Readonly<Record<string, string>> = {},
  ) {
    const { status, actor } = S3_ERRORS[code];
    super({ code, status, actor, message, data });
    this.headers = headers;
  }
}

/** Null for an error that is no answer to the client but a fault of ours. */
export function asS3Error(error: unknown): S3Error | null {
  if (error instanceof S3Error) return error;
  if (error instanceof ObjectStoreError) return new S3Error(error.code, error.message, error.data);
  return null;
}
