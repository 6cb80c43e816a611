import { mkdtemp, rm, writeFile, mkdir, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { TarLimits } from './tar.ts';
import { readTar } from './tar.ts';
import { TAR_END, tarEntries, tarHeader } from './tar-writer.ts';

const LIMITS: TarLimits = { maxEntries: 100, maxTotalBytes: 1 << 20 };

async function* chunked(bytes: Buffer, size: number): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) yield bytes.subarray(start, start + size);
}

async function unpack(bytes: Buffer, chunkSize = 700, limits = LIMITS): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for await (const entry of readTar(chunked(bytes, chunkSize), 'a.tar', limits)) {
    const parts: Uint8Array[] = [];
    for await (const part of entry.content) parts.push(part);
    found[entry.path] = entry.kind === 'directory' ? '<directory>' : Buffer.concat(parts).toString();
  }
  return found;
}

/** An archive of one entry with any type and link name, as an attacker would make it. */
function archive(path: string, type: string, content = '', sizeBytes = content.length): Buffer {
  const header = tarHeader(path, { sizeBytes, mode: 0o644, mtime: 0 });
  header.write(type, 156, 'latin1');
  header.write('        ', 148, 'latin1');
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  const body = Buffer.alloc(Math.ceil(content.length / 512) * 512);
  body.write(content);
  return Buffer.concat([header, body, TAR_END]);
}

describe('reading what the writer wrote', () => {
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'trainyard-tar-'));
  });
  afterEach(() => rm(root, { recursive: true, force: true }));

  const files = {
    'train.py': 'print(1)\n',
    empty: '',
    'deep/er/model.bin': 'x'.repeat(1500),
    [`${'long/'.repeat(30)}name.txt`]: 'long name',
    'grün/日本.txt': 'unicode name',
    exact: 'y'.repeat(512),
  };

  it.each([1, 511, 512, 4096])('gives back every file, in chunks of %i bytes', async (chunkSize) => {
    for (const [path, content] of Object.entries(files)) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), content);
    }
    const parts: Buffer[] = [];
    for await (const part of tarEntries(root, Object.keys(files))) parts.push(part);
    expect(await unpack(Buffer.concat([...parts, TAR_END]), chunkSize)).toEqual(files);
  });

  it('refuses to pack a file that grows, because the archive would be damaged', async () => {
    await writeFile(join(root, 'log'), 'abc');
    const entries = tarEntries(root, ['log']);
    await entries.next();
    await truncate(join(root, 'log'), 1);
    await expect(
      (async () => {
        for await (const _ of entries);
      })(),
    ).rejects.toThrow('changed while it was packed');
  });
});

describe('a malicious or damaged archive', () => {
  it.each([
    ['a symbolic link', 'evil', '2', /"evil", which is a symbolic link/],
    ['a hard link', 'evil', '1', /which is a hard link/],
    ['a character device', 'evil', '3', /character device/],
    ['a block device', 'evil', '4', /block device/],
    ['a named pipe', 'evil', '6', /named pipe/],
    ['an unknown type', 'evil', 'Z', /unknown type "Z"/],
    ['an absolute path', '/etc/passwd', '0', /absolute path/],
    ['a path that climbs out', '../evil', '0', /leaves the folder/],
    ['a path that climbs out in the middle', 'a/../../evil', '0', /leaves the folder/],
    ['a directory that climbs out', 'a/..', '5', /leaves the folder/],
  ])('with %s is refused, naming the entry', async (_, path, type, message) => {
    await expect(unpack(archive(path, type))).rejects.toThrow(message);
  });

  it('with a climbing path in a pax header is refused', async () => {
    const record = '16 path=../evil\n';
    const pax = archive('pax', 'x', record).subarray(0, 1024);
    await expect(unpack(Buffer.concat([pax, archive('innocent', '0', 'x')]))).rejects.toThrow(
      /leaves the folder/,
    );
  });

  it('with a climbing GNU long name is refused', async () => {
    const long = archive('././@LongLink', 'L', '../../evil\0').subarray(0, 1024);
    await expect(unpack(Buffer.concat([long, archive('innocent', '0', 'x')]))).rejects.toThrow(
      /leaves the folder/,
    );
  });

  it('with too many entries is refused', async () => {
    const one = archive('a', '0').subarray(0, 512);
    const many = Buffer.concat([...Array.from({ length: 101 }, () => one), TAR_END]);
    await expect(unpack(many)).rejects.toThrow('has more than 100 entries');
  });

  it('that says it unpacks to more than the limit is refused before it is unpacked', async () => {
    await expect(unpack(archive('big', '0', '', 2 << 20))).rejects.toThrow(
      'unpacks to more than 1048576 bytes',
    );
  });

  it('that is cut off is refused', async () => {
    const whole = archive('a', '0', 'x'.repeat(600));
    await expect(unpack(whole.subarray(0, 700))).rejects.toThrow(/cut off in the middle of a file/);
    await expect(unpack(whole.subarray(0, 300))).rejects.toThrow(/cut off in the middle of a header/);
  });

  it('that is no archive is refused', async () => {
    await expect(unpack(Buffer.from('<html>'.repeat(200)))).rejects.toThrow(/not a tar archive/);
  });
});

it('leading "./" and directories are understood', async () => {
  const directory = archive('./', '5').subarray(0, 512);
  const inner = archive('./src/', '5').subarray(0, 512);
  expect(await unpack(Buffer.concat([directory, inner, archive('./src/a.py', '0', 'pass')]))).toEqual({
    src: '<directory>',
    'src/a.py': 'pass',
  });
});
