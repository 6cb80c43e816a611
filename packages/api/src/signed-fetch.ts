import type { ConnectionOptions } from './client.ts';

export interface SignedRequest {
  /** Signing name: `sagemaker`, `s3`, `trainyard`… */
  service: string;
  method: string;
  /** Absolute. */
  url: string;
  headers?: Readonly<Record<string, string>>;
  body?: Uint8Array | string | Blob;
  /** @default the SHA-256 of the body; UNSIGNED-PAYLOAD for a Blob */
  payloadHash?: string;
  signal?: AbortSignal;
}

/**
 * `fetch` with SigV4 and retries: each try is signed anew. Answers of any status are returned, also 5xx after the
 * last try; throws ServiceError `ConnectionFailed` when no answer came, and what `signal` gives when aborted.
 */
export type SignedFetch = (request: SignedRequest) => Promise<Response>;

export function createSignedFetch(_options: ConnectionOptions): SignedFetch {
  throw new Error('follows');
}
