import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { CHECKSUM_ALGORITHMS } from './checksums.ts';
import type { DiskObjectStore } from './disk-object-store.ts';
import { type CompleteUploadInput, MIN_PART_BYTES } from './complete-parts.ts';
import { chunks, createTestStore, readAll } from './test-store.ts';

const refused = (code: string) => expect.objectContaining({ name: 'ObjectStoreError', code });
const big = randomBytes(MIN_PART_BYTES);
const small = randomBytes(1000);

function helper(
  store: DiskObjectStore,
  checksum: Parameters<typeof store.uploads.create>[0]['checksum'] = null,
) {
  const { id: uploadId } = store.uploads.create({
    bucket: 'bucket',
    key: 'k',
    metadata: { a: '1' },
    checksum,
  });
  const target = { bucket: 'bucket', key: 'k', uploadId };
  return {
    uploadId,
    put: (partNumber: number, data: Uint8Array, extra: object = {}) =>
      store.uploads.putPart({ ...target, partNumber, body: chunks(data), ...extra }),
    complete: (parts: CompleteUploadInput['parts'], extra: object = {}) =>
      store.uploads.complete({ ...target, parts, ...extra }),
    abort: () => store.uploads.abort('bucket', 'k', uploadId),
  };
}

describe('MultipartUploads', () => {
  it('makes one object of its parts without moving their bytes', async () => {
    const { store, files } = await createTestStore();
    const upload = helper(store);
    const two = await upload.put(2, small);
    const one = await upload.put(1, big);
    const before = await files();
    const object = await upload.complete([one, two]);
    expect(await files()).toEqual(before);
    const md5s = [big, small].map((data) => createHash('md5').update(data).digest());
    const etag = `${createHash('md5').update(Buffer.concat(md5s)).digest('hex')}-2`;
    expect(object).toMatchObject({ sizeBytes: big.length + 1000, etag, partCount: 2, metadata: { a: '1' } });
    const opened = await store.openObject('bucket', 'k');
    expect(opened.parts.map(({ start, end }) => [start, end])).toEqual([
      [0, big.length],
      [big.length, big.length + 1000],
    ]);
    const whole = Buffer.concat([big, small]);
    expect((await readAll(await opened.read())).equals(whole)).toBe(true);
    const range = { start: big.length - 5, end: big.length + 7 };
    expect((await readAll(await opened.read(range))).equals(whole.subarray(range.start, range.end))).toBe(
      true,
    );
    await opened.close();
  });

  it('frees what it reads across parts when the reader gives up', async () => {
    const { store, files } = await createTestStore();
    const upload = helper(store);
    const parts = [await upload.put(1, big), await upload.put(2, small)];
    await upload.complete(parts);
    const opened = await store.openObject('bucket', 'k');
    const unread = await opened.read();
    const begun = await opened.read();
    for await (const _ of begun) break;
    unread.destroy();
    await store.deleteObject('bucket', 'k');
    expect((await files()).blobs).toHaveLength(2);
    await opened.close();
    expect((await files()).blobs).toEqual([]);
  });

  it('answers a repeated completion as long as its object is there', async () => {
    const { store } = await createTestStore();
    const upload = helper(store);
    const part = await upload.put(1, small);
    const first = await upload.complete([part]);
    expect(await upload.complete([part])).toMatchObject({ etag: first.etag, modifiedAt: first.modifiedAt });
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks('other') });
    await expect(upload.complete([part])).rejects.toEqual(refused('NoSuchUpload'));
  });

  it('replaces a part that is sent again and drops parts that are not listed', async () => {
    const { store, files } = await createTestStore();
    const upload = helper(store);
    await upload.put(1, randomBytes(10));
    const one = await upload.put(1, small);
    await upload.put(7, small);
    expect((await files()).blobs).toHaveLength(2);
    await upload.complete([one]);
    expect((await files()).blobs).toHaveLength(1);
  });

  it('refuses lists of parts that S3 refuses, and can then be completed', async () => {
    const { store } = await createTestStore();
    const upload = helper(store);
    const one = await upload.put(1, small);
    const two = await upload.put(2, small);
    await expect(upload.complete([two, one])).rejects.toEqual(refused('InvalidPartOrder'));
    await expect(upload.complete([one, one])).rejects.toEqual(refused('InvalidPartOrder'));
    await expect(upload.complete([{ ...one, etag: 'x' }])).rejects.toEqual(refused('InvalidPart'));
    await expect(upload.complete([{ ...one, partNumber: 3 }])).rejects.toEqual(refused('InvalidPart'));
    await expect(upload.complete([one, two])).rejects.toEqual(refused('EntityTooSmall'));
    await expect(upload.complete([two], { expectedBytes: 1 })).rejects.toEqual(refused('InvalidRequest'));
    expect(await store.headObject('bucket', 'k')).toBeUndefined();
    expect(await upload.complete([two], { expectedBytes: 1000 })).toMatchObject({ sizeBytes: 1000 });
  });

  it.each([
    ['CRC64NVME', 'FULL_OBJECT'],
    ['CRC32', 'COMPOSITE'],
  ] as const)('keeps a %s checksum of type %s', async (algorithm, type) => {
    const { store } = await createTestStore();
    const upload = helper(store, { algorithm, type });
    const parts = [await upload.put(1, big), await upload.put(2, small)];
    const digest = (data: Uint8Array) => {
      const running = CHECKSUM_ALGORITHMS[algorithm].start();
      running.update(data);
      return running.digest();
    };
    const value =
      type === 'FULL_OBJECT'
        ? digest(Buffer.concat([big, small])).toString('base64')
        : `${digest(Buffer.concat([digest(big), digest(small)])).toString('base64')}-2`;
    const wrong = { expectedChecksum: { algorithm, value: 'AAAAAA==' } };
    await expect(upload.complete(parts as never, wrong)).rejects.toEqual(refused('BadDigest'));
    const object = await upload.complete(parts as never, { expectedChecksum: { algorithm, value } });
    expect(object.checksum).toEqual({ algorithm, type, value });
  });

  it('refuses a part with another checksum than the upload has', async () => {
    const { store, files } = await createTestStore();
    const upload = helper(store, { algorithm: 'CRC32', type: 'COMPOSITE' });
    await expect(upload.put(1, small, { checksum: { algorithm: 'SHA1' } })).rejects.toEqual(
      refused('InvalidRequest'),
    );
    const one = await upload.put(1, small);
    const parts = [{ ...one, checksum: 'AAAAAA==' }];
    await expect(upload.complete(parts)).rejects.toEqual(refused('InvalidPart'));
    expect((await files()).blobs).toHaveLength(1);
  });

  it('forgets everything when it is aborted, also a part on its way', async () => {
    const { store, files } = await createTestStore();
    const upload = helper(store);
    await upload.put(1, small);
    async function* slow() {
      yield small;
      await upload.abort();
      yield small;
    }
    await expect(upload.put(2, small, { body: slow() })).rejects.toEqual(refused('NoSuchUpload'));
    await expect(upload.abort()).rejects.toEqual(refused('NoSuchUpload'));
    expect(await files()).toEqual({ blobs: [], incoming: [] });
  });

  it('is aborted at start when nothing arrived for a week', async () => {
    const { store, clock, reopen, files } = await createTestStore();
    const day = 24 * 60 * 60 * 1000;
    const idle = helper(store);
    const busy = helper(store);
    await idle.put(1, small);
    clock.now += 6 * day;
    await busy.put(1, small);
    clock.now += 2 * day;
    const again = await reopen();
    expect(again.uploads.list('bucket', '', { key: '', id: '' }, 10).map((upload) => upload.id)).toEqual([
      busy.uploadId,
    ]);
    expect((await files()).blobs).toHaveLength(1);
  });

  it('goes with its bucket', async () => {
    const { store, files } = await createTestStore();
    await helper(store).put(1, small);
    await store.deleteBucket('bucket');
    expect((await files()).blobs).toEqual([]);
  });
});
