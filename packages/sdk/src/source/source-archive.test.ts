import { execFileSync } from 'node:child_process';
import type { Stats } from 'node:fs';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { largeSourceWarnings, packSource } from './source-archive.ts';
import type { SourceSelection } from './source-files.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'trainyard-source-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function write(name: string, text = name): string {
  const path = join(directory, name);
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, text);
  return path;
}

async function pack(selection: Partial<SourceSelection>): Promise<{ members: string[]; bytes: Buffer }> {
  const archive = await packSource({
    entryPoint: 'train.py',
    sourceDir: join(directory, 'src'),
    dependencies: [],
    ...selection,
  });
  return { members: archive.members, bytes: Buffer.from(await archive.body.arrayBuffer()) };
}

/** Unpacks with the system's tar: an independent reader. */
function unpack(bytes: Buffer): string {
  const out = mkdtempSync(join(directory, 'out-'));
  execFileSync('tar', ['-xzpf', '-', '-C', out], { input: bytes });
  return out;
}

test('a source directory is packed whole, hidden files and empty directories too, sorted', async () => {
  for (const name of [
    'src/train.py',
    'src/lib/deep/b.py',
    'src/lib/a.py',
    'src/.env',
    'src/requirements.txt',
  ])
    write(name);
  mkdirSync(join(directory, 'src/empty'));
  const { members, bytes } = await pack({});
  expect(members).toEqual([
    '.env',
    'empty',
    'lib',
    'lib/a.py',
    'lib/deep',
    'lib/deep/b.py',
    'requirements.txt',
    'train.py',
  ]);
  const out = unpack(bytes);
  expect(readFileSync(join(out, 'lib/deep/b.py'), 'utf8')).toBe('src/lib/deep/b.py');
  expect(statSync(join(out, 'empty')).isDirectory()).toBe(true);
});

test('the same tree gives the same bytes; modes and modification times are kept', async () => {
  write('src/train.py');
  chmodSync(write('src/run.sh'), 0o755);
  const first = await pack({});
  expect((await pack({})).bytes.equals(first.bytes)).toBe(true);
  const out = unpack(first.bytes);
  expect(statSync(join(out, 'run.sh')).mode & 0o777).toBe(0o755);
  const seconds = (path: string): number => Math.floor(statSync(path).mtimeMs / 1000);
  expect(seconds(join(out, 'train.py'))).toBe(seconds(join(directory, 'src/train.py')));
});

test('names of any length and script, and files of any size, come out as they went in', async () => {
  write('src/train.py');
  const long = `src/${'d'.repeat(120)}/${'f'.repeat(200)}.py`;
  write(long, 'long');
  write('src/données/模型.txt', 'names');
  const big = Buffer.alloc(3 * 2 ** 20 + 17, 'abc');
  writeFileSync(join(directory, 'src/big.bin'), big);
  const out = unpack((await pack({})).bytes);
  expect(readFileSync(join(out, long.slice('src/'.length)), 'utf8')).toBe('long');
  expect(readFileSync(join(out, 'données/模型.txt'), 'utf8')).toBe('names');
  expect(readFileSync(join(out, 'big.bin')).equals(big)).toBe(true);
});

test('links are followed, also to outside', async () => {
  write('src/train.py');
  write('shared/helper.py', 'help');
  symlinkSync(join(directory, 'shared'), join(directory, 'src/shared'));
  const out = unpack((await pack({})).bytes);
  expect(readFileSync(join(out, 'shared/helper.py'), 'utf8')).toBe('help');
  expect(statSync(join(out, 'shared')).isDirectory()).toBe(true);
});

test('a link into its own parent and a link to nowhere are refused by name', async () => {
  write('src/train.py');
  symlinkSync('..', join(directory, 'src/loop'));
  symlinkSync(directory, join(directory, 'src/up'));
  await expect(pack({})).rejects.toMatchObject({ id: 'E-SRC', field: 'sourceDir' });
  rmSync(join(directory, 'src/loop'));
  rmSync(join(directory, 'src/up'));
  symlinkSync('gone', join(directory, 'src/broken'));
  await expect(pack({})).rejects.toThrow(/src\/broken leads nowhere/);
});

test('without a source directory the archive holds the script and the dependencies by their own names', async () => {
  const script = write('src/nested/train.py');
  write('pkg/a.py');
  const file = write('requirements.txt', 'numpy\n');
  const { members } = await pack({
    entryPoint: script,
    sourceDir: null,
    dependencies: [join(directory, 'pkg'), file],
  });
  expect(members).toEqual(['pkg', 'pkg/a.py', 'requirements.txt', 'train.py']);
});

test.each(['other.py', '../train.py', '/etc/hostname', 'lib'])(
  'entry point %s is not a file of the source directory',
  async (entryPoint) => {
    write('src/lib/a.py');
    write('train.py');
    const error = await pack({ entryPoint }).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ id: 'E-SRC', field: 'entryPoint', value: entryPoint });
    expect((error as Error).message).toContain(join(directory, 'src'));
  },
);

test('a missing dependency and two members of one name are refused', async () => {
  write('src/train.py');
  await expect(pack({ dependencies: [join(directory, 'nope')] })).rejects.toMatchObject({
    field: 'dependencies[0]',
  });
  const twin = write('other/train.py');
  await expect(pack({ dependencies: [twin] })).rejects.toThrow(/has the same name in the archive/);
});

test('a source directory that holds data by mistake is reported with its largest part', () => {
  const file = (name: string, mebibytes: number) => ({
    name,
    stats: { size: mebibytes * 2 ** 20, isFile: () => true } as Stats,
  });
  const code = [file('train.py', 1), file('data/a.bin', 60)];
  expect(largeSourceWarnings({ sourceDir: 'src' }, code)).toEqual([]);
  const [warning] = largeSourceWarnings({ sourceDir: 'src' }, [...code, file('data/b.bin', 50)]);
  expect(warning).toMatchObject({ id: 'W-SRC-LARGE', value: 'src' });
  expect(warning?.rule).toContain('111 MiB (data: 110 MiB)');
});
