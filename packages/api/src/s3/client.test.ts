import { createHash } from 'node:crypto';
import { crc32 as nodeCrc32 } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { crc32 } from '../crc32.ts';
import { parseQuery } from '../sigv4/canonical.ts';
import { sha256Hex } from '../sigv4/sign.ts';
import { verifySignature } from '../sigv4/verify.ts';
import { escapeXml } from '../xml.ts';
import { createS3Client, type ListEntry, type S3ClientOptions } from './client.ts';

/**
 * A store in place of `fetch`: it verifies every signature, keeps objects in a map and speaks only what these
 * tests need. It differs from S3 in that it pages after two keys and never has more than one bucket owner.
 */
const credentials = { accessKeyId: 'AKIAEXAMPLE', secretAccessKey: 'secret' };
const etagOf = (bytes: Uint8Array) => `"${createHash('md5').update(bytes).digest('hex')}"`;
const modified = 'Tue, 24 Nov 2026 12:00:00 GMT';

interface Stored {
  bytes: Uint8Array;
  headers: Record<string, string>;
}

class FakeStore {
  readonly buckets = new Map<string, Map<string, Stored>>();
  readonly uploads = new Map<string, Map<number, Uint8Array>>();
  readonly log: string[] = [];
  readonly headers: Record<string, string>[] = [];
  /** Asked before each request is served; what it returns or throws is the answer. */
  fault: (line: string) => Response | undefined | void = () => {};
  /** Cuts GET bodies: after how many bytes, for the next answers in turn. */
  cuts: number[] = [];

  readonly fetch: typeof fetch = async (input, init) => {
    init?.signal?.throwIfAborted();
    const { pathname, search, host } = new URL(String(input));
    const headers = init?.headers as Record<string, string>;
    const body = await bytesOf(init?.body);
    const method = init?.method ?? 'GET';
    const line = `${method} ${decodeURIComponent(pathname)}${search.replace(/prefix=&|&?encoding-type=url/g, '')}`;
    this.log.push(line);
    this.headers.push(headers);
    const verdict = await verifySignature(
      { method, target: pathname + search, rawHeaders: Object.entries({ ...headers, host }).flat(), body },
      () => credentials,
      { now: Date.now(), services: ['s3'] },
    );
    if (!verdict.ok) return failure(403, 'SignatureDoesNotMatch', verdict.message);
    return (
      this.fault(line) ?? this.serve(method, pathname, Object.fromEntries(parseQuery(search)), headers, body)
    );
  };

  serve(
    method: string,
    path: string,
    query: Record<string, string>,
    headers: Record<string, string>,
    body: Uint8Array,
  ): Response {
    const [, name = '', ...rest] = path.split('/').map(decodeURIComponent);
    if (name === '')
      return xml(
        `<ListAllMyBucketsResult><Buckets>${[...this.buckets.keys()].map((bucket) => `<Bucket><Name>${bucket}</Name><CreationDate>2026-11-24T12:00:00.000Z</CreationDate></Bucket>`).join('')}</Buckets></ListAllMyBucketsResult>`,
      );
    const bucket = this.buckets.get(name);
    const key = rest.join('/');
    if (rest.length === 0 && method === 'PUT') {
      if (bucket) return failure(409, 'BucketAlreadyOwnedByYou', 'yours');
      this.buckets.set(name, new Map());
      return new Response();
    }
    if (!bucket)
      return method === 'HEAD' ? new Response(null, { status: 404 }) : failure(404, 'NoSuchBucket', 'none');
    if (rest.length === 0) return method === 'HEAD' ? new Response() : listing(bucket, query);
    if ('uploads' in query) {
      this.uploads.set('id/1+', new Map());
      return xml('<InitiateMultipartUploadResult><UploadId>id/1+</UploadId></InitiateMultipartUploadResult>');
    }
    if (query.uploadId !== undefined) return this.serveUpload(method, bucket, key, query, body);
    if (method === 'PUT') {
      bucket.set(key, { bytes: body, headers });
      return new Response(null, { headers: { etag: etagOf(body) } });
    }
    if (method === 'DELETE') {
      bucket.delete(key);
      return new Response(null, { status: 204 });
    }
    return this.read(method, bucket.get(key), query, headers);
  }

