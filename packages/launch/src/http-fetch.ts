import type { Socket } from 'node:net';
import { connect } from 'node:net';
import type { MessageHead } from './http-message.ts';
import { MessageReader } from './http-message.ts';

/**
 * `fetch` for plain HTTP over sockets, kept to what this agent and the S3 client use. Node's own takes 40 ms of CPU
 * to load and some more per call, on every host before every first step; this takes 2. Other schemes go to Node's.
 *
 * Differences: redirects and cookies are not followed, nothing is decompressed, and an answer's `clone` shares
 * its text.
 */
export const httpFetch = (async (input: string | URL, init: RequestInit = {}): Promise<Response> => {
  const url = new URL(input);
  if (url.protocol !== 'http:') return fetch(url, init);
  init.signal?.throwIfAborted();
  return (await exchange(url, init, takeIdle(url.host))) as unknown as Response;
}) as typeof fetch;

/** Connections that wait for their next request, by host and port. */
const idle = new Map<string, Socket[]>();

function takeIdle(host: string): Socket | null {
  const socket = idle.get(host)?.pop();
  socket?.ref();
  return socket ?? null;
}

function putIdle(host: string, socket: Socket): void {
  const waiting = idle.get(host) ?? [];
  idle.set(host, waiting);
  waiting.push(socket);
  // Reads on, so that the end of the connection is seen, but keeps no process alive.
  socket.resume().unref();
}

function open(url: URL): Socket {
  const socket = connect({ host: url.hostname, port: Number(url.port || 80), noDelay: true });
  // Whoever uses the socket hears of errors; between two uses nobody needs to.
  socket.on('error', () => {});
  socket.on('close', () => {
    const waiting = idle.get(url.host) ?? [];
    if (waiting.includes(socket)) waiting.splice(waiting.indexOf(socket), 1);
  });
  return socket;
}

async function exchange(url: URL, init: RequestInit, waiting: Socket | null): Promise<HttpAnswer> {
  const { method = 'GET', signal, body } = init;
  const socket = waiting ?? open(url);
  const abort = (): void => void socket.destroy(signal!.reason as Error);
  signal?.addEventListener('abort', abort);
  const reader = new MessageReader(socket);
  try {
    // When the service answers before it has read all, the answer counts, and the connection is of no more use.
    let isSent = false;
    send(socket, url, init).then(
      () => {
        isSent = true;
      },
      (error: Error) => socket.destroy(error),
    );
    const head = await reader.head();
    const isReusable = !/\bclose\b/i.test(head.headers.get('connection') ?? '');
    const end = (isWhole: boolean): void => {
      signal?.removeEventListener('abort', abort);
      reader.detach();
      if (isWhole && isSent && isReusable) putIdle(url.host, socket);
      else socket.destroy();
    };
    const atHand = reader.bodyAtHand(method, head);
    if (atHand) {
      end(true);
      return new HttpAnswer(head, null, atHand);
    }
    return new HttpAnswer(head, withEnd(reader.body(method, head), end), null);
  } catch (error) {
    signal?.removeEventListener('abort', abort);
    socket.destroy();
    signal?.throwIfAborted();
    // The service may have closed a waiting connection in the moment it was used: then the request was not read.
    const mayRepeat = waiting !== null && !reader.hasBytes && !(body instanceof ReadableStream);
    if (mayRepeat) return exchange(url, init, null);
    throw error;
  }
}

/** Tells once whether the body was read to its end. */
async function* withEnd(
  body: AsyncGenerator<Buffer>,
  end: (isWhole: boolean) => void,
): AsyncGenerator<Buffer> {
  let isWhole = false;
  try {
    yield* body;
    isWhole = true;
  } finally {
    end(isWhole);
  }
}

async function send(socket: Socket, url: URL, { method = 'GET', headers, body }: RequestInit): Promise<void> {
  const sizeBytes = sizeOf(body);
  const fields: Record<string, string> = {
    host: url.host,
    ...(headers as Record<string, string> | undefined),
    ...(sizeBytes === null ? { 'transfer-encoding': 'chunked' } : {}),
    ...(sizeBytes !== null && (sizeBytes > 0 || method !== 'GET')
      ? { 'content-length': String(sizeBytes) }
      : {}),
  };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.cork();
  socket.write(`${method} ${url.pathname}${url.search} HTTP/1.1\r\n${lines.join('')}\r\n`, 'latin1');
  if (typeof body === 'string' || body instanceof Uint8Array) socket.write(body);
  socket.uncork();
  if (body instanceof Blob) {
    for await (const chunk of body.stream()) await write(socket, chunk);
  } else if (body instanceof ReadableStream) {
    for await (const chunk of body as ReadableStream<Uint8Array>) {
      if (chunk.length === 0) continue;
      socket.write(`${chunk.length.toString(16)}\r\n`);
      socket.write(chunk);
      await write(socket, '\r\n');
    }
    socket.write('0\r\n\r\n');
  }
}

/** Null for a stream, whose size nobody knows. */
function sizeOf(body: RequestInit['body']): number | null {
  if (body === undefined || body === null) return 0;
  if (typeof body === 'string') return Buffer.byteLength(body);
  if (body instanceof Uint8Array) return body.byteLength;
  if (body instanceof Blob) return body.size;
  if (body instanceof ReadableStream) return null;
  throw new TypeError(`httpFetch cannot send a body of type ${Object.prototype.toString.call(body)}`);
}

/** Waits while the other end is slower. */
function write(socket: Socket, chunk: Uint8Array | string): Promise<void> {
  if (socket.destroyed) return Promise.reject(new Error('the connection was closed while a body was sent'));
  if (socket.write(chunk)) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      socket.off('drain', settle).off('close', settle);
      if (socket.destroyed)
        reject(socket.errored ?? new Error('the connection was closed while a body was sent'));
      else resolve();
    };
    socket.on('drain', settle).on('close', settle);
  });
}

class HttpAnswer {
  readonly status: number;
  readonly headers: MessageHead['headers'];
  readonly ok: boolean;
  readonly #source: AsyncGenerator<Buffer> | null;
  #bytes: Promise<Buffer> | null;
  #stream: ReadableStream<Uint8Array> | null = null;

  constructor(head: MessageHead, source: AsyncGenerator<Buffer> | null, atHand: Buffer | null) {
    this.status = head.status;
    this.headers = head.headers;
    this.ok = head.status >= 200 && head.status < 300;
    this.#source = source;
    this.#bytes = atHand && Promise.resolve(atHand);
  }

  /** Null when there is nothing that would have to be read. */
  get body(): ReadableStream<Uint8Array> | null {
    if (this.#source === null) {
      this.#stream ??= new ReadableStream<Uint8Array>(
        { pull: (controller) => this.#pullBytes(controller) },
        { highWaterMark: 0 },
      );
      return this.#stream;
    }
    const source = this.#source;
    this.#stream ??= new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          const { done, value } = await source.next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
        cancel: async () => void (await source.return(undefined)),
      },
      { highWaterMark: 0 },
    );
    return this.#stream;
  }

  async #pullBytes(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    const bytes = await this.#bytes!;
    if (bytes.length > 0) controller.enqueue(bytes);
    controller.close();
  }

  /** May be asked more than once. */
  async arrayBuffer(): Promise<Buffer> {
    this.#bytes ??= collect(this.#source!);
    return this.#bytes;
  }

  async text(): Promise<string> {
    return (await this.arrayBuffer()).toString('utf8');
  }

  async json(): Promise<unknown> {
    return JSON.parse(await this.text()) as unknown;
  }

  clone(): this {
    return this;
  }
}

async function collect(source: AsyncGenerator<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}
