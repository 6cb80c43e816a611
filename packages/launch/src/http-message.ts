import type { Socket } from 'node:net';

/** Header names are lower case. `get` answers null for a missing one, as the `Headers` of fetch. */
export class HttpHeaders {
  readonly #values: ReadonlyMap<string, string>;

  constructor(values: ReadonlyMap<string, string>) {
    this.#values = values;
  }

  get(name: string): string | null {
    return this.#values.get(name.toLowerCase()) ?? null;
  }

  has(name: string): boolean {
    return this.#values.has(name.toLowerCase());
  }

  [Symbol.iterator](): IterableIterator<[string, string]> {
    return this.#values[Symbol.iterator]();
  }

  forEach(visit: (value: string, name: string) => void): void {
    this.#values.forEach(visit);
  }
}

export interface MessageHead {
  status: number;
  headers: HttpHeaders;
}

const HIGH_WATER_BYTES = 1 << 20;
const MAX_HEAD_BYTES = 64 * 1024;

/** Reads one answer of HTTP/1.1 from a socket, no faster than it is asked for. */
export class MessageReader {
  readonly #socket: Socket;
  readonly #chunks: Buffer[] = [];
  #heldBytes = 0;
  #end: { error: Error | null } | null = null;
  #wake = (): void => {};
  /** Anything came, so the request was received: it must not be sent again unasked. */
  hasBytes = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket
      .on('data', this.#onData)
      .on('end', this.#onEnd)
      .on('error', this.#onError)
      .on('close', this.#onEnd);
    socket.resume();
  }

  readonly #onData = (chunk: Buffer): void => {
    this.hasBytes = true;
    this.#chunks.push(chunk);
    this.#heldBytes += chunk.length;
    if (this.#heldBytes > HIGH_WATER_BYTES) this.#socket.pause();
    this.#wake();
  };

  readonly #onEnd = (): void => {
    this.#end ??= { error: null };
    this.#wake();
  };

  readonly #onError = (error: Error): void => {
    this.#end ??= { error };
    this.#wake();
  };

  /** Leaves the socket to its next user. */
  detach(): void {
    this.#socket
      .off('data', this.#onData)
      .off('end', this.#onEnd)
      .off('error', this.#onError)
      .off('close', this.#onEnd);
  }

  /** @throws Error when the connection ends before the head does */
  async head(): Promise<MessageHead> {
    for (;;) {
      const text = (await this.#until('\r\n\r\n')).toString('latin1');
      const [first = '', ...lines] = text.split('\r\n');
      const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(first)?.[1]);
      if (!status) throw new Error(`no HTTP answer, it begins with ${JSON.stringify(first.slice(0, 80))}`);
      // Interim answers (100 Continue) come before the real one.
      if (status >= 200) return { status, headers: new HttpHeaders(readHeaders(lines)) };
    }
  }

  /** The body that is here already, null when some of it is still to come. */
  bodyAtHand(method: string, head: MessageHead): Buffer | null {
    const length = bodyLength(method, head);
    if (length === null || length > this.#heldBytes) return null;
    return length === 0 ? Buffer.alloc(0) : this.#take(length);
  }

  async *body(method: string, head: MessageHead): AsyncGenerator<Buffer> {
    const length = bodyLength(method, head);
    if (length !== null) yield* this.#exactly(length);
    else if (/\bchunked\b/i.test(head.headers.get('transfer-encoding') ?? '')) yield* this.#chunked();
    else yield* this.#untilEnd();
  }

  async *#exactly(length: number): AsyncGenerator<Buffer> {
    for (let left = length; left > 0; ) {
      if (!(await this.#more())) throw new Error(`the connection ended ${left} bytes before the body`);
      const chunk = this.#take(Math.min(left, this.#chunks[0]!.length));
      left -= chunk.length;
      yield chunk;
    }
  }

  async *#chunked(): AsyncGenerator<Buffer> {
    for (;;) {
      const size = Number.parseInt((await this.#until('\r\n')).toString('latin1'), 16);
      if (!(size >= 0)) throw new Error('a chunk of the body has no size');
      if (size === 0) break;
      yield* this.#exactly(size);
      await this.#until('\r\n');
    }
    // Trailers, up to an empty line.
    while ((await this.#until('\r\n')).length > 0);
  }

  async *#untilEnd(): AsyncGenerator<Buffer> {
    while (await this.#more()) yield this.#take(this.#chunks[0]!.length);
  }

  /** Everything before a mark, which is taken too. */
  async #until(mark: string): Promise<Buffer> {
    for (;;) {
      const held = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
      const at = held.indexOf(mark);
      if (at >= 0) {
        this.#chunks.splice(0, this.#chunks.length, held);
        const found = this.#take(at + mark.length);
        return found.subarray(0, at);
      }
      if (held.length > MAX_HEAD_BYTES) throw new Error('the head of the answer is too long');
      const before = this.#heldBytes;
      if (!(await this.#more(before))) throw new Error('the connection ended before the answer');
    }
  }

  /** Whether more than `above` bytes are here; waits for them. */
  async #more(above = 0): Promise<boolean> {
    while (this.#heldBytes <= above) {
      if (this.#end?.error) throw this.#end.error;
      if (this.#end) return false;
      this.#socket.resume();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return true;
  }

  #take(length: number): Buffer {
    this.#heldBytes -= length;
    const first = this.#chunks[0]!;
    if (first.length === length) return this.#chunks.shift()!;
    if (first.length > length) {
      this.#chunks[0] = first.subarray(length);
      return first.subarray(0, length);
    }
    const all = Buffer.concat(this.#chunks);
    this.#chunks.splice(0, this.#chunks.length, ...(all.length > length ? [all.subarray(length)] : []));
    return all.subarray(0, length);
  }
}

function readHeaders(lines: readonly string[]): Map<string, string> {
  const values = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(':');
    const name = line.slice(0, colon).trim().toLowerCase();
    const value = line.slice(colon + 1).trim();
    values.set(name, values.has(name) ? `${values.get(name)}, ${value}` : value);
  }
  return values;
}

/** Null when only the body itself says where it ends. */
function bodyLength(method: string, { status, headers }: MessageHead): number | null {
  if (method === 'HEAD' || status === 204 || status === 304) return 0;
  if (headers.has('transfer-encoding')) return null;
  const length = headers.get('content-length');
  return length === null ? null : Number(length);
}
