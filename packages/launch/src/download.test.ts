import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ObjectBody } from '@trainyard/api';
import { s3Error } from '@trainyard/api';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Downloader } from './download.ts';
import { downloadFiles } from './download.ts';
import type { ObjectFile } from './object-paths.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'trainyard-download-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const md5 = (text: string): string => `"${createHash('md5').update(text).digest('hex')}"`;
const file = (key: string, text: string, etag = md5(text)): ObjectFile => ({
  key,
  path: key,
  sizeBytes: text.length,
  etag,
});

/** Answers each key's texts in turn, the last one for ever. */
function storeOf(texts: Record<string, (string | Error)[]>): Downloader & { asked: string[] } {
  const asked: string[] = [];
  return {
    asked,
    getObject: async ({ key }): Promise<ObjectBody> => {
      asked.push(key);
      const answers = texts[key]!;
      const answer = answers.length > 1 ? answers.shift()! : answers[0]!;
      if (answer instanceof Error) throw answer;
      const body = new Response(answer).body as ObjectBody['body'];
      return {
        body,
        sizeBytes: answer.length,
        bodyBytes: answer.length,
        etag: '',
        lastModified: new Date(0),
        contentType: null,
        metadata: {},
      };
    },
  };
}

const download = (s3: Downloader, files: ObjectFile[]) =>
  downloadFiles(files, {
    s3,
    bucket: 'b',
    directory: join(root, 'data'),
    partialDirectory: join(root, 'partial'),
    signal: new AbortController().signal,
  });

test('files arrive whole, and nothing partial stays', async () => {
  const s3 = storeOf({ 'x/a': ['aaa'], b: [''] });
  expect(await download(s3, [file('x/a', 'aaa'), file('b', '')])).toEqual({ files: 2, sizeBytes: 3 });
  expect(readFileSync(join(root, 'data/x/a'), 'utf8')).toBe('aaa');
  expect(existsSync(join(root, 'partial'))).toBe(false);
});

test('what is whole already is not fetched again', async () => {
  mkdirSync(join(root, 'data'));
  writeFileSync(join(root, 'data/a'), 'aaa');
  const s3 = storeOf({ a: ['aaa'], b: ['bb'] });
  await download(s3, [file('a', 'aaa'), file('b', 'bb')]);
  expect(s3.asked).toEqual(['b']);
});

test('a broken connection is tried again, a refusal is not', async () => {
  const s3 = storeOf({ a: [new TypeError('fetch failed'), 'aaa'] });
  await download(s3, [file('a', 'aaa')]);
  expect(s3.asked).toEqual(['a', 'a']);
  await expect(
    download(storeOf({ c: [s3Error('AccessDenied', { message: 'no' })] }), [file('c', 'c')]),
  ).rejects.toMatchObject({
    code: 'AccessDenied',
  });
});

test('damage on the way is noticed by the MD5; an ETag that is none is not taken for damage', async () => {
  await expect(download(storeOf({ a: ['aXa', 'aYa'] }), [file('a', 'aaa')])).rejects.toThrow(
    'two reads of s3://b/a gave different bytes',
  );
  await download(storeOf({ k: ['aaa'] }), [file('k', 'aaa', md5('encrypted'))]);
  expect(readFileSync(join(root, 'data/k'), 'utf8')).toBe('aaa');
  await download(storeOf({ m: ['aaa'] }), [file('m', 'aaa', '"0123456789abcdef0123456789abcdef-3"')]);
});