  serveUpload(
    method: string,
    bucket: Map<string, Stored>,
    key: string,
    query: Record<string, string>,
    body: Uint8Array,
  ): Response {
    const parts = this.uploads.get(query.uploadId!);
    if (!parts) return failure(404, 'NoSuchUpload', 'none');
    if (method === 'PUT') {
      parts.set(Number(query.partNumber), body);
      return new Response(null, { headers: { etag: etagOf(body) } });
    }
    this.uploads.delete(query.uploadId!);
    if (method === 'DELETE') return new Response(null, { status: 204 });
    const listed = [
      ...new TextDecoder().decode(body).matchAll(/<PartNumber>(\d+)<\/PartNumber><ETag>([^<]*)</g),
    ];
    for (const [, number, etag] of listed) {
      if (etag !== escapeXml(etagOf(parts.get(Number(number))!)))
        return xml('<Error><Code>InvalidPart</Code></Error>');
    }
    const bytes = Buffer.concat(listed.map(([, number]) => parts.get(Number(number))!));
    bucket.set(key, { bytes, headers: {} });
    return xml(
      `<CompleteMultipartUploadResult><ETag>"x-${listed.length}"</ETag></CompleteMultipartUploadResult>`,
    );
  }

  read(
    method: string,
    stored: Stored | undefined,
    query: Record<string, string>,
    headers: Record<string, string>,
  ): Response {
    if (!stored)
      return method === 'HEAD' ? new Response(null, { status: 404 }) : failure(404, 'NoSuchKey', 'none');
    if (headers['if-match'] && headers['if-match'] !== etagOf(stored.bytes))
      return failure(412, 'PreconditionFailed', 'changed');
    const size = stored.bytes.byteLength;
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? '') ?? [];
    const start = Number(first ?? 0);
    const end = Math.min(last ? Number(last) : size - 1, size - 1);
    if (first !== undefined && start >= size) return failure(416, 'InvalidRange', 'no');
    const bytes = stored.bytes.subarray(start, end + 1);
    const encoding = query['response-content-encoding'] ?? stored.headers['content-encoding'];
    const answer = {
      'content-length': String(bytes.byteLength),
      'last-modified': modified,
      etag: etagOf(stored.bytes),
      ...(first === undefined ? {} : { 'content-range': `bytes ${start}-${end}/${size}` }),
      ...(encoding === undefined ? {} : { 'content-encoding': encoding }),
      ...Object.fromEntries(
        Object.entries(stored.headers).filter(([name]) => /^(content-type|x-amz-meta-)/.test(name)),
      ),
    };
    const cut = this.cuts.shift();
    const body =
      method === 'HEAD' ? null : cut === undefined ? bytes.slice() : breakingAfter(bytes.slice(0, cut));
    return new Response(body, { status: first === undefined ? 200 : 206, headers: answer });
  }
}

function breakingAfter(bytes: Uint8Array): ReadableStream<Uint8Array> {
  let isSent = false;
  return new ReadableStream({
    pull(controller) {
      if (isSent || bytes.byteLength === 0) return controller.error(new TypeError('terminated'));
      isSent = true;
      controller.enqueue(bytes);
    },
  });
}

function listing(bucket: Map<string, Stored>, query: Record<string, string>): Response {
  const {
    prefix = '',
    delimiter = '',
    'start-after': startAfter = '',
    'continuation-token': token = '',
  } = query;
  const found = new Set<string>();
  for (const key of [...bucket.keys()].sort()) {
    const cut = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length);
    if (key.startsWith(prefix) && key > startAfter) found.add(cut < 0 ? key : key.slice(0, cut + 1));
  }
  const names = [...found].filter((name) => name > token);
  const page = names.slice(0, Math.min(2, Number(query['max-keys'])));
  const encoded = (text: string) => encodeURIComponent(text).replaceAll('%20', '+').replaceAll('%2F', '/');
  const items = page.map((name) =>
    bucket.has(name)
      ? `<Contents><Key>${encoded(name)}</Key><LastModified>2026-11-24T12:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag><Size>${bucket.get(name)!.bytes.byteLength}</Size></Contents>`
      : `<CommonPrefixes><Prefix>${encoded(name)}</Prefix></CommonPrefixes>`,
  );
  const next =
    names.length > page.length
      ? `<IsTruncated>true</IsTruncated><NextContinuationToken>${escapeXml(page.at(-1)!)}</NextContinuationToken>`
      : '<IsTruncated>false</IsTruncated>';
  return xml(`<ListBucketResult><EncodingType>url</EncodingType>${items.join('')}${next}</ListBucketResult>`);
}

