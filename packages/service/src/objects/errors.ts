/** Spelled as S3 spells them, so that they reach clients unchanged. */
export type ObjectStoreErrorCode =
  | 'BadDigest'
  | 'BucketAlreadyOwnedByYou'
  | 'BucketNotEmpty'
  | 'EntityTooSmall'
  | 'InsufficientStorage'
  | 'InvalidArgument'
  | 'InvalidBucketName'
  | 'InvalidPart'
  | 'InvalidPartOrder'
  | 'InvalidRequest'
  | 'KeyTooLongError'
  | 'NoSuchBucket'
  | 'NoSuchKey'
  | 'NoSuchUpload'
  | 'PreconditionFailed';

/** A refusal of the object store. Everything else that it throws is a fault of the machine or ours. */
export class ObjectStoreError extends Error {
  override readonly name = 'ObjectStoreError';
  readonly code: ObjectStoreErrorCode;
  /** What S3 shows as elements of the error beside its message. */
  readonly data: Readonly<Record<string, string | number>>;

  constructor(
    code: ObjectStoreErrorCode,
    message: string,
    data: Readonly<Record<string, string | number>> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.code = code;
    this.data = data;
  }
}

const SQLITE_FULL = 13;

/** Turns "the disk is full", from a file or from SQLite, into a refusal; other errors come back as they are. */
export function withDiskFull(error: unknown): unknown {
  const { code, errcode } = (error ?? {}) as { code?: unknown; errcode?: unknown };
  if (code !== 'ENOSPC' && code !== 'EDQUOT' && errcode !== SQLITE_FULL) return error;
  return new ObjectStoreError(
    'InsufficientStorage',
    'The disk that holds the objects is full; nothing was stored. Delete objects, free disk space or move the data directory, then repeat the request.',
    {},
    { cause: error },
  );
}
