import type { IncomingMessage, ServerResponse } from 'node:http';

/** Who signed the request. The gateway has verified the signature and the key's expiry. */
export interface S3Principal {
  accessKeyId: string;
  /** Twelve digits; compared to `x-amz-expected-bucket-owner` and shown as the owner of buckets. */
  accountId: string;
}

/** What the chain of chunk signatures of `aws-chunked` starts from. */
export interface ChunkSigningContext {
  /** Signature of the request's headers, 64 lower-case hex digits. */
  seedSignature: string;
  /** `x-amz-date` as signed: `20260131T235959Z`. */
  amzDate: string;
  /** Credential scope: `20260131/us-west-2/s3/aws4_request`. */
  scope: string;
  /** The key derived from the secret for that scope (32 bytes). */
  signingKey: Uint8Array;
}

export interface S3RequestAuth {
  /**
   * Value of `x-amz-content-sha256` as signed: 64 hex digits, `UNSIGNED-PAYLOAD` or one of the `STREAMING-…`
   * values. A presigned URL without it is `UNSIGNED-PAYLOAD`. The handler verifies the body against it.
   */
  payloadHash: string;
  /** Set whenever the request was signed with SigV4 in the Authorization header, null otherwise. */
  chunkSigning: ChunkSigningContext | null;
  /** Signed by query parameters (SigV4 or SigV2); they are no part of the operation. */
  presigned: boolean;
  anonymous: false;
}

/** One S3 request whose sender is known. The body has not been read. */
export interface AuthenticatedS3Request {
  req: IncomingMessage;
  res: ServerResponse;
  /** Path and query exactly as on the request line, no normalisation: keys may contain `..` and `//`. */
  rawTarget: string;
  /** Sent as `x-amz-request-id` and in error bodies. */
  requestId: string;
  principal: S3Principal;
  auth: S3RequestAuth;
  /**
   * True when the client waits for `100 Continue` and the server has not sent it (a `checkContinue` listener
   * took the request). The handler sends it before it reads the body, so a refused upload costs no bytes.
   */
  expectsContinue: boolean;
}

export interface S3Access {
  action: 'list-buckets' | 'create-bucket' | 'delete-bucket' | 'list' | 'read' | 'write' | 'delete';
  /** Null for `list-buckets`. */
  bucket: string | null;
  /** Object key; for `list` the requested prefix; null for operations on a whole bucket. */
  key: string | null;
}

/** Says whether a principal may do something; `false` becomes `AccessDenied`. */
export type S3Authorizer = (principal: S3Principal, access: S3Access) => boolean;