const xml = (text: string, status = 200) =>
  new Response(`<?xml version="1.0" encoding="UTF-8"?>\n${text}`, { status });
const failure = (status: number, code: string, message: string) =>
  xml(`<Error><Code>${code}</Code><Message>${message}</Message><RequestId>r</RequestId></Error>`, status);

async function bytesOf(body: unknown): Promise<Uint8Array> {
  return new Uint8Array(await new Response((body ?? null) as BodyInit | null).arrayBuffer());
}

const bytes = (size: number, seed = 0) =>
  Uint8Array.from({ length: size }, (_, at) => (at * 31 + seed) & 0xff);
const readAll = async (body: ReadableStream<Uint8Array>) =>
  new Uint8Array(await new Response(body).arrayBuffer());

let store: FakeStore;
const connect = (options: Partial<S3ClientOptions> = {}) =>
  createS3Client({
    endpoint: 'http://127.0.0.1:9000',
    region: 'us-west-2',
    credentials,
    fetch: store.fetch,
    ...options,
  });

async function collect(entries: AsyncIterable<ListEntry>): Promise<string[]> {
  const names: string[] = [];
  for await (const entry of entries) names.push(entry.kind === 'object' ? entry.key : `${entry.prefix}…`);
  return names;
}

/** Lets retries happen without waiting. */
async function settle<T>(call: Promise<T>): Promise<T> {
  call.catch(() => {});
  for (let ended = false; !ended; ) {
    ended = await Promise.race([
      call.then(
        () => true,
        () => true,
      ),
      new Promise<false>((resolve) => setImmediate(() => resolve(false))),
    ]);
    // Signing takes real time; the clock may only move while somebody waits for it.
    if (vi.getTimerCount() > 0) await vi.advanceTimersByTimeAsync(1000);
  }
  return call;
}

beforeEach(() => {
  vi.useFakeTimers({ now: Date.UTC(2026, 10, 24, 12), toFake: ['setTimeout', 'clearTimeout', 'Date'] });
  store = new FakeStore();
  store.buckets.set('b', new Map());
});
afterEach(() => {
  vi.useRealTimers();
});

describe('buckets', () => {
  test('are made once, found and listed', async () => {
    const s3 = connect();
    expect(await s3.headBucket({ bucket: 'new' })).toBe(false);
    await s3.createBucket({ bucket: 'new' });
    await s3.createBucket({ bucket: 'new' });
    expect(await s3.headBucket({ bucket: 'new' })).toBe(true);
    expect(await s3.listBuckets()).toEqual([
      { name: 'b', createdAt: new Date('2026-11-24T12:00:00Z') },
      { name: 'new', createdAt: new Date('2026-11-24T12:00:00Z') },
    ]);
  });
  test('of somebody else are an error, not absent', async () => {
    store.fault = () => new Response(null, { status: 403 });
    await expect(connect().headBucket({ bucket: 'b' })).rejects.toMatchObject({
      code: 'AccessDenied',
      status: 403,
    });
  });
});

