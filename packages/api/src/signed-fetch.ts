import type { Credentials, CredentialsSource } from './credentials.ts';
import { clientError } from './errors.ts';
import type { Hasher } from './hasher.ts';
import { sha256Hex, signHeaders, UNSIGNED_PAYLOAD } from './sigv4/sign.ts';

export interface ConnectionOptions {
  region: string;
  credentials: CredentialsSource;
  /** @default webCryptoHasher */
  hasher?: Hasher;
  /** @default globalThis.fetch, looked up at each request */
  fetch?: typeof fetch;
  /** Tries per request including the first; only throttling, 5xx and connection errors are tried again. @default 3 */
  maxAttempts?: number;
}

export interface SignedRequest {
  /** Signing name: `sagemaker`, `s3`, `trainyard`… */
  service: string;
  method: string;
  /** Absolute. */
  url: string;
  headers?: Readonly<Record<string, string>>;
  body?: Uint8Array | string | Blob;
  /** @default the SHA-256 of the body; UNSIGNED-PAYLOAD for a Blob sent to s3 */
  payloadHash?: string;
  signal?: AbortSignal | undefined;
  /** Decides on statuses other than 429 and 5xx, from a copy of the answer. */
  isThrottled?: (answer: Response) => Promise<boolean>;
}

/**
 * `fetch` with SigV4 and retries with full jitter; each try is signed anew, and with a corrected clock when the
 * service says that ours is off. Redirects are not followed. Answers of any status are returned, also 5xx after
 * the last try; throws ServiceError `ConnectionFailed` when no answer came, and the signal's reason when aborted.
 */
export type SignedFetch = (request: SignedRequest) => Promise<Response>;

const RETRIED_STATUSES = new Set([429, 500, 502, 503, 504]);
const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 20_000;
/** A smaller difference is within what every service allows. */
const CLOCK_TOLERANCE_MS = 60_000;

export function createSignedFetch(options: ConnectionOptions): SignedFetch {
  const { maxAttempts = 3 } = options;
  let clockOffsetMs = 0;

  return async (request) => {
    const body = typeof request.body === 'string' ? new TextEncoder().encode(request.body) : request.body;
    const payloadHash = request.payloadHash ?? (await hashOf(request.service, body, options.hasher));
    for (let attempt = 1; ; attempt++) {
      const isLast = attempt >= maxAttempts;
      // Keys that cannot be had are not a service that does not answer: their error goes to the caller as it is.
      const credentials =
        typeof options.credentials === 'function' ? await options.credentials() : options.credentials;
      const answer = await send(
        request,
        body,
        payloadHash,
        { ...options, credentials },
        Date.now() + clockOffsetMs,
      ).catch((error) => {
        request.signal?.throwIfAborted();
        if (!isLast) return null;
        const tries = `${attempt} ${attempt === 1 ? 'try' : 'tries'}`;
        throw clientError(
          'ConnectionFailed',
          {
            message: `No answer from ${request.method} ${originOf(request.url)} after ${tries}: ${causeOf(error)}. Check that the service runs and the endpoint is right.`,
            url: request.url,
          },
          error,
        );
      });
      if (answer) {
        const offset = clockOffset(answer);
        const isSkewed = answer.status === 403 && Math.abs(offset - clockOffsetMs) > CLOCK_TOLERANCE_MS;
        if (isLast || !(isSkewed || (await shouldRetry(answer, request)))) return answer;
        if (isSkewed) clockOffsetMs = offset;
        await answer.body?.cancel();
      }
      await delay(Math.random() * Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt), request.signal);
    }
  };
}

async function hashOf(
  service: string,
  body: Uint8Array | Blob | undefined,
  hasher?: Hasher,
): Promise<string> {
  if (!(body instanceof Blob)) return sha256Hex(body ?? '', hasher);
  return service === 's3' ? UNSIGNED_PAYLOAD : sha256Hex(new Uint8Array(await body.arrayBuffer()), hasher);
}

async function send(
  request: SignedRequest,
  body: Uint8Array | Blob | undefined,
  payloadHash: string,
  { credentials, region, hasher, fetch = globalThis.fetch }: ConnectionOptions & { credentials: Credentials },
  now: number,
): Promise<Response> {
  const { service, method, url, signal } = request;
  const headers = await signHeaders({
    method,
    url,
    headers: request.headers ?? {},
    payloadHash,
    credentials,
    region,
    service,
    now,
    ...(hasher ? { hasher } : {}),
  });
  return fetch(url, {
    method,
    headers,
    redirect: 'manual',
    ...(body === undefined ? {} : { body: body as BodyInit }),
    ...(signal ? { signal } : {}),
  });
}

async function shouldRetry(answer: Response, { isThrottled }: SignedRequest): Promise<boolean> {
  if (RETRIED_STATUSES.has(answer.status)) return true;
  return !answer.ok && isThrottled !== undefined && (await isThrottled(answer.clone()));
}

/** How far the service's clock is ahead of ours; 0 when it does not say. */
function clockOffset(answer: Response): number {
  const at = Date.parse(answer.headers.get('date') ?? '');
  return Number.isNaN(at) ? 0 : at - Date.now();
}

/** `fetch` says "fetch failed" and hides the reason in its cause. */
function causeOf(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return inner instanceof Error ? inner.message || inner.name : String(inner);
}

const originOf = (url: string) => new URL(url).origin;

function delay(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal!.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal?.addEventListener('abort', stop, { once: true });
  });
}
