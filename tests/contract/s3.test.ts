import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import {
  CopyObjectCommand,
  CreateBucketCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListBucketsCommand,
  NoSuchKey,
  paginateListObjectsV2,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { presignUrl } from '@trainyard/api';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clientBin, runClient } from '../support/clients.ts';
import { RUNTIME_PYTHON, startService, type TestService } from '../support/service.ts';
import { until } from '../support/until.ts';

const BIG_BYTES = 200 << 20;
const MANY = 2500;
const BUCKET = 'contract';

let service: TestService;
let home: string;
let s3: S3Client;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'trainyard-s3-'));
  service = await startService();
  s3 = clientFor(service);
  await s3.send(new CreateBucketCommand({ Bucket: BUCKET }));
});

afterAll(async () => {
  s3?.destroy();
  await service?.dispose();
  if (home) await rm(home, { recursive: true, force: true });
});

function clientFor({ url, credentials }: TestService, options: object = {}): S3Client {
  return new S3Client({
    endpoint: url,
    region: 'us-west-2',
    credentials: { ...credentials }, // the SDK adds to it
    forcePathStyle: true,
    maxAttempts: 1,
    ...options,
  });
}

/** Everything that the store has on disk: blobs, and bodies that are on their way. */
async function filesOf(kind: 'blobs' | 'incoming'): Promise<string[]> {
  const entries = await readdir(join(service.dataDir, 'objects', kind), {
    recursive: true,
    withFileTypes: true,
  });
  return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

describe('AWS CLI', () => {
  let bin: string;
  const aws = async (...args: string[]) => {
    const outcome = await runClient(join(bin, 'aws'), args, { environment: service.environment, home });
    if (outcome.code !== 0)
      throw new Error(`aws ${args.join(' ')} ended with ${outcome.code}: ${outcome.stderr}`);
    return outcome.stdout;
  };

  beforeAll(async () => {
    bin = await clientBin();
  }, 300_000);

  it('makes a bucket, copies 200 MB up, down and across with equal bytes, and removes everything', async () => {
    await writeRandomFile(join(home, 'big'), BIG_BYTES);
    await aws('s3', 'mb', 's3://cli-bucket');
    await aws('s3', 'cp', '--quiet', 'big', 's3://cli-bucket/folder/big');
    await aws('s3', 'cp', '--quiet', 's3://cli-bucket/folder/big', 's3://cli-bucket/copy');
    expect(await aws('s3', 'ls', '--recursive', 's3://cli-bucket')).toMatch(
      /209715200 copy\n.*209715200 folder\/big\n$/,
    );
    await aws('s3', 'cp', '--quiet', 's3://cli-bucket/copy', 'down');
    expect(await sha256Of(join(home, 'down'))).toBe(await sha256Of(join(home, 'big')));
    await aws('s3', 'rb', '--force', 's3://cli-bucket');
    expect(await aws('s3', 'ls')).not.toContain('cli-bucket');
    expect(await filesOf('blobs')).toEqual([]);
  });

  it('syncs a folder once, and then only what changed', async () => {
    const folder = join(home, 'folder');
    await mkdir(join(folder, 'sub'), { recursive: true });
    await writeFile(join(folder, 'a b.txt'), 'one');
    await writeFile(join(folder, 'sub', 'ü+.txt'), 'two');
    expect((await aws('s3', 'sync', folder, `s3://${BUCKET}/sync`)).match(/upload:/g)).toHaveLength(2);
    expect(await aws('s3', 'sync', folder, `s3://${BUCKET}/sync`)).toBe('');
    await aws('s3', 'sync', '--quiet', `s3://${BUCKET}/sync`, join(home, 'back'));
    expect(await readFile(join(home, 'back', 'sub', 'ü+.txt'), 'utf8')).toBe('two');
    await aws('s3', 'rm', '--quiet', '--recursive', `s3://${BUCKET}/sync`);
  });

  it('presigns a URL that works, and reports errors by their code', async () => {
    await s3.send(new PutObjectCommand({ Bucket: BUCKET, Key: 'presigned', Body: 'hello' }));
    const url = (await aws('s3', 'presign', `s3://${BUCKET}/presigned`)).trim();
    expect(await (await fetch(url)).text()).toBe('hello');
    const args = ['s3api', 'get-object', '--bucket', BUCKET, '--key', 'none', 'out'];
    const missing = await runClient(join(bin, 'aws'), args, { environment: service.environment, home });
    expect(missing.code).toBe(255);
    expect(missing.stderr).toContain(
      'An error occurred (NoSuchKey) when calling the GetObject operation: The specified key does not exist.',
    );
  });

  it('gets a checksum that is wrong refused', async () => {
    await writeFile(join(home, 'body'), 'hello');
    const args = [
      's3api',
      'put-object',
      '--bucket',
      BUCKET,
      '--key',
      'bad',
      '--body',
      'body',
      '--checksum-crc32',
      'AAAAAA==',
    ];
    const refused = await runClient(join(bin, 'aws'), args, { environment: service.environment, home });
    expect(refused.stderr).toContain('(BadDigest)');
  });
});

describe('boto3', () => {
  const boto3 = async (scenario: string, args: string[] = [], input?: string) => {
    const script = join(import.meta.dirname, 's3-boto3.py');
    const outcome = await runClient(RUNTIME_PYTHON, [script, scenario, BUCKET, ...args], {
      environment: service.environment,
      home,
      ...(input === undefined ? {} : { input }),
    });
    if (outcome.code !== 0) throw new Error(`${scenario} ended with ${outcome.code}: ${outcome.stderr}`);
    return JSON.parse(outcome.stdout);
  };

  it('puts and gets small objects with their metadata', async () => {
    expect(await boto3('round_trip')).toEqual({
      body: 'hello',
      metadata: { name: 'value' },
      contentType: 'text/plain',
      checksum: 'NhCmhg==',
      fileBytes: 3_000_000,
      missing: ['404', 404],
      missingBucket: ['404', 404],
      location: 'us-west-2',
      buckets: expect.arrayContaining([BUCKET]),
    });
    await emptyBucket();
  });

  it('uses keys that a path would not survive', async () => {
    const keys = [
      '..',
      '.',
      '../../etc/passwd',
      '/leading',
      'a//b',
      'trailing/',
      'plus+and space',
      'ünï©ode/日本語/😀',
      '%41',
      'q?x=1&y#z',
      'quote\'"<>&',
      'back\\slash',
      'x'.repeat(1024),
    ];
    const byBytes = keys.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect(await boto3('odd_keys', [], JSON.stringify(keys))).toEqual({
      listed: byBytes,
      bodies: keys,
      copied: keys,
      deleted: keys.length + 1,
      left: 0,
    });
  });

  it('uploads in parts, reads ranges and parts, copies, aborts', async () => {
    expect(await boto3('multipart')).toEqual({
      equal: true,
      copyEqual: true,
      range: true,
      contentRange: `bytes 5242875-5242885/${12 << 20}`,
      partBytes: 5 << 20,
      partsCount: 3,
      pending: ['aborted'],
      parts: [1],
      left: [],
    });
  });

  it('may complete an upload twice', async () => {
    const { etags, checksums } = await boto3('idempotent_completion');
    expect(new Set(etags).size).toBe(1);
    expect(new Set(checksums).size).toBe(1);
    expect(checksums[0]).toMatch(/-1$/);
  });

  it('lists 2500 keys page by page and deletes them in batches', async () => {
    const keys = Array.from({ length: MANY }, (_, i) => `many/${i % 3 === 0 ? '-third/' : ''}${i}`);
    await inParallel(keys, 16, (key) => service.s3.putObject({ bucket: BUCKET, key, body: 'x' }));
    expect(await boto3('listing')).toEqual({
      pages: 3,
      total: MANY,
      unique: MANY,
      sorted: true,
      sameInVersion1: true,
      sameInSmallPages: true,
      folders: ['many/-third/'],
    });
    let listed = 0;
    for await (const page of paginateListObjectsV2(
      { client: s3, pageSize: 400 },
      { Bucket: BUCKET, Prefix: 'many/' },
    )) {
      listed += page.Contents?.length ?? 0;
    }
    expect(listed).toBe(MANY);
    expect(await boto3('delete_batch')).toEqual({ deleted: MANY, left: 0 });
  });

  it('writes and reads under conditions', async () => {
    expect(await boto3('conditions')).toEqual({
      again: ['PreconditionFailed', 412],
      stale: ['PreconditionFailed', 412],
      body: 'two',
      notModified: ['304', 304],
      failed: ['PreconditionFailed', 412],
      modified: ['PreconditionFailed', 412],
    });
  });

  it('is refused in the words of S3, and nothing is stored then', async () => {
    expect(await boto3('refusals')).toEqual({
      checksum: ['BadDigest', 400],
      sha256: ['BadDigest', 400],
      md5: ['BadDigest', 400],
      wrongSecret: ['SignatureDoesNotMatch', 403],
      unknownKey: ['InvalidAccessKeyId', 403],
      acl: ['NotImplemented', 501],
      tagging: ['NotImplemented', 501],
      owner: ['AccessDenied', 403],
      notEmpty: ['BucketNotEmpty', 409],
      owned: ['BucketAlreadyOwnedByYou', 409],
      stored: ['404', 404],
    });
    expect(await filesOf('incoming')).toEqual([]);
  });

  it('gets back every checksum', async () => {
    expect(await boto3('checksums')).toEqual({
      CRC32: 'cbf43926',
      CRC32C: 'e3069283',
      CRC64NVME: 'ae8b14860a799888',
      SHA1: 'f7c3bc1d808e04732adf679965ccc34ca7ae3441',
      SHA256: '15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225',
    });
  });

  it.each(['default', 's3v4'])('presigns URLs for other programs (signature version %s)', async (version) => {
    const urls = await boto3('presigned', [version]);
    expect(urls.get).toContain(version === 'default' ? 'AWSAccessKeyId=' : 'X-Amz-Signature=');
    const put = await fetch(urls.put, { method: 'PUT', body: Buffer.from('signed elsewhere') });
    expect(put.status, await put.text()).toBe(200);
    const got = await fetch(urls.get);
    expect(await got.text()).toBe('signed elsewhere');
    expect(got.headers.get('content-type')).toBe('a/b');
    expect((await fetch(urls.get.replace('e%CC', 'x').replace('pre%20', 'other%20'))).status).toBe(403);
    const expired = await until('the URL to expire', async () => {
      const response = await fetch(urls.expired);
      return response.status === 403 && (await response.text());
    });
    expect(expired).toContain('<Code>AccessDenied</Code><Message>Request has expired');
  });

  it.each(['signed', 'signed-trailer', 'unsigned-trailer'])(
    'may be any client with aws-chunked bodies: %s',
    async (form) => {
      expect(await boto3('chunked', [form])).toEqual({ status: 200, equal: true, encoding: '' });
    },
  );

  it.each([
    ['signed-tampered', 'SignatureDoesNotMatch', 403],
    ['signed-trailer-tampered', 'SignatureDoesNotMatch', 403],
    ['unsigned-trailer-tampered', 'BadDigest', 400],
  ])('is refused when a chunk changed on its way: %s', async (form, code, status) => {
    expect(await boto3('chunked', [form])).toEqual({ status, code });
    expect(await filesOf('incoming')).toEqual([]);
  });
});

describe('@aws-sdk/client-s3', () => {
  const put = (Key: string, Body: string | Uint8Array | Readable, more: object = {}) =>
    s3.send(new PutObjectCommand({ Bucket: BUCKET, Key, Body, ...more }));
  const get = async (Key: string, more: object = {}) => {
    const got = await s3.send(new GetObjectCommand({ Bucket: BUCKET, Key, ...more }));
    return Buffer.from((await got.Body?.transformToByteArray()) ?? []);
  };

  it('puts buffers and streams', async () => {
    const data = randomBytes(3 << 20);
    await put('buffer', data);
    expect((await get('buffer')).equals(data)).toBe(true);
    // A stream of known length goes as aws-chunked with a checksum in the trailer.
    await put('stream', Readable.from([data.subarray(0, 1000), data.subarray(1000)]), {
      ContentLength: data.length,
    });
    expect((await get('stream')).equals(data)).toBe(true);
    const head = await s3.send(
      new HeadObjectCommand({ Bucket: BUCKET, Key: 'stream', ChecksumMode: 'ENABLED' }),
    );
    expect(head).toMatchObject({
      ContentLength: data.length,
      ChecksumType: 'FULL_OBJECT',
      ChecksumCRC32: expect.any(String),
    });
    expect(head.ContentEncoding ?? '').toBe('');
  });

  it('uploads in parts from a stream of unknown length', async () => {
    const pieces = Array.from({ length: 12 }, () => randomBytes(1 << 20));
    const upload = new Upload({
      client: s3,
      params: { Bucket: BUCKET, Key: 'parts', Body: Readable.from(pieces) },
    });
    expect((await upload.done()).ETag).toMatch(/-3"$/);
    expect((await get('parts')).equals(Buffer.concat(pieces))).toBe(true);
    expect((await get('parts', { Range: 'bytes=-7' })).equals(Buffer.concat(pieces).subarray(-7))).toBe(true);
  });

  it.each(['CRC32', 'CRC32C', 'CRC64NVME', 'SHA1', 'SHA256'] as const)(
    'computes and verifies %s',
    async (ChecksumAlgorithm) => {
      await put('summed', 'hello', { ChecksumAlgorithm });
      const got = await s3.send(
        new GetObjectCommand({ Bucket: BUCKET, Key: 'summed', ChecksumMode: 'ENABLED' }),
      );
      expect(got[`Checksum${ChecksumAlgorithm}`]).toBeTypeOf('string');
      expect(await got.Body?.transformToString()).toBe('hello');
    },
  );

  it('copies, deletes many, and gets typed errors', async () => {
    await put('a b+é', 'text', { Metadata: { name: 'value' } });
    await s3.send(
      new CopyObjectCommand({
        Bucket: BUCKET,
        Key: 'copied',
        CopySource: `${BUCKET}/${encodeURIComponent('a b+é')}`,
      }),
    );
    const copied = await s3.send(new GetObjectCommand({ Bucket: BUCKET, Key: 'copied' }));
    expect([await copied.Body?.transformToString(), copied.Metadata]).toEqual(['text', { name: 'value' }]);
    const Objects = ['a b+é', 'copied', 'absent'].map((Key) => ({ Key }));
    const answer = await s3.send(new DeleteObjectsCommand({ Bucket: BUCKET, Delete: { Objects } }));
    expect(answer.Deleted?.map(({ Key }) => Key)).toEqual(['a b+é', 'copied', 'absent']);
    await expect(get('copied')).rejects.toBeInstanceOf(NoSuchKey);
    expect((await s3.send(new ListBucketsCommand({}))).Buckets?.map(({ Name }) => Name)).toContain(BUCKET);
  });

  it('addresses buckets by host name', async () => {
    await put('by-host', 'hello');
    const { url, credentials } = service;
    const { port } = new URL(url);
    const client = new S3Client({
      endpoint: `http://localhost:${port}`,
      region: 'us-west-2',
      credentials: { ...credentials },
      maxAttempts: 1,
    });
    // Whether *.localhost resolves is the resolver's choice: the request goes to the same socket under that name.
    client.middlewareStack.add(
      (next) => async (args) => {
        const it = args.request as { hostname: string };
        expect(it.hostname).toBe(`${BUCKET}.localhost`);
        it.hostname = '127.0.0.1';
        return next(args);
      },
      { step: 'deserialize', priority: 'low' },
    );
    const got = await client.send(new GetObjectCommand({ Bucket: BUCKET, Key: 'by-host' }));
    expect(await got.Body?.transformToString()).toBe('hello');
    client.destroy();
  });
});

describe('the store', () => {
  it('keeps what it answered through a kill, and nothing of what was on its way', async () => {
    await s3.send(new PutObjectCommand({ Bucket: BUCKET, Key: 'kept', Body: 'kept' }));
    const before = (await filesOf('blobs')).toSorted();
    const { port } = new URL(service.url);
    const { credentials } = service;
    const url = await presignedPut(service, 'half');
    const socket = connect(Number(port), '127.0.0.1').on('error', () => {});
    socket.write(
      `PUT ${url.pathname}${url.search} HTTP/1.1\r\nHost: ${url.host}\r\nContent-Length: 50000000\r\n\r\n`,
    );
    socket.write(Buffer.alloc(20 << 20));
    await until('the half body to be on disk', async () => {
      const [name] = await filesOf('incoming');
      return name && (await stat(join(service.dataDir, 'objects/incoming', name))).size > 1 << 20;
    });
    await service.kill();
    socket.destroy();
    expect(await filesOf('incoming')).toHaveLength(1);
    await service.start();
    expect(service.credentials).toEqual(credentials);
    s3.destroy();
    s3 = clientFor(service);
    expect(await filesOf('incoming')).toEqual([]);
    expect((await filesOf('blobs')).toSorted()).toEqual(before);
    const kept = await s3.send(new GetObjectCommand({ Bucket: BUCKET, Key: 'kept' }));
    expect(await kept.Body?.transformToString()).toBe('kept');
    await expect(s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key: 'half' }))).rejects.toMatchObject({
      name: 'NotFound',
    });
  });

  it('leaves nothing when a client hangs up', async () => {
    const before = (await filesOf('blobs')).toSorted();
    const url = await presignedPut(service, 'hung-up');
    const upload = request(url, { method: 'PUT', headers: { 'content-length': '50000000' } }).on(
      'error',
      () => {},
    );
    upload.write(Buffer.alloc(20 << 20));
    await until('the body to arrive', async () => (await filesOf('incoming')).length === 1);
    upload.destroy();
    await until('the body to be dropped', async () => (await filesOf('incoming')).length === 0);
    expect((await filesOf('blobs')).toSorted()).toEqual(before);
  });

  it('says that the disk is full, stores nothing then, and goes on', async (context) => {
    const directory = join(service.dataDir, 'objects');
    await service.kill();
    const mounted = mountSmallDisk(directory);
    try {
      await service.start();
      s3.destroy();
      s3 = clientFor(service);
      if (!mounted) context.skip('mounting a small file system needs root');
      const full = s3.send(
        new PutObjectCommand({ Bucket: BUCKET, Key: 'too-big', Body: Buffer.alloc(48 << 20) }),
      );
      await expect(full).rejects.toMatchObject({
        name: 'InsufficientStorage',
        $metadata: { httpStatusCode: 507 },
      });
      expect([...(await filesOf('blobs')), ...(await filesOf('incoming'))]).toEqual([]);
      await expect(s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key: 'too-big' }))).rejects.toMatchObject({
        name: 'NotFound',
      });
      await s3.send(new PutObjectCommand({ Bucket: BUCKET, Key: 'small', Body: Buffer.alloc(8 << 20) }));
      await s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key: 'small' }));
    } finally {
      await service.kill();
      if (mounted) execFileSync('umount', [directory]);
    }
  });
});