describe('objects', () => {
  test.each(['plain', 'a b/ü+~%2F?#&=.txt', '/leading//double/', '日本/🚂', "it's (x)!*"])(
    'keep the key %j as it stands',
    async (key) => {
      const s3 = connect();
      const body = new TextEncoder().encode(key);
      const headers = { 'content-type': 'text/x', 'x-amz-meta-owner': 'me' };
      expect(await s3.putObject({ bucket: 'b', key, body, headers })).toEqual({ etag: etagOf(body) });
      expect([...store.buckets.get('b')!.keys()]).toEqual([key]);
      expect(await s3.headObject({ bucket: 'b', key })).toEqual({
        sizeBytes: body.byteLength,
        etag: etagOf(body),
        lastModified: new Date(modified),
        contentType: 'text/x',
        metadata: { owner: 'me' },
      });
      expect(await readAll((await s3.getObject({ bucket: 'b', key })).body)).toEqual(body);
      expect(await collect(s3.listObjects({ bucket: 'b' }))).toEqual([key]);
      await s3.deleteObject({ bucket: 'b', key });
      await expect(s3.headObject({ bucket: 'b', key })).rejects.toMatchObject({
        code: 'NoSuchKey',
        data: { bucket: 'b', key },
      });
      await expect(s3.getObject({ bucket: 'b', key })).rejects.toMatchObject({
        code: 'NoSuchKey',
        message: 'none',
      });
    },
  );
  test.each(['a/../b', './a', '..'])('whose key %j a URL would change are refused', async (key) => {
    await expect(connect().getObject({ bucket: 'b', key })).rejects.toThrow(
      /has the segment '\.\.?', which a URL cannot carry/,
    );
    expect(store.log).toEqual([]);
  });
  test('below a path of the endpoint are found', async () => {
    store.fault = () => new Response(null, { headers: { etag: '"e"' } });
    await connect({ endpoint: 'http://127.0.0.1:9000/base/' }).putObject({
      bucket: 'b',
      key: 'k',
      body: 'x',
    });
    expect(store.log).toEqual(['PUT /base/b/k']);
  });
  test('may be read in part', async () => {
    const s3 = connect();
    await s3.putObject({ bucket: 'b', key: 'k', body: bytes(100) });
    const part = await s3.getObject({ bucket: 'b', key: 'k', range: { start: 10, end: 19 } });
    expect([part.sizeBytes, part.bodyBytes]).toEqual([100, 10]);
    expect(await readAll(part.body)).toEqual(bytes(100).subarray(10, 20));
    const rest = await s3.getObject({ bucket: 'b', key: 'k', range: { start: 90 } });
    expect(await readAll(rest.body)).toEqual(bytes(100).subarray(90));
    await expect(s3.getObject({ bucket: 'b', key: 'k', range: { start: 100 } })).rejects.toMatchObject({
      code: 'InvalidRange',
    });
  });
  test('that are empty have an empty body', async () => {
    const s3 = connect();
    await s3.putObject({ bucket: 'b', key: 'k', body: '' });
    expect(await readAll((await s3.getObject({ bucket: 'b', key: 'k' })).body)).toHaveLength(0);
  });
  test('stored with Content-Encoding come raw', async () => {
    const s3 = connect();
    await s3.putObject({ bucket: 'b', key: 'k', body: bytes(50), headers: { 'content-encoding': 'gzip' } });
    expect(await readAll((await s3.getObject({ bucket: 'b', key: 'k' })).body)).toEqual(bytes(50));
    expect(store.log.at(-1)).toBe('GET /b/k?response-content-encoding=identity');
  });
});

