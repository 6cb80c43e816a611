import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';

const BLOCK = 512;
const MAX_OCTAL_SIZE = 0o77777777777;

/** The two zero blocks that end an archive. */
export const TAR_END = Buffer.alloc(2 * BLOCK);

/**
 * The entries of files below a root, without {@link TAR_END}: such parts can be put one after the other and then
 * closed once. Names that do not fit a ustar header get a pax header.
 *
 * @param paths relative POSIX paths
 * @throws Error when a file changes its size while it is read: the archive would be damaged
 */
export async function* tarEntries(root: string, paths: readonly string[]): AsyncGenerator<Buffer> {
  for (const path of paths) {
    const file = join(root, path);
    const { size, mode, mtimeMs } = await stat(file);
    yield tarHeader(path, {
      sizeBytes: size,
      mode: mode & 0o777,
      mtime: Math.max(0, Math.floor(mtimeMs / 1000)),
    });
    let left = size;
    for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
      left -= chunk.length;
      if (left < 0) break;
      yield chunk;
    }
    if (left !== 0) throw new Error(`${file} changed while it was packed`);
    yield padding(size);
  }
}

const padding = (sizeBytes: number): Buffer => Buffer.alloc((BLOCK - (sizeBytes % BLOCK)) % BLOCK);

interface EntryFields {
  sizeBytes: number;
  mode: number;
  /** Seconds since the epoch. */
  mtime: number;
}

export function tarHeader(path: string, fields: EntryFields): Buffer {
  const bytes = Buffer.from(path);
  const isAscii = bytes.length === path.length;
  if (isAscii && bytes.length <= 100 && fields.sizeBytes <= MAX_OCTAL_SIZE) {
    return ustar(path, '0', fields);
  }
  const records = paxRecord('path', path) + paxRecord('size', String(fields.sizeBytes));
  const content = Buffer.from(records);
  return Buffer.concat([
    ustar('pax-header', 'x', { ...fields, sizeBytes: content.length }),
    content,
    padding(content.length),
    ustar(bytes.subarray(0, 100).toString('latin1'), '0', {
      ...fields,
      sizeBytes: Math.min(fields.sizeBytes, MAX_OCTAL_SIZE),
    }),
  ]);
}

/** `LENGTH key=value\n`, where LENGTH counts its own digits. */
function paxRecord(key: string, value: string): string {
  const rest = Buffer.byteLength(` ${key}=${value}\n`);
  let length = rest + 1;
  while (rest + String(length).length !== length) length += 1;
  return `${length} ${key}=${value}\n`;
}

function ustar(path: string, type: string, { sizeBytes, mode, mtime }: EntryFields): Buffer {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, '0')}\0`;
  block.write(path, 0, 100, 'latin1');
  block.write(octal(mode, 8), 100, 'latin1');
  block.write(octal(0, 8), 108, 'latin1');
  block.write(octal(0, 8), 116, 'latin1');
  block.write(octal(sizeBytes, 12), 124, 'latin1');
  block.write(octal(mtime, 12), 136, 'latin1');
  block.write('        ', 148, 'latin1');
  block.write(type, 156, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}
