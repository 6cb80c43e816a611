import { randomBytes } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { chunks, createTestStore, readAll, readObject } from './test-store.ts';

const refused = (code: string) => expect.objectContaining({ name: 'ObjectStoreError', code });

describe('DiskObjectStore', () => {
  it('gives back what was put, with its etag, metadata and checksum', async () => {
    const { store } = await createTestStore();
    const info = await store.putObject({
      bucket: 'bucket',
      key: 'k',
      body: chunks('hello ', '', 'world'),
      metadata: { 'content-type': 'text/plain' },
      checksum: { algorithm: 'CRC32' },
    });
    expect(info).toMatchObject({
      sizeBytes: 11,
      etag: '5eb63bbbe01eeed093cb22bb8f5acdc3',
      metadata: { 'content-type': 'text/plain' },
      checksum: { algorithm: 'CRC32', type: 'FULL_OBJECT', value: 'DUoRhQ==' },
      partCount: null,
    });
    expect(await store.headObject('bucket', 'k')).toMatchObject(info);
    expect(await readObject(store, 'bucket', 'k')).toBe('hello world');
  });

  it('stores a body of several buffers unchanged', async () => {
    const { store } = await createTestStore();
    const pieces = Array.from({ length: 40 }, (_, i) => randomBytes(65_536 + i));
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks(...pieces) });
    const opened = await store.openObject('bucket', 'k');
    expect((await readAll(await opened.read())).equals(Buffer.concat(pieces))).toBe(true);
    await opened.close();
  });

  it('keeps objects and nothing else across a restart', async () => {
    const { store, reopen, directory, files } = await createTestStore();
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks('kept') });
    const before = await files();
    await writeFile(join(directory, 'incoming', 'half'), 'half a body');
    await writeFile(
      join(directory, 'blobs', before.blobs[0]!.slice(0, 2), 'abandoned'),
      'a blob whose row was never committed',
    );
    const again = await reopen();
    expect(await files()).toEqual(before);
    expect(await readObject(again, 'bucket', 'k')).toBe('kept');
  });

  it('leaves no trace of a body that ends in an error', async () => {
    const { store, files } = await createTestStore();
    async function* broken() {
      yield randomBytes(3 << 20);
      throw new Error('the client went away');
    }
    await expect(store.putObject({ bucket: 'bucket', key: 'k', body: broken() })).rejects.toThrow(
      'the client went away',
    );
    expect(await store.headObject('bucket', 'k')).toBeUndefined();
    expect(await files()).toEqual({ blobs: [], incoming: [] });
  });

  it('leaves no trace of a body that does not match its digest', async () => {
    const { store, files } = await createTestStore();
    const put = (extra: object) =>
      store.putObject({ bucket: 'bucket', key: 'k', body: chunks('hello world'), ...extra });
    await expect(put({ contentMd5: 'AAAAAAAAAAAAAAAAAAAAAA==' })).rejects.toEqual(refused('BadDigest'));
    const checksum = { algorithm: 'CRC32', expected: () => 'AAAAAA==' };
    await expect(put({ checksum })).rejects.toEqual(refused('BadDigest'));
    expect(await files()).toEqual({ blobs: [], incoming: [] });
  });

  it('says that the disk is full when it is, and keeps the old object', async () => {
    const { store, files } = await createTestStore();
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks('old') });
    const before = await files();
    async function* full() {
      yield Buffer.from('new');
      throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    }
    await expect(store.putObject({ bucket: 'bucket', key: 'k', body: full() })).rejects.toEqual(
      refused('InsufficientStorage'),
    );
    expect(await readObject(store, 'bucket', 'k')).toBe('old');
    expect(await files()).toEqual(before);
  });

  it('removes the bytes that an overwrite or a deletion makes unreachable', async () => {
    const { store, files } = await createTestStore();
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks('one') });
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks('two') });
    expect((await files()).blobs).toHaveLength(1);
    expect(await readObject(store, 'bucket', 'k')).toBe('two');
    await store.deleteObject('bucket', 'k');
    await store.deleteObject('bucket', 'k');
    expect((await files()).blobs).toEqual([]);
  });

  it('lets a reader finish the version that it opened', async () => {
    const { store, files } = await createTestStore();
    const old = randomBytes(2 << 20);
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks(old) });
    const opened = await store.openObject('bucket', 'k');
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks('new') });
    expect((await files()).blobs).toHaveLength(2);
    expect((await readAll(await opened.read())).equals(old)).toBe(true);
    await opened.close();
    await opened.close();
    expect((await files()).blobs).toHaveLength(1);
  });

  it('reports a missing blob before a reader has seen any byte', async () => {
    const { store, directory, files } = await createTestStore();
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks('gone') });
    const { blobs } = await files();
    for (const name of blobs) await rm(join(directory, 'blobs', name.slice(0, 2), name));
    const opened = await store.openObject('bucket', 'k');
    await expect(opened.read()).rejects.toThrow('ENOENT');
    await opened.close();
  });

  it('never makes a path of a key', async () => {
    const { store, files, reopen } = await createTestStore();
    const keys = [
      '../../../etc/passwd',
      '/etc/passwd',
      '..',
      '.',
      'a//b',
      'nul\0byte',
      'x'.repeat(1024),
      'C:\\a',
      '%2e%2e/',
      '😀\uff5e',
    ];
    for (const key of keys) await store.putObject({ bucket: 'bucket', key, body: chunks(key) });
    const { blobs } = await files();
    expect(blobs).toHaveLength(keys.length);
    for (const name of blobs) expect(name).toMatch(/^[0-9a-f]{32}$/);
    const again = await reopen();
    for (const key of keys) expect(await readObject(again, 'bucket', key)).toBe(key);
    const listed = (await again.listObjects({ bucket: 'bucket' })).objects.map((object) => object.key);
    expect(listed).toEqual(keys.toSorted((x, y) => Buffer.compare(Buffer.from(x), Buffer.from(y))));
  });

  it('lets only one of two conditional creations win', async () => {
    const { store, files } = await createTestStore();
    const put = (text: string) =>
      store.putObject({ bucket: 'bucket', key: 'k', body: chunks(text), condition: { ifAbsent: true } });
    const results = await Promise.allSettled([put('a'), put('b'), put('c')]);
    expect(results.filter((result) => result.status === 'fulfilled')).toHaveLength(1);
    for (const result of results) {
      if (result.status === 'rejected') expect(result.reason).toEqual(refused('PreconditionFailed'));
    }
    expect((await files()).blobs).toHaveLength(1);
  });

  it('overwrites and deletes by etag', async () => {
    const { store } = await createTestStore();
    const { etag } = await store.putObject({ bucket: 'bucket', key: 'k', body: chunks('one') });
    const put = (ifMatch: string[], key = 'k') =>
      store.putObject({ bucket: 'bucket', key, body: chunks('two'), condition: { ifMatch } });
    await expect(put(['other'])).rejects.toEqual(refused('PreconditionFailed'));
    await expect(put(['*'], 'absent')).rejects.toEqual(refused('NoSuchKey'));
    await put([etag]);
    await expect(store.deleteObject('bucket', 'k', { ifMatch: [etag] })).rejects.toEqual(
      refused('PreconditionFailed'),
    );
    expect(await readObject(store, 'bucket', 'k')).toBe('two');
  });

  it('copies an object onto bytes of its own', async () => {
    const { store, files } = await createTestStore();
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks('text'), metadata: { a: '1' } });
    await store.copyObject({ source: { bucket: 'bucket', key: 'k' }, bucket: 'bucket', key: 'copy' });
    await store.copyObject({
      source: { bucket: 'bucket', key: 'k' },
      bucket: 'bucket',
      key: 'k',
      metadata: { a: '2' },
      checksumAlgorithm: 'SHA256',
    });
    await store.deleteObject('bucket', 'k');
    expect(await readObject(store, 'bucket', 'copy')).toBe('text');
    expect(await store.headObject('bucket', 'copy')).toMatchObject({ metadata: { a: '1' }, checksum: null });
    expect((await files()).blobs).toHaveLength(1);
  });

  it('computes a checksum that a copy asks for', async () => {
    const { store } = await createTestStore();
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks('123456789') });
    const source = { bucket: 'bucket', key: 'k' };
    const copy = await store.copyObject({ source, bucket: 'bucket', key: 'c', checksumAlgorithm: 'CRC32' });
    expect(copy.checksum).toEqual({ algorithm: 'CRC32', type: 'FULL_OBJECT', value: 'y/Q5Jg==' });
  });

  it('creates a bucket once and deletes it only when it is empty', async () => {
    const { store } = await createTestStore();
    await expect(store.createBucket('bucket')).rejects.toEqual(refused('BucketAlreadyOwnedByYou'));
    await expect(store.createBucket('B')).rejects.toEqual(refused('InvalidBucketName'));
    await store.ensureBucket('bucket');
    await store.ensureBucket('ccc');
    expect((await store.listBuckets()).map((bucket) => bucket.name)).toEqual(['bucket', 'ccc']);
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks('x') });
    await expect(store.deleteBucket('bucket')).rejects.toEqual(refused('BucketNotEmpty'));
    await store.deleteObject('bucket', 'k');
    await store.deleteBucket('bucket');
    expect(await store.bucketExists('bucket')).toBe(false);
    await expect(store.listObjects({ bucket: 'bucket' })).rejects.toEqual(refused('NoSuchBucket'));
    await expect(store.putObject({ bucket: 'bucket', key: 'k', body: chunks('x') })).rejects.toEqual(
      refused('NoSuchBucket'),
    );
  });

  it('counts what it holds', async () => {
    const { store } = await createTestStore();
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks('12345') });
    const upload = store.uploads.create({ bucket: 'bucket', key: 'm', metadata: {}, checksum: null });
    await store.uploads.putPart({
      bucket: 'bucket',
      key: 'm',
      uploadId: upload.id,
      partNumber: 1,
      body: chunks('123'),
    });
    const { freeBytes, ...counts } = await store.usage();
    expect(counts).toEqual({ bucketCount: 1, objectCount: 1, objectBytes: 5, pendingUploadBytes: 3 });
    expect(freeBytes).toBeGreaterThan(0);
  });
});
