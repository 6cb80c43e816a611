import { createHash } from 'node:crypto';
import type { ChunkChain } from '@trainyard/api';
import { S3Error } from './errors.ts';

/** Longest chunk header or trailer line; real ones have about 90 bytes. */
const MAX_LINE_BYTES = 1024;
const MAX_TRAILER_LINES = 16;
/** MinIO's limit; it bounds what is read before a wrong signature shows. Unsigned chunks have no such need. */
const MAX_SIGNED_CHUNK_BYTES = 16 * 1024 * 1024;
const TRAILER_SIGNATURE = 'x-amz-trailer-signature';

export interface ChunkedBodyRules {
  /** `x-amz-decoded-content-length`. */
  decodedBytes: number;
  /** Null for bodies without chunk signatures. */
  signatures: Pick<ChunkChain, 'verify' | 'verifyTrailer'> | null;
  /** Lower-case names that `x-amz-trailer` declared; null when the form has no trailer. */
  trailerNames: readonly string[] | null;
}

/**
 * Takes the `aws-chunked` framing off a body, in all four forms: signed or not, with or without trailer. What HTTP
 * did to the body (its own chunks, Content-Length) is off already.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and sigv4-streaming-trailers.html
 */
export class AwsChunkedDecoder {
  readonly #rules: ChunkedBodyRules;
  /** By lower-case name; complete once `decode` has ended. */
  readonly trailers = new Map<string, string>();

  constructor(rules: ChunkedBodyRules) {
    this.#rules = rules;
  }

  /**
   * Yields the data as it comes, without copies. The signature of a chunk is checked after its last byte has been
   * yielded, so the consumer must not make anything visible before the generator has ended.
   */
  async *decode(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const { decodedBytes, signatures } = this.#rules;
    const input = new ByteReader(source);
    let left = decodedBytes;
    for (;;) {
      const { sizeBytes, signature } = this.#parseHeader(await input.line(), left);
      const hash = signatures ? createHash('sha256') : null;
      for (let rest = sizeBytes; rest > 0; ) {
        const data = await input.take(rest);
        hash?.update(data);
        rest -= data.length;
        yield data;
      }
      if (signatures && hash && !(await signatures.verify(hash.digest('hex'), signature))) {
        throw new S3Error(
          'SignatureDoesNotMatch',
          `The signature of the chunk at byte ${decodedBytes - left} does not match its data.`,
        );
      }
      if (sizeBytes === 0) break;
      left -= sizeBytes;
      if ((await input.line()) !== '')
        throw malformed(`the data of a chunk of ${sizeBytes} bytes is not followed by CRLF`);
    }
    if (left > 0) {
      throw new S3Error(
        'IncompleteBody',
        `The chunks have ${decodedBytes - left} bytes, but x-amz-decoded-content-length says ${decodedBytes}.`,
      );
    }
    await this.#readTrailers(input);
  }

  #parseHeader(line: string, left: number): { sizeBytes: number; signature: string } {
    const match = /^([0-9a-fA-F]{1,13})(?:;chunk-signature=([0-9a-f]{64}))?$/.exec(line);
    if (!match) throw malformed(`${JSON.stringify(line.slice(0, 40))} is no chunk header`);
    const sizeBytes = Number.parseInt(match[1]!, 16);
    const signature = match[2];
    const isSigned = this.#rules.signatures !== null;
    if (isSigned !== (signature !== undefined)) {
      throw malformed(
        isSigned ? 'a chunk has no signature' : 'a chunk is signed although the body is sent unsigned',
      );
    }
    if (sizeBytes > left)
      throw malformed(`a chunk of ${sizeBytes} bytes exceeds the ${left} bytes that are left`);
    if (isSigned && sizeBytes > MAX_SIGNED_CHUNK_BYTES) {
      throw malformed(`a signed chunk has ${sizeBytes} bytes; at most ${MAX_SIGNED_CHUNK_BYTES} are allowed`);
    }
    return { sizeBytes, signature: signature ?? '' };
  }

  /** Trailer lines up to an empty one, which some clients leave out, and then nothing. */
  async #readTrailers(input: ByteReader): Promise<void> {
    const { signatures, trailerNames } = this.#rules;
    const lines: (readonly [string, string])[] = [];
    let signature: string | null = null;
    while (!(await input.ended())) {
      const line = await input.line();
      if (line === '') break;
      const colon = line.indexOf(':');
      if (colon <= 0) throw badTrailer(`${JSON.stringify(line.slice(0, 80))} is no trailer`);
      const name = line.slice(0, colon).trim().toLowerCase();
      const value = line.slice(colon + 1).trim();
      if (name === TRAILER_SIGNATURE && signature === null && signatures) signature = value;
      else lines.push([name, value]);
      if (lines.length > MAX_TRAILER_LINES) throw badTrailer('there are too many trailers');
    }
    if (!(await input.ended())) throw badTrailer('the body goes on after its end');
    const sent = lines.map(([name]) => name).toSorted();
    const declared = (trailerNames ?? []).toSorted();
    if (sent.join() !== declared.join()) {
      throw badTrailer(
        `declared were ${declared.join(', ') || 'none'}, sent were ${sent.join(', ') || 'none'}`,
      );
    }
    if (
      signatures &&
      trailerNames &&
      !(signature !== null && (await signatures.verifyTrailer(lines, signature)))
    ) {
      throw new S3Error('SignatureDoesNotMatch', 'The signature of the trailer does not match it.');
    }
    for (const [name, value] of lines) this.trailers.set(name, value);
  }
}

function malformed(problem: string): S3Error {
  return new S3Error('InvalidRequest', `The aws-chunked body is malformed: ${problem}.`);
}

function badTrailer(problem: string): S3Error {
  return new S3Error(
    'MalformedTrailerError',
    `The trailer of the aws-chunked body is malformed: ${problem}.`,
  );
}

class ByteReader {
  readonly #source: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #at = 0;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  async ended(): Promise<boolean> {
    while (this.#at === this.#chunk.length) {
      const next = await this.#source.next();
      if (next.done) return true;
      this.#chunk = next.value;
      this.#at = 0;
    }
    return false;
  }

  /** From one byte to `limit` bytes. */
  async take(limit: number): Promise<Uint8Array> {
    if (await this.ended()) throw endsEarly();
    const end = Math.min(this.#at + limit, this.#chunk.length);
    const data = this.#chunk.subarray(this.#at, end);
    this.#at = end;
    return data;
  }

  /** Up to CRLF, which is taken and not returned. */
  async line(): Promise<string> {
    let line = '';
    for (;;) {
      if (await this.ended()) throw endsEarly();
      const end = this.#chunk.indexOf(10, this.#at);
      const upTo = end < 0 ? this.#chunk.length : end + 1;
      if (line.length + upTo - this.#at > MAX_LINE_BYTES)
        throw malformed(`a line exceeds ${MAX_LINE_BYTES} bytes`);
      line += Buffer.from(this.#chunk.buffer, this.#chunk.byteOffset + this.#at, upTo - this.#at).toString(
        'latin1',
      );
      this.#at = upTo;
      if (end < 0) continue;
      if (!line.endsWith('\r\n')) throw malformed('a line does not end with CRLF');
      line = line.slice(0, -2);
      if (/\p{Cc}/u.test(line)) throw malformed('a line contains control characters');
      return line;
    }
  }
}

function endsEarly(): S3Error {
  return new S3Error('IncompleteBody', 'The aws-chunked body ends before its last chunk.');
}
