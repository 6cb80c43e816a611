import type { ClientRequest, IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';

// Importing node:http as an ES module reads all its exports, and that of WebSocket loads what this file avoids.
const { Agent, request: startRequest } = process.getBuiltinModule('node:http');

/**
 * As much of `fetch` as the typed clients use, over `node:http`, for plain-HTTP services. The global one compiles
 * 300 kB of script and a WebAssembly parser at its first call: about 50 ms of processor time, which is most of what a
 * command needs to submit a job to a service on this machine. Bodies are strings, bytes or Blobs; redirects are
 * answers like any other; a failed connection rejects with a TypeError that carries its cause, as in `fetch`.
 */
export const httpFetch = ((input: string, init: RequestInit = {}) =>
  new Promise<HttpResponse>((resolve, reject) => {
    const { method = 'GET', body, signal } = init;
    const fail = (cause: unknown): void =>
      reject(signal?.aborted ? signal.reason : new TypeError('fetch failed', { cause }));
    if (signal?.aborted) return fail(signal.reason);
    const headers = init.headers as Record<string, string> | undefined;
    const size = sizeOf(body);
    const outgoing = startRequest(
      input,
      {
        agent,
        method,
        headers: { ...headers, ...(size !== null && { 'content-length': size }) },
        ...(signal && { signal }),
      },
      (message) => resolve(new HttpResponse(message, method)),
    );
    outgoing.on('error', fail);
    send(outgoing, body).catch(fail);
  })) as unknown as typeof fetch;

/** The cheaper one where it can serve. */
export function fetchFor(url: string): typeof fetch {
  return url.startsWith('http:') ? httpFetch : globalThis.fetch;
}

/** Pooled sockets do not keep the process alive. */
const agent = new Agent({ keepAlive: true });

class HttpResponse {
  readonly status: number;
  readonly ok: boolean;
  readonly headers: HttpHeaders;
  readonly #message: IncomingMessage;
  #text: Promise<string> | null = null;
  #body: ReadableStream<Uint8Array> | null = null;
  readonly #isEmpty: boolean;

  constructor(message: IncomingMessage, method: string) {
    this.#message = message;
    this.status = message.statusCode ?? 0;
    this.ok = this.status >= 200 && this.status < 300;
    this.headers = new HttpHeaders(message.headers);
    const isBodiless = method === 'HEAD' || this.status === 204 || this.status === 304;
    this.#isEmpty = isBodiless || message.headers['content-length'] === '0';
    if (this.#isEmpty) message.resume();
  }

  /** The same stream at each access; null where there is nothing to read, so that the connection is used again. */
  get body(): ReadableStream<Uint8Array> | null {
    if (this.#isEmpty) return null;
    this.#body ??= Readable.toWeb(this.#message) as ReadableStream<Uint8Array>;
    return this.#body;
  }

  /** May be called again, so that a clone is the response itself. */
  text(): Promise<string> {
    this.#text ??= this.#isEmpty ? Promise.resolve('') : readText(this.#message);
    return this.#text;
  }

  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }

  clone(): this {
    void this.text().catch(() => {});
    return this;
  }
}

class HttpHeaders {
  readonly #headers: IncomingMessage['headers'];

  constructor(headers: IncomingMessage['headers']) {
    this.#headers = headers;
  }

  get(name: string): string | null {
    const value = this.#headers[name.toLowerCase()];
    return Array.isArray(value) ? value.join(', ') : (value ?? null);
  }

  has(name: string): boolean {
    return this.get(name) !== null;
  }

  *entries(): IterableIterator<[string, string]> {
    for (const name of Object.keys(this.#headers)) yield [name, this.get(name) ?? ''];
  }

  [Symbol.iterator](): IterableIterator<[string, string]> {
    return this.entries();
  }

  forEach(each: (value: string, name: string) => void): void {
    for (const [name, value] of this) each(value, name);
  }
}

async function readText(message: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

function sizeOf(body: RequestInit['body']): number | null {
  if (body === undefined || body === null) return null;
  if (typeof body === 'string') return Buffer.byteLength(body);
  if (body instanceof Blob) return body.size;
  if (body instanceof Uint8Array) return body.byteLength;
  throw new TypeError('httpFetch sends strings, bytes and Blobs only.');
}

async function send(outgoing: ClientRequest, body: RequestInit['body']): Promise<void> {
  if (body instanceof Blob) {
    await pipeline(Readable.fromWeb(body.stream() as NodeReadableStream), outgoing);
  } else {
    outgoing.end(body ?? undefined);
  }
}
