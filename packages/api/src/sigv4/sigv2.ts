import type { Hasher } from '../hasher.ts';
import type { AccessKey, RawRequest, SignatureFailure } from './verify.ts';

export interface VerifySigV2Options {
  /** Epoch milliseconds. */
  now: number;
  /** Must offer `hmacSha1`. @default webCryptoHasher */
  hasher?: Hasher;
  /** Bucket named by the Host header, when the request is virtual-host style. */
  virtualBucket?: string;
}

export interface VerifiedSigV2<K extends AccessKey = AccessKey> {
  ok: true;
  key: K;
  accessKeyId: string;
  query: readonly (readonly [name: string, value: string])[];
}

/** True for a query with `AWSAccessKeyId`, `Signature` and `Expires`: what boto3 presigns by default. */
export function isSigV2Query(_target: string): boolean {
  throw new Error('follows');
}

/** Verifies a presigned SigV2 URL (S3 only). Failures are values as in {@link verifySignature}. */
export async function verifySigV2Query<K extends AccessKey>(
  _request: RawRequest,
  _lookup: (accessKeyId: string) => K | undefined | Promise<K | undefined>,
  _options: VerifySigV2Options,
): Promise<VerifiedSigV2<K> | SignatureFailure> {
  throw new Error('follows');
}