async function emptyBucket(): Promise<void> {
  for await (const page of paginateListObjectsV2({ client: s3 }, { Bucket: BUCKET })) {
    const Objects = page.Contents?.map(({ Key }) => ({ Key })) ?? [];
    if (Objects.length > 0) await s3.send(new DeleteObjectsCommand({ Bucket: BUCKET, Delete: { Objects } }));
  }
}

async function writeRandomFile(path: string, sizeBytes: number): Promise<void> {
  const file = await open(path, 'w');
  for (let at = 0; at < sizeBytes; at += 4 << 20) await file.write(randomBytes(4 << 20));
  await file.close();
}

async function inParallel<T>(
  items: readonly T[],
  width: number,
  work: (item: T) => Promise<unknown>,
): Promise<void> {
  const queue = items.values();
  await Promise.all(
    Array.from({ length: width }, async () => {
      for (const item of queue) await work(item);
    }),
  );
}

async function presignedPut({ url, credentials }: TestService, key: string): Promise<URL> {
  const input = {
    credentials,
    region: 'us-west-2',
    service: 's3',
    now: Date.now(),
    method: 'PUT',
    expiresInSeconds: 600,
  };
  return new URL(await presignUrl({ ...input, url: `${url}/${BUCKET}/${key}` }));
}

/** 32 MiB of memory in place of the directory; false where that is not allowed. */
function mountSmallDisk(directory: string): boolean {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=32m', 'trainyard-test', directory], {
      stdio: 'ignore',
    });
    return true;
  } catch {
    return false;
  }
}
