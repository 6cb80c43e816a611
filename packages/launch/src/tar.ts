import { HostFailure } from './host-failure.ts';

export interface TarEntry {
  /** Relative POSIX path without `.` and `..`. */
  path: string;
  kind: 'file' | 'directory';
  mode: number;
  sizeBytes: number;
  /** Must be read to its end before the next entry is asked for; empty for directories. */
  content: AsyncIterable<Uint8Array>;
}

export interface TarLimits {
  maxEntries: number;
  /** Of all files together, unpacked. */
  maxTotalBytes: number;
}

const BLOCK = 512;
const MAX_META_BYTES = 1 << 20;

/**
 * Reads a tar archive (ustar, GNU and pax names) as it arrives. Only files and directories inside the archive's
 * root come out; links, devices, absolute paths and `..` are refused, because an archive is somebody else's input.
 *
 * @param name for messages
 * @throws HostFailure naming the archive and the entry
 */
export async function* readTar(
  source: AsyncIterable<Uint8Array>,
  name: string,
  limits: TarLimits,
): AsyncGenerator<TarEntry> {
  const reader = new BlockReader(source, name);
  let named: MetaNames = {};
  let entries = 0;
  let total = 0;
  for (;;) {
    const header = await reader.take(BLOCK, 'header');
    if (header === null || header.every((byte) => byte === 0)) return;
    const fields = readHeader(header, name);
    if (META_TYPES.has(fields.type)) {
      if (fields.sizeBytes > MAX_META_BYTES)
        throw bad(name, `has an extended header of ${fields.sizeBytes} bytes`);
      const text = (await reader.takePadded(fields.sizeBytes)).toString('utf8');
      named = { ...named, ...readMeta(fields.type, text, name) };
      continue;
    }
    const path = named.path ?? fields.path;
    const sizeBytes = named.sizeBytes ?? fields.sizeBytes;
    const kind = kindOf(fields.type, path, name);
    named = {};
    entries += 1;
    if (entries > limits.maxEntries) throw bad(name, `has more than ${limits.maxEntries} entries`);
    total += kind === 'file' ? sizeBytes : 0;
    if (total > limits.maxTotalBytes) throw bad(name, `unpacks to more than ${limits.maxTotalBytes} bytes`);
    const clean = cleanPath(path, name);
    const content = reader.content(kind === 'file' ? sizeBytes : 0);
    if (clean !== '') yield { path: clean, kind, mode: fields.mode, sizeBytes, content };
    for await (const _ of content) {
      // Skips what the consumer left.
    }
  }
}

interface MetaNames {
  path?: string;
  sizeBytes?: number;
}

/** pax (`x`, `g`) and GNU long name (`L`) and long link (`K`). */
const META_TYPES = new Set(['x', 'g', 'L', 'K']);

const REFUSED: Readonly<Record<string, string>> = {
  '1': 'a hard link',
  '2': 'a symbolic link',
  '3': 'a character device',
  '4': 'a block device',
  '6': 'a named pipe',
};

function kindOf(type: string, path: string, name: string): TarEntry['kind'] {
  if (type === '5') return 'directory';
  if (type === '0' || type === '\0' || type === '7') return path.endsWith('/') ? 'directory' : 'file';
  const what = REFUSED[type] ?? `of the unknown type ${JSON.stringify(type)}`;
  throw bad(
    name,
    `has the entry ${JSON.stringify(path)}, which is ${what}; only files and directories are allowed`,
  );
}

/** @throws HostFailure for a path that leaves the archive's root */
function cleanPath(path: string, name: string): string {
  if (path.startsWith('/') || path.includes('\0'))
    throw bad(name, `has the entry ${JSON.stringify(path)} with an absolute path`);
  const segments = path.split('/').filter((segment) => segment !== '' && segment !== '.');
  if (segments.includes('..'))
    throw bad(name, `has the entry ${JSON.stringify(path)}, which leaves the folder it is unpacked in`);
  return segments.join('/');
}

const bad = (name: string, what: string): HostFailure =>
  new HostFailure('ClientError', `The archive ${name} ${what}.`);

interface Header {
  path: string;
  mode: number;
  sizeBytes: number;
  type: string;
}

