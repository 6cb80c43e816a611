/** A request as it came over the wire: nothing decoded, normalised or joined. */
export interface RawRequest {
  method: string;
  /** Request target as sent, path and query: Node's `req.url`. */
  target: string;
  /** Name, value, name, value… in the order sent: Node's `req.rawHeaders`. */
  rawHeaders: readonly string[];
  /**
   * Null when the caller streams the body (S3, uploads): it must then hold the body against
   * {@link VerifiedRequest.payload}. All other services need the body here.
   */
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

export type SignatureFailureReason =
  /** No authentication at all: anonymous. */
  | 'missing'
  /** Two ways of authentication, or one of them twice. */
  | 'ambiguous'
  | 'malformed'
  /** A scheme or payload form that is not served: SigV4a, SigV2 in a header. */
  | 'unsupported'
  | 'wrong_service'
  | 'wrong_region'
  | 'unknown_key'
  | 'invalid_token'
  | 'expired_token'
  /** Signed longer ago than the allowed skew: also a replay. */
  | 'skewed_past'
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

export type KeyLookup<K extends AccessKey> = (accessKeyId: string) => K | undefined | Promise<K | undefined>;

/** Thrown inside the verifiers and turned into a value at their edge. */
export class SignatureRejection extends Error {
  readonly failure: SignatureFailure;
  constructor(reason: SignatureFailureReason, message: string, data: SignatureFailure['data'] = {}) {
    super(message);
    this.failure = { ok: false, reason, message, data };
  }
}

export async function rejectionAsValue<T>(verify: () => Promise<T>): Promise<T | SignatureFailure> {
  try {
    return await verify();
  } catch (error) {
    if (error instanceof SignatureRejection) return error.failure;
    throw error;
  }
}

/** Lower-case names → values in the order sent. */
export function collectHeaders(rawHeaders: readonly string[]): Map<string, string[]> {
  const headers = new Map<string, string[]>();
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!.toLowerCase();
    const values = headers.get(name);
    if (values) values.push(rawHeaders[at + 1]!);
    else headers.set(name, [rawHeaders[at + 1]!]);
  }
  return headers;
}

/**
 * HTTP stacks disagree on which line of these wins or how they are joined, so that a repeated one could be read
 * otherwise than it was signed.
 */
const SINGLE = new Set(['authorization', 'content-length', 'content-md5', 'content-type', 'date', 'host']);

export function refuseRepeatedHeaders(headers: ReadonlyMap<string, readonly string[]>): void {
  for (const [name, values] of headers) {
    const single = SINGLE.has(name) || (name.startsWith('x-amz-') && !name.startsWith('x-amz-meta-'));
    if (values.length > 1 && single) {
      throw new SignatureRejection(
        name === 'authorization' ? 'ambiguous' : 'malformed',
        `Header ${name} was sent ${values.length} times; send it once`,
        { header: name },
      );
    }
  }
}

/** @throws SignatureRejection unless the key is known and the request carries its token, unexpired. */
export async function findKey<K extends AccessKey>(
  accessKeyId: string,
  token: string | undefined,
  lookup: KeyLookup<K>,
  now: number,
  equals: (a: string, b: string) => boolean,
): Promise<K> {
  const key = await lookup(accessKeyId);
  if (!key) {
    throw new SignatureRejection('unknown_key', `Access key '${accessKeyId}' is not known`, { accessKeyId });
  }
  if (!equals(key.sessionToken ?? '', token ?? '')) {
    const rule =
      key.sessionToken === undefined ? 'has no session token; send none' : 'needs its session token';
    throw new SignatureRejection('invalid_token', `Access key '${accessKeyId}' ${rule}`, { accessKeyId });
  }
  if (key.expiresAt !== undefined && now >= key.expiresAt) {
    throw new SignatureRejection(
      'expired_token',
      `Access key '${accessKeyId}' expired at ${new Date(key.expiresAt).toISOString()}`,
      { accessKeyId, expiredAt: key.expiresAt },
    );
  }
  return key;
}
