import type { Credentials } from '../credentials.ts';
import type { Hasher } from '../hasher.ts';

/** Payload hash of a body that is not covered by the signature; only S3 takes it. */
export const UNSIGNED_PAYLOAD = 'UNSIGNED-PAYLOAD';

export interface SigningContext {
  credentials: Credentials;
  region: string;
  /** Signing name: `sagemaker`, `logs`, `sts`, `s3`, `trainyard`… */
  service: string;
  /** Epoch milliseconds. */
  now: number;
  /** @default webCryptoHasher */
  hasher?: Hasher;
}

export interface SignHeadersInput extends SigningContext {
  method: string;
  /** Absolute. The path is signed as it stands for s3 and encoded once more for all other services. */
  url: string | URL;
  /** All are signed. `host` is derived from the URL and must not be given. */
  headers?: Readonly<Record<string, string>>;
  /** Lower-case hexadecimal SHA-256 of the body, or {@link UNSIGNED_PAYLOAD}. */
  payloadHash: string;
}

/**
 * Signs one request in its headers (SigV4).
 *
 * @returns the given headers, names in lower case, plus `x-amz-date`, `x-amz-content-sha256`,
 * `x-amz-security-token` where needed and `authorization`; never `host`, which `fetch` sets itself.
 */
export async function signHeaders(_input: SignHeadersInput): Promise<Record<string, string>> {
  throw new Error('follows');
}

export interface PresignInput extends SigningContext {
  method: string;
  url: string | URL;
  /** Headers that the user of the URL must send exactly so. */
  headers?: Readonly<Record<string, string>>;
  /** Seconds, 1 to 604 800. */
  expiresInSeconds: number;
  /** @default UNSIGNED_PAYLOAD */
  payloadHash?: string;
}

/** Signs one request in its query string. @returns the URL to hand out. @throws RangeError for a lifetime outside 1–604 800 s. */
export async function presignUrl(_input: PresignInput): Promise<string> {
  throw new Error('follows');
}

export async function sha256Hex(_data: Uint8Array | string, _hasher?: Hasher): Promise<string> {
  throw new Error('follows');
}