describe('a body whose connection breaks', () => {
  const put = async () => {
    const s3 = connect();
    await s3.putObject({ bucket: 'b', key: 'k', body: bytes(1000) });
    store.log.length = 0;
    return s3;
  };
  test('goes on where it stopped', async () => {
    const s3 = await put();
    store.cuts = [400, 100, 0];
    const { body } = await s3.getObject({ bucket: 'b', key: 'k' });
    expect(await readAll(body)).toEqual(bytes(1000));
    expect(store.headers.slice(1).map(({ range }) => range)).toEqual([
      undefined,
      'bytes=400-999',
      'bytes=500-999',
      'bytes=500-999',
    ]);
  });
  test('of a range goes on inside the range', async () => {
    const s3 = await put();
    store.cuts = [5];
    const { body } = await s3.getObject({ bucket: 'b', key: 'k', range: { start: 100, end: 119 } });
    expect(await readAll(body)).toEqual(bytes(1000).subarray(100, 120));
    expect(store.headers.at(-1)).toMatchObject({ range: 'bytes=105-119' });
  });
  test('never joins two versions of an object', async () => {
    const s3 = await put();
    store.cuts = [400];
    const { body } = await s3.getObject({ bucket: 'b', key: 'k' });
    await s3.putObject({ bucket: 'b', key: 'k', body: bytes(1000, 1) });
    await expect(readAll(body)).rejects.toMatchObject({ code: 'PreconditionFailed' });
  });
  test('fails after three times without a byte', async () => {
    const s3 = await put();
    store.cuts = [0, 0, 0];
    const { body } = await s3.getObject({ bucket: 'b', key: 'k' });
    await expect(readAll(body)).rejects.toMatchObject({
      code: 'ConnectionFailed',
      data: { received: 0, totalBytes: 1000 },
    });
  });
  test('is not asked for again when its reader goes away', async () => {
    const s3 = await put();
    const { body } = await s3.getObject({ bucket: 'b', key: 'k' });
    await body.cancel();
    expect(store.log).toEqual(['GET /b/k']);
  });
});

describe('listing', () => {
  beforeEach(() => {
    for (const key of ['a/1', 'a/2', 'a/x/3', 'b c', 'd'])
      store.buckets.get('b')!.set(key, { bytes: bytes(3), headers: {} });
  });
  test('goes over all pages', async () => {
    expect(await collect(connect().listObjects({ bucket: 'b' }))).toEqual([
      'a/1',
      'a/2',
      'a/x/3',
      'b c',
      'd',
    ]);
    expect(store.log).toHaveLength(3);
  });
  test('by prefix, delimiter and place', async () => {
    const s3 = connect();
    expect(await collect(s3.listObjects({ bucket: 'b', prefix: 'a/', delimiter: '/' }))).toEqual([
      'a/1',
      'a/2',
      'a/x/…',
    ]);
    expect(await collect(s3.listObjects({ bucket: 'b', startAfter: 'a/x/3' }))).toEqual(['b c', 'd']);
  });
  test('asks for no more pages than are read', async () => {
    for await (const _ of connect().listObjects({ bucket: 'b' })) break;
    expect(store.log).toHaveLength(1);
  });
  test('of a bucket that is not there says so', async () => {
    await expect(collect(connect().listObjects({ bucket: 'none' }))).rejects.toMatchObject({
      code: 'NoSuchBucket',
    });
  });
});

describe('what is sent', () => {
  test('is covered by the signature, except a Blob', async () => {
    const s3 = connect();
    await s3.putObject({ bucket: 'b', key: 'k', body: bytes(10) });
    await s3.putObject({ bucket: 'b', key: 'k', body: new Blob([bytes(10)]) });
    expect(store.headers.map((headers) => headers['x-amz-content-sha256'])).toEqual([
      await sha256Hex(bytes(10)),
      'UNSIGNED-PAYLOAD',
    ]);
  });
  test('as a Blob has a checksum where the caller gives a fast one', async () => {
    await connect({ crc32: nodeCrc32 }).putObject({ bucket: 'b', key: 'k', body: new Blob(['123456789']) });
    expect(store.headers[0]).toMatchObject({
      'x-amz-checksum-crc32': 'y/Q5Jg==',
      'x-amz-sdk-checksum-algorithm': 'CRC32',
    });
    expect(crc32(new TextEncoder().encode('123456789'))).toBe(0xcbf43926);
    expect(crc32(bytes(9).subarray(4), crc32(bytes(9).subarray(0, 4)))).toBe(nodeCrc32(bytes(9)));
  });
  test('is tried again after 503 SlowDown', async () => {
    let failures = 2;
    store.fault = () => (failures-- > 0 ? failure(503, 'SlowDown', 'slow') : undefined);
    expect(await settle(connect().putObject({ bucket: 'b', key: 'k', body: 'x' }))).toHaveProperty('etag');
    expect(store.log).toHaveLength(3);
  });
  test('is not tried again after a refusal', async () => {
    store.fault = () => failure(403, 'AccessDenied', 'no');
    await expect(settle(connect().putObject({ bucket: 'b', key: 'k', body: 'x' }))).rejects.toMatchObject({
      code: 'AccessDenied',
      message: 'no',
    });
    expect(store.log).toHaveLength(1);
  });
});

