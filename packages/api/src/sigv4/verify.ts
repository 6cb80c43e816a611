import type { Hasher } from '../hasher.ts';

/** A request as it came over the wire: nothing decoded, normalised or joined. */
export interface RawRequest {
  method: string;
  /** Request target as sent, path and query: Node's `req.url`. */
  target: string;
  /** Name, value, name, value… in the order sent: Node's `req.rawHeaders`. */
  rawHeaders: readonly string[];
  /** Null when the caller streams the body; it must then check the body against {@link VerifiedRequest.payload}. */
  body: Uint8Array | null;
}

/** What the service knows of an access key. */
export interface AccessKey {
  secretAccessKey: string;
  /** Set for temporary keys: the request must carry the same token. */
  sessionToken?: string;
  /** Epoch milliseconds. */
  expiresAt?: number;
}

export interface VerifyOptions {
  /** Epoch milliseconds. */
  now: number;
  /** @default webCryptoHasher */
  hasher?: Hasher;
  /** Signing names that the scope may carry; decided by the route of the request. */
  services: readonly string[];
  /** Regions that the scope may carry. @default any */
  regions?: readonly string[];
  /** Milliseconds. @default 15 minutes for s3, 5 minutes for every other service */
  maxSkewMs?: number;
}

/** How the body is covered. `sha256` was compared already when the request carried its body. */
export type PayloadRule =
  | { kind: 'sha256'; hex: string }
  | { kind: 'unsigned' }
  | { kind: 'unsigned-trailer' }
  | { kind: 'signed-chunks'; trailer: boolean };

export interface VerifiedRequest<K extends AccessKey = AccessKey> {
  ok: true;
  key: K;
  accessKeyId: string;
  method: 'header' | 'query';
  region: string;
  service: string;
  signedHeaders: readonly string[];
  payload: PayloadRule;
  /** For {@link ChunkChain}. */
  signingKey: Uint8Array;
  amzDate: string;
  scope: string;
  signature: string;
  /** The query as the signature understood it: the only form to act on. */
  query: readonly (readonly [name: string, value: string])[];
}

export type SignatureFailureReason =
  /** No authentication at all: anonymous. */
  | 'missing'
  /** Two ways of authentication, or one of them twice. */
  | 'ambiguous'
  | 'malformed'
  /** A scheme or payload form that is not served: SigV4a. */
  | 'unsupported'
  | 'wrong_service'
  | 'wrong_region'
  | 'unknown_key'
  | 'invalid_token'
  | 'expired_token'
  /** The signature is older than the allowed skew. */
  | 'skewed_past'
  /** The signature is from the future beyond the allowed skew. */
  | 'skewed_future'
  /** A presigned URL after its lifetime. */
  | 'expired'
  /** `host` or an `x-amz-*` header was sent without being signed. */
  | 'unsigned_header'
  | 'bad_signature'
  | 'body_mismatch';

export interface SignatureFailure {
  ok: false;
  reason: SignatureFailureReason;
  /** Names the part, what was found and the rule; never secret material or the expected signature. */
  message: string;
  data: Readonly<Record<string, string | number>>;
}

/**
 * Verifies SigV4 in the `Authorization` header or the query.
 *
 * @param lookup answers undefined for an unknown access key id; called at most once.
 * @returns a failure as a value; throws only what `lookup` and the hasher throw.
 */
export async function verifySignature<K extends AccessKey>(
  _request: RawRequest,
  _lookup: (accessKeyId: string) => K | undefined | Promise<K | undefined>,
  _options: VerifyOptions,
): Promise<VerifiedRequest<K> | SignatureFailure> {
  throw new Error('follows');
}

/** The query of a request target with percent-encoding and `+` decoded, in its order; bytes that are not UTF-8 become U+FFFD. */
export function parseQuery(_target: string): (readonly [name: string, value: string])[] {
  throw new Error('follows');
}
