import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { filesOf, pathOfKey, readManifest, shardOf } from './object-paths.ts';

test.each([
  ['data/train/', 'data/train/a.csv', 'a.csv'],
  ['data/train', 'data/train/deep/a.csv', 'deep/a.csv'],
  ['data/train', 'data/train', 'train'],
  ['data/tr', 'data/train/a.csv', 'train/a.csv'],
  ['data/train', 'data/training/a.csv', 'training/a.csv'],
  ['', 'a.csv', 'a.csv'],
  ['da', 'data.csv', 'data.csv'],
])('below the prefix "%s" the key %s becomes %s', (prefix, key, path) => {
  expect(pathOfKey(prefix, key)).toBe(path);
});

const objects = (...keys: string[]) => keys.map((key) => ({ key, sizeBytes: 1, etag: '' }));
const files = (...keys: string[]) =>
  filesOf(objects(...keys), (key) => pathOfKey('p/', key), 'Channel train').map(({ path }) => path);

describe('the files of a channel', () => {
  it('leave out folder markers', () => {
    expect(files('p/', 'p/a/', 'p/a/b')).toEqual(['a/b']);
  });

  it.each([
    ['p/../x', /the key "p\/\.\.\/x" has a "\." or "\.\."/],
    ['p/a/./x', /has a "\." or "\.\."/],
    ['p//x', /has an empty folder name/],
    ['p/a\0b', /has a zero byte/],
    [`p/${'x'.repeat(256)}`, /longer than 255 bytes/],
  ])('refuse the key %s', (key, message) => {
    expect(() => files(key)).toThrow(message);
  });

  it('refuse a path that is a file and a folder, whichever came first', () => {
    expect(() => files('p/a', 'p/a/b/c')).toThrow(/"p\/a" and "p\/a\/b\/c" need a as a file and as a folder/);
    expect(() => files('p/a/b/c', 'p/a/b')).toThrow(/need a\/b as a file and as a folder/);
  });

  it('never leave the directory, whatever the key', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom('..', '.', '/', 'a', '\0', 'p'), { maxLength: 8 }), (pieces) => {
        try {
          for (const path of files(`p/${pieces.join('')}`)) {
            expect(path.startsWith('/')).toBe(false);
            expect(path.split('/')).not.toContain('..');
          }
        } catch (error) {
          expect(String(error)).toMatch(/Failed to download data/);
        }
      }),
    );
  });
});

test('shards are disjoint, whole, and dealt one by one', () => {
  const items = ['a', 'b', 'c', 'd', 'e'];
  expect([0, 1, 2].map((host) => shardOf(items, host, 3))).toEqual([['a', 'd'], ['b', 'e'], ['c']]);
  expect(shardOf(['a'], 1, 2)).toEqual([]);
});

describe('a manifest', () => {
  it('is a prefix and keys', () => {
    expect(readManifest('[{"prefix":"s3://b/x/"},"a","b/c"]', 's3://b/m')).toEqual({
      prefix: 's3://b/x/',
      names: ['a', 'b/c'],
    });
  });

  it.each([
    ['{', /is not JSON/],
    ['{"prefix":"s3://b/"}', /is not an array/],
    ['["a"]', /does not start with a prefix/],
    ['[{"prefix":"s3://b/"}, "a", 3]', /has no key at position 2/],
  ])('that is %s is refused, saying what it should be', (text, message) => {
    expect(() => readManifest(text, 's3://b/m')).toThrow(message);
  });
});
