import { open } from 'node:fs/promises';
import type { TreeEntry } from '../file-tree.ts';

const BLOCK = 512;
const MAX_READ = 1 << 20;
/** Largest size that fits the header's eleven octal digits; larger files carry a `size` record. */
const MAX_OCTAL_SIZE = 8 ** 11 - 1;

/**
 * A POSIX tar archive of the members in their order: same tree, same bytes. Owner is 0, modes and modification
 * times are kept: Python decides by them whether a `.pyc` still belongs to its source.
 * @throws Error when a file changes its size while it is read.
 */
export async function* tarArchive(members: Iterable<TreeEntry>): AsyncGenerator<Uint8Array> {
  for (const member of members) {
    const isDirectory = member.stats.isDirectory();
    const name = isDirectory ? `${member.name}/` : member.name;
    const sizeBytes = isDirectory ? 0 : member.stats.size;
    const records = extendedRecords(name, sizeBytes);
    if (records.length > 0) {
      yield header({ name: 'PaxHeader', sizeBytes: records.length, mode: 0o644, mtime: 0, type: 'x' });
      yield padded(records);
    }
    yield header({
      name,
      sizeBytes,
      mode: member.stats.mode & 0o777,
      mtime: Math.floor(member.stats.mtimeMs / 1000),
      type: isDirectory ? '5' : '0',
    });
    if (sizeBytes > 0) yield* content(member);
  }
  yield new Uint8Array(2 * BLOCK);
}

async function* content(member: TreeEntry): AsyncGenerator<Uint8Array> {
  const file = await open(member.path);
  try {
    let left = member.stats.size;
    while (left > 0) {
      const { bytesRead, buffer } = await file.read(new Uint8Array(Math.min(left, MAX_READ)));
      if (bytesRead === 0)
        throw new Error(`${member.path} became shorter while it was packed; run it again.`);
      left -= bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
  const rest = member.stats.size % BLOCK;
  if (rest > 0) yield new Uint8Array(BLOCK - rest);
}

interface HeaderFields {
  name: string;
  sizeBytes: number;
  mode: number;
  mtime: number;
  type: '0' | '5' | 'x';
}

function header(fields: HeaderFields): Uint8Array {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, length: number): void => {
    block.write(
      `${Math.max(0, value)
        .toString(8)
        .padStart(length - 1, '0')}\0`,
      at,
      'latin1',
    );
  };
  // A name that does not fit is in the extended records; readers take this one only without them.
  Buffer.from(fields.name).copy(block, 0, 0, 100);
  octal(fields.mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(fields.sizeBytes > MAX_OCTAL_SIZE ? 0 : fields.sizeBytes, 124, 12);
  octal(fields.mtime, 136, 12);
  block.write(' '.repeat(8), 148, 'latin1');
  block.write(fields.type, 156, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** What the plain header cannot hold: long or non-ASCII names, and huge sizes. */
function extendedRecords(name: string, sizeBytes: number): Uint8Array {
  let records = '';
  if (Buffer.byteLength(name) > 100 || /[^ -~]/.test(name)) records += extendedRecord('path', name);
  if (sizeBytes > MAX_OCTAL_SIZE) records += extendedRecord('size', String(sizeBytes));
  return Buffer.from(records);
}

/** `<length> key=value\n`, where the length counts its own digits. */
function extendedRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const restBytes = Buffer.byteLength(rest);
  let length = restBytes + String(restBytes).length;
  length = restBytes + String(length).length;
  return `${length}${rest}`;
}

function padded(data: Uint8Array): Uint8Array {
  const block = new Uint8Array(Math.ceil(data.length / BLOCK) * BLOCK);
  block.set(data);
  return block;
}