describe('a multipart upload', () => {
  async function* parts(...sizes: number[]) {
    for (const [at, size] of sizes.entries())
      yield at % 2 === 0 ? bytes(size, at) : new Blob([bytes(size, at)]);
  }
  const whole = (...sizes: number[]) =>
    new Uint8Array(Buffer.concat(sizes.map((size, at) => bytes(size, at))));
  const stored = () => store.buckets.get('b')!.get('k')?.bytes;

  test('joins its parts in order, however they are sent', async () => {
    const sizes = [50, 40, 30, 20, 10, 5, 1];
    const result = await connect().uploadMultipart({
      bucket: 'b',
      key: 'k',
      parts: parts(...sizes),
      concurrency: 3,
    });
    expect(result).toEqual({ etag: '"x-7"', sizeBytes: 156 });
    expect(new Uint8Array(stored()!)).toEqual(whole(...sizes));
  });
  test.each([[[] as number[]], [[12]]])('of %j parts is one PutObject', async (sizes) => {
    const result = await connect().uploadMultipart({ bucket: 'b', key: 'k', parts: parts(...sizes) });
    expect(result).toEqual({ etag: etagOf(whole(...sizes)), sizeBytes: sizes[0] ?? 0 });
    expect(store.log).toEqual(['PUT /b/k']);
  });
  test('tries a part again that met a fault', async () => {
    let failures = 1;
    store.fault = (line) =>
      line.includes('partNumber=2') && failures-- > 0 ? failure(500, 'InternalError', 'x') : undefined;
    await settle(connect().uploadMultipart({ bucket: 'b', key: 'k', parts: parts(9, 8, 7) }));
    expect(new Uint8Array(stored()!)).toEqual(whole(9, 8, 7));
  });
  test('that fails is aborted, leaves no parts and closes its source', async () => {
    let isClosed = false;
    async function* source() {
      try {
        yield* parts(9, 8, 7, 6, 5, 4, 3);
      } finally {
        isClosed = true;
      }
    }
    store.fault = (line) => (line.includes('partNumber=2') ? failure(403, 'AccessDenied', 'no') : undefined);
    await expect(
      settle(connect().uploadMultipart({ bucket: 'b', key: 'k', parts: source(), concurrency: 2 })),
    ).rejects.toMatchObject({ code: 'AccessDenied' });
    expect([store.uploads.size, stored(), isClosed]).toEqual([0, undefined, true]);
    expect(store.log.at(-1)).toBe('DELETE /b/k?uploadId=id%2F1%2B');
  });
  test('whose source fails is aborted', async () => {
    async function* source() {
      yield* parts(9, 8, 7);
      throw new Error('disk');
    }
    await expect(
      settle(connect().uploadMultipart({ bucket: 'b', key: 'k', parts: source() })),
    ).rejects.toThrow('disk');
    expect(store.uploads.size).toBe(0);
  });
  test('that S3 refuses after it said 200 is an error', async () => {
    store.fault = (line) =>
      /^POST .*uploadId/.test(line)
        ? xml('<Error><Code>InternalError</Code><Message>late</Message></Error>')
        : undefined;
    await expect(
      settle(connect().uploadMultipart({ bucket: 'b', key: 'k', parts: parts(9, 8) })),
    ).rejects.toThrow('late');
    expect(store.uploads.size).toBe(0);
  });
  test('that is stopped is aborted', async () => {
    const controller = new AbortController();
    store.fault = (line) => {
      if (line.includes('partNumber=3')) controller.abort(new Error('stopped'));
    };
    const call = connect().uploadMultipart({
      bucket: 'b',
      key: 'k',
      parts: parts(9, 8, 7, 6, 5),
      concurrency: 1,
      signal: controller.signal,
    });
    await expect(settle(call)).rejects.toThrow('stopped');
    expect(store.uploads.size).toBe(0);
  });
});