function readHeader(block: Buffer, name: string): Header {
  const sum = block.reduce((total, byte, index) => total + (index >= 148 && index < 156 ? 32 : byte), 0);
  if (sum !== octal(block, 148, 8)) throw bad(name, 'is damaged or not a tar archive (wrong checksum)');
  const prefix = text(block, 257, 5) === 'ustar' ? text(block, 345, 155) : '';
  const path = text(block, 0, 100);
  return {
    path: prefix === '' || text(block, 257, 8) === 'ustar  ' ? path : `${prefix}/${path}`,
    mode: octal(block, 100, 8) & 0o777,
    sizeBytes: size(block, name),
    type: String.fromCharCode(block[156]!),
  };
}

function text(block: Buffer, start: number, length: number): string {
  const field = block.subarray(start, start + length);
  const end = field.indexOf(0);
  return field.subarray(0, end < 0 ? length : end).toString('utf8');
}

const octal = (block: Buffer, start: number, length: number): number =>
  Number.parseInt(text(block, start, length).trim() || '0', 8);

/** Octal, or GNU's base 256 for what does not fit. */
function size(block: Buffer, name: string): number {
  const isBinary = (block[124]! & 0x80) !== 0;
  const value = isBinary ? Number(block.readBigUInt64BE(128)) : octal(block, 124, 12);
  if (!Number.isSafeInteger(value) || value < 0) throw bad(name, 'is damaged (an entry has no valid size)');
  return value;
}

function readMeta(type: string, content: string, name: string): MetaNames {
  if (type === 'L') return { path: content.replace(/\0.*$/s, '') };
  if (type !== 'x') return {};
  const found: MetaNames = {};
  for (let rest = Buffer.from(content); rest.length > 0; ) {
    const length = Number.parseInt(rest.toString('latin1', 0, 20), 10);
    const record = /^\d+ ([^=]+)=(.*)\n$/s.exec(rest.subarray(0, length).toString('utf8'));
    if (!record || !(length > 0)) throw bad(name, 'is damaged (an extended header cannot be read)');
    if (record[1] === 'path') found.path = record[2]!;
    if (record[1] === 'size') found.sizeBytes = Number(record[2]);
    rest = rest.subarray(length);
  }
  if (found.sizeBytes !== undefined && !Number.isSafeInteger(found.sizeBytes)) {
    throw bad(name, 'is damaged (an entry has no valid size)');
  }
  return found;
}

/** Takes exact numbers of bytes from a stream of chunks. */
class BlockReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #name: string;
  #buffer: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Uint8Array>, name: string) {
    this.#chunks = source[Symbol.asyncIterator]();
    this.#name = name;
  }

  /** Null at the very end of the stream. */
  async take(length: number, what: string): Promise<Buffer | null> {
    while (this.#buffer.length < length) {
      const chunk = await this.#next();
      if (chunk === null) {
        if (this.#buffer.length === 0) return null;
        throw bad(this.#name, `is cut off in the middle of a ${what}`);
      }
      this.#buffer = Buffer.concat([this.#buffer, chunk]);
    }
    const taken = this.#buffer.subarray(0, length);
    this.#buffer = this.#buffer.subarray(length);
    return taken;
  }

  async takePadded(length: number): Promise<Buffer> {
    const parts: Uint8Array[] = [];
    for await (const part of this.content(length)) parts.push(part);
    return Buffer.concat(parts);
  }

  /** The next `length` bytes; also consumes the padding behind them. One shared iterator: reading on continues. */
  content(length: number): AsyncIterable<Uint8Array> & AsyncIterator<Uint8Array> {
    let left = length;
    let padding = (BLOCK - (length % BLOCK)) % BLOCK;
    const next = async (): Promise<IteratorResult<Uint8Array>> => {
      while (left > 0 || padding > 0) {
        if (this.#buffer.length === 0) {
          const chunk = await this.#next();
          if (chunk === null) throw bad(this.#name, 'is cut off in the middle of a file');
          this.#buffer = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
        }
        const part = this.#buffer.subarray(0, left > 0 ? left : padding);
        this.#buffer = this.#buffer.subarray(part.length);
        if (left > 0) {
          left -= part.length;
          return { done: false, value: part };
        }
        padding -= part.length;
      }
      return { done: true, value: undefined };
    };
    return {
      next,
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  async #next(): Promise<Uint8Array | null> {
    const { done, value } = await this.#chunks.next();
    return done ? null : value;
  }
}
