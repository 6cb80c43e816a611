import type {
  HostPlan,
  LogBatch,
  LogReceipt,
  RegisterRequest,
  SyncRequest,
  SyncResponse,
} from '@trainyard/api';
import { AGENT_API_PREFIX } from '@trainyard/api';
import { httpFetch } from './http-fetch.ts';
import { retryForever } from './retry.ts';

/** The service says that this attempt is over: nothing that this host does counts any more. */
export class AttemptOver extends Error {
  override readonly name = 'AttemptOver';
}

/** An answer with an error status. */
export class ControlError extends Error {
  override readonly name = 'ControlError';
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface ControlChannelOptions {
  endpointUrl: string;
  token: string;
  fetch?: typeof fetch;
  /** Diagnostics for the operator, not for the job's log. */
  diagnose?: (line: string) => void;
}

/** For an answer that the service does not hold back. */
const ANSWER_TIMEOUT_MS = 30_000;

interface Outgoing extends RequestInit {
  headers?: Record<string, string>;
}

export type ArtifactKind = 'model' | 'output';

/**
 * The agent's end of `@trainyard/api` control.ts. Every call is tried until it is answered: the service may be
 * away for hours. Only {@link AttemptOver} and an abort end a call.
 */
export class ControlChannel {
  readonly #base: string;
  readonly #options: ControlChannelOptions;

  constructor(options: ControlChannelOptions) {
    this.#options = options;
    this.#base = `${options.endpointUrl}${AGENT_API_PREFIX}`;
  }

  register(body: RegisterRequest, signal?: AbortSignal): Promise<HostPlan> {
    return this.#post('register', body, signal);
  }

  sync(body: SyncRequest, signal?: AbortSignal): Promise<SyncResponse> {
    return this.#post('sync', body, signal);
  }

  sendLogs(batch: LogBatch, signal?: AbortSignal): Promise<LogReceipt> {
    return this.#post('logs', batch, signal);
  }

  /** @param makeBody is called anew for each try. */
  async putPart(kind: ArtifactKind, makeBody: () => ReadableStream<Uint8Array>): Promise<void> {
    await this.#request(`parts/${kind}`, () => ({
      method: 'PUT',
      headers: { 'content-type': 'application/x-tar' },
      body: makeBody(),
      duplex: 'half',
    }));
  }

  /** Waits while the other host is still sending its part. */
  async getPart(kind: ArtifactKind, host: string): Promise<ReadableStream<Uint8Array>> {
    const response = await this.#request(`parts/${kind}/${host}`, () => ({ method: 'GET' }));
    return response.body!;
  }

  async #post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
    const text = JSON.stringify(body);
    const waitMs = (body as { waitMs?: number }).waitMs ?? 0;
    // A relay between here and the service may keep a connection open that nobody serves any more.
    const makeInit = (): Outgoing => ({
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: text,
      signal: AbortSignal.any([...(signal ? [signal] : []), AbortSignal.timeout(waitMs + ANSWER_TIMEOUT_MS)]),
    });
    const response = await this.#request(path, makeInit, signal);
    return (await response.json()) as T;
  }

  #request(path: string, makeInit: () => Outgoing, signal?: AbortSignal): Promise<Response> {
    const call = this.#options.fetch ?? httpFetch;
    return retryForever(
      async () => {
        const init = makeInit();
        const response = await call(this.#base + path, {
          ...init,
          headers: { ...init.headers, authorization: `Bearer ${this.#options.token}` },
        });
        if (response.ok) return response;
        const text = (await response.text()).slice(0, 500);
        if (response.status === 410) throw new AttemptOver(text);
        throw new ControlError(response.status, `${init.method} ${path}: ${response.status} ${text}`);
      },
      {
        signal,
        isFinal: (error) => error instanceof AttemptOver,
        onTrouble: (error) =>
          this.#options.diagnose?.(`control channel: ${describeTrouble(error)}; trying again`),
      },
    );
  }
}

/** Fetch hides the reason of a connection error in `cause`. */
function describeTrouble(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause instanceof Error ? `: ${error.cause.message}` : '';
  return `${error.message}${cause}`;
}
