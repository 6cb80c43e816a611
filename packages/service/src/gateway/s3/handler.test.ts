import { connect } from 'node:net';
import { describe, expect, it, vi } from 'vitest';
import { MIN_PART_BYTES } from '../../objects/complete-parts.ts';
import { chunks, readObject } from '../../objects/test-store.ts';
import { md5Base64, sha256Hex, startTestServer, type TestServer } from './test-server.ts';

const codeOf = (text: string) => /<Code>(\w+)<\/Code>/.exec(text)?.[1];

async function refusal(
  server: TestServer,
  ...request: Parameters<TestServer['send']>
): Promise<[number, string | undefined]> {
  const { status, text } = await server.send(...request);
  return [status, codeOf(text)];
}

describe('buckets', () => {
  it('are created, found, located, listed and deleted', async () => {
    const { send } = await startTestServer();
    const body =
      '<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>';
    expect(await send('PUT', '/made', { body })).toMatchObject({
      status: 200,
      headers: { location: '/made' },
    });
    expect((await send('HEAD', '/made')).headers['x-amz-bucket-region']).toBe('eu-west-1');
    expect((await send('GET', '/made?location')).text).toContain('>eu-west-1</LocationConstraint>');
    expect((await send('GET', '/')).text).toMatch(/<Bucket><Name>bucket<.*<Bucket><Name>made<.*<\/Bucket>/);
    expect((await send('GET', '/made?versioning')).text).toMatch(/<VersioningConfiguration [^>]*><\/Vers/);
    expect((await send('DELETE', '/made')).status).toBe(204);
    expect((await send('HEAD', '/made')).status).toBe(404);
  });

  it('are listed page by page', async () => {
    const { send, store } = await startTestServer();
    for (const name of ['aaa', 'bbb', 'ccc']) await store.createBucket(name);
    const first = (await send('GET', '/?max-buckets=2')).text;
    const token = /<ContinuationToken>(.*)<\/ContinuationToken>/.exec(first)?.[1];
    expect(first).toContain('<Name>bbb</Name>');
    const second = (await send('GET', `/?max-buckets=2&continuation-token=${token}`)).text;
    expect([...second.matchAll(/<Name>(\w+)</g)].map((match) => match[1])).toEqual(['bucket', 'ccc']);
    expect(second).not.toContain('ContinuationToken');
  });

  it('are refused in the words of S3', async () => {
    const server = await startTestServer();
    await server.send('PUT', '/bucket/k', { body: 'x' });
    expect(await refusal(server, 'PUT', '/bucket')).toEqual([409, 'BucketAlreadyOwnedByYou']);
    expect(await refusal(server, 'PUT', '/UPPER')).toEqual([400, 'InvalidBucketName']);
    expect(await refusal(server, 'DELETE', '/bucket')).toEqual([409, 'BucketNotEmpty']);
    expect(await refusal(server, 'GET', '/none?list-type=2')).toEqual([404, 'NoSuchBucket']);
    expect(await refusal(server, 'PUT', '/made', { body: '<Other/>' })).toEqual([400, 'MalformedXML']);
    const foreign = { headers: { 'x-amz-expected-bucket-owner': '999999999999' } };
    expect(await refusal(server, 'GET', '/bucket?list-type=2', foreign)).toEqual([403, 'AccessDenied']);
    const own = { headers: { 'x-amz-expected-bucket-owner': '123456789012' } };
    expect((await server.send('HEAD', '/bucket', own)).status).toBe(200);
  });
});

describe('objects', () => {
  it('come back with what was attached to them', async () => {
    const { send } = await startTestServer();
    const stored = await send('PUT', '/bucket/k', {
      body: '5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n',
      headers: {
        'content-type': 'text/plain',
        'cache-control': 'no-store',
        'content-encoding': 'gzip,aws-chunked',
        'x-amz-content-sha256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER',
        'x-amz-decoded-content-length': '5',
        'x-amz-trailer': 'x-amz-checksum-crc32',
        'x-amz-meta-name': Buffer.from('Zoë').toString('latin1'),
        'x-amz-server-side-encryption': 'aws:kms',
      },
    });
    expect(stored).toMatchObject({
      status: 200,
      headers: {
        etag: '"5d41402abc4b2a76b9719d911017c592"',
        'x-amz-checksum-crc32': 'NhCmhg==',
        'x-amz-server-side-encryption': 'aws:kms',
      },
    });
    const got = await send('GET', '/bucket/k', { headers: { 'x-amz-checksum-mode': 'ENABLED' } });
    expect(got.text).toBe('hello');
    expect(got.headers).toMatchObject({
      'content-length': '5',
      'content-type': 'text/plain',
      'content-encoding': 'gzip',
      'cache-control': 'no-store',
      'x-amz-meta-name': Buffer.from('Zoë').toString('latin1'),
      'x-amz-checksum-crc32': 'NhCmhg==',
      'x-amz-checksum-type': 'FULL_OBJECT',
      'accept-ranges': 'bytes',
    });
    const head = await send('HEAD', '/bucket/k');
    expect(head).toMatchObject({
      status: 200,
      headers: { 'content-length': '5', etag: got.headers.etag },
      text: '',
    });
    expect(head.headers).not.toHaveProperty('x-amz-checksum-crc32');
  });

  it('are read in parts, under conditions and with other headers', async () => {
    const { send, store, clock } = await startTestServer();
    await store.putObject({ bucket: 'bucket', key: 'k', body: chunks('0123456789') });
    const get = (headers: Record<string, string>, query = '') =>
      send('GET', `/bucket/k${query}`, { headers });
    expect(await get({ range: 'bytes=2-4' })).toMatchObject({
      status: 206,
      text: '234',
      headers: { 'content-range': 'bytes 2-4/10', 'content-length': '3' },
    });
    expect(await get({ range: 'bytes=10-' })).toMatchObject({
      status: 416,
      headers: { 'content-range': 'bytes */10' },
    });
    const etag = '"781e5e245d69b566979b86e28d23f2c7"';
    expect(await get({ 'if-none-match': etag })).toMatchObject({ status: 304, text: '', headers: { etag } });
    expect((await get({ 'if-none-match': '"x"' })).status).toBe(200);
    expect((await get({ 'if-match': '"x"' })).status).toBe(412);
    expect((await get({ 'if-match': `"x", ${etag}` })).status).toBe(200);
    expect((await get({ range: 'bytes=2-4', 'if-range': etag })).text).toBe('234');
    expect(await get({ range: 'bytes=2-4', 'if-range': '"x"' })).toMatchObject({
      status: 200,
      text: '0123456789',
    });
    const before = new Date(clock.now - 60_000).toUTCString();
    const at = new Date(clock.now).toUTCString();
    expect((await get({ 'if-modified-since': at })).status).toBe(304);
    expect((await get({ 'if-modified-since': before })).status).toBe(200);
    expect((await get({ 'if-unmodified-since': before })).status).toBe(412);
    expect((await get({ 'if-unmodified-since': at })).status).toBe(200);
    expect((await get({ 'if-match': etag, 'if-unmodified-since': before })).status).toBe(200);
    const renamed = await get(
      {},
      '?response-content-disposition=attachment%3B%20filename%3D%C3%A9&response-content-type=a/b',
    );
    expect(renamed.headers['content-type']).toBe('a/b');
    expect(Buffer.from(renamed.headers['content-disposition'] ?? '', 'latin1').toString()).toBe(
      'attachment; filename=é',
    );
    expect((await get({}, '?response-content-type=a%0d%0ax:y')).status).toBe(400);
  });

  it('are written under conditions', async () => {
    const server = await startTestServer();
    const put = (headers: Record<string, string>) =>
      refusal(server, 'PUT', '/bucket/k', { body: 'x', headers });
    expect(await put({ 'if-match': '"x"' })).toEqual([404, 'NoSuchKey']);
    expect(await put({ 'if-none-match': '*' })).toEqual([200, undefined]);
    expect(await put({ 'if-none-match': '*' })).toEqual([412, 'PreconditionFailed']);
    expect(await put({ 'if-none-match': '"x"' })).toEqual([501, 'NotImplemented']);
    expect(await put({ 'if-match': '"x"' })).toEqual([412, 'PreconditionFailed']);
    expect(await put({ 'if-match': '"9dd4e461268c8034f5c8564e155c67a6"' })).toEqual([200, undefined]);
  });

  it('are deleted one by one, also when they are not there, and many at once', async () => {
    const server = await startTestServer({
      authorize: (_, { action, key }) => action !== 'delete' || key !== 'kept',
    });
    const { send, store } = server;
    for (const key of ['a', 'b', 'kept', 'x&<'])
      await store.putObject({ bucket: 'bucket', key, body: chunks('x') });
    expect((await send('DELETE', '/bucket/a')).status).toBe(204);
    expect((await send('DELETE', '/bucket/a')).status).toBe(204);
    const body = `<Delete>${['b', 'kept', 'x&amp;&lt;', 'absent'].map((key) => `<Object><Key>${key}</Key></Object>`).join('')}</Delete>`;
    expect(await refusal(server, 'POST', '/bucket?delete', { body })).toEqual([400, 'InvalidRequest']);
    const wrong = { body, headers: { 'content-md5': md5Base64('other') } };
    expect(await refusal(server, 'POST', '/bucket?delete', wrong)).toEqual([400, 'BadDigest']);
    const { text } = await send('POST', '/bucket?delete', {
      body,
      headers: { 'content-md5': md5Base64(body) },
    });
    expect([...text.matchAll(/<Deleted><Key>(.*?)<\/Key>/g)].map((match) => match[1])).toEqual([
      'b',
      'x&amp;&lt;',
      'absent',
    ]);
    expect(text).toMatch(/<Error><Key>kept<\/Key><Code>AccessDenied<\/Code>/);
    expect((await store.listObjects({ bucket: 'bucket' })).objects.map(({ key }) => key)).toEqual(['kept']);
    const quiet = '<Delete><Quiet>true</Quiet><Object><Key>absent</Key></Object></Delete>';
    expect(
      (await send('POST', '/bucket?delete', { body: quiet, headers: { 'content-md5': md5Base64(quiet) } }))
        .text,
    ).not.toContain('Deleted');
  });

  it('are copied, with their metadata or other', async () => {
    const server = await startTestServer();
    const { send, store } = server;
    await send('PUT', '/bucket/a%20b', { body: 'text', headers: { 'x-amz-meta-a': '1' } });
    const copy = (target: string, headers: Record<string, string> = {}) =>
      send('PUT', target, { headers: { 'x-amz-copy-source': '/bucket/a%20b', ...headers } });
    expect((await copy('/bucket/c')).text).toContain(
      '<ETag>&quot;1cb251ec0d568de6a929b520c4aed8d1&quot;</ETag>',
    );
    expect((await store.headObject('bucket', 'c'))?.metadata).toMatchObject({ 'x-amz-meta-a': '1' });
    await copy('/bucket/d', {
      'x-amz-metadata-directive': 'REPLACE',
      'x-amz-meta-b': '2',
      'x-amz-checksum-algorithm': 'SHA256',
    });
    expect((await store.headObject('bucket', 'd'))?.metadata).toEqual({
      'content-type': 'binary/octet-stream',
      'x-amz-meta-b': '2',
    });
    expect((await store.headObject('bucket', 'd'))?.checksum?.algorithm).toBe('SHA256');
    expect(codeOf((await copy('/bucket/a%20b')).text)).toBe('InvalidRequest');
    expect(codeOf((await copy('/bucket/e', { 'x-amz-copy-source-if-match': '"x"' })).text)).toBe(
      'PreconditionFailed',
    );
    expect(codeOf((await copy('/bucket/e', { 'x-amz-copy-source': 'bucket/none' })).text)).toBe('NoSuchKey');
    expect(codeOf((await copy('/bucket/e', { 'x-amz-source-expected-bucket-owner': '1' })).text)).toBe(
      'AccessDenied',
    );
  });
});

describe('bodies', () => {
  const put = (server: TestServer, headers: Record<string, string>, body = 'hello world') =>
    refusal(server, 'PUT', '/bucket/k', { body, headers });

  it('are held to every digest that comes with them', async () => {
    const server = await startTestServer();
    const cases: [Record<string, string>, string][] = [
      [{ 'x-amz-content-sha256': sha256Hex('other') }, 'XAmzContentSHA256Mismatch'],
      [{ 'content-md5': md5Base64('other') }, 'BadDigest'],
      [{ 'content-md5': 'nonsense' }, 'InvalidDigest'],
      [{ 'x-amz-checksum-crc32': 'AAAAAA==' }, 'BadDigest'],
      [{ 'x-amz-checksum-crc64nvme': 'AAAAAAAAAAA=' }, 'BadDigest'],
      [{ 'x-amz-checksum-crc32': 'AAAA' }, 'InvalidRequest'],
      [{ 'x-amz-checksum-xxhash64': 'AAAA' }, 'InvalidRequest'],
      [
        { 'x-amz-checksum-crc32': 'DUoRhQ==', 'x-amz-checksum-sha1': 'Kq5sNclPz7QV2+lfQIuc6R7oRu0=' },
        'InvalidRequest',
      ],
      [{ 'x-amz-checksum-crc32': 'DUoRhQ==', 'x-amz-sdk-checksum-algorithm': 'SHA1' }, 'InvalidRequest'],
      [{ 'x-amz-sdk-checksum-algorithm': 'CRC32' }, 'InvalidRequest'],
      [{ 'x-amz-content-sha256': 'nonsense' }, 'InvalidArgument'],
      [{ 'content-encoding': 'aws-chunked' }, 'InvalidRequest'],
    ];
    for (const [headers, code] of cases)
      expect(await put(server, headers), JSON.stringify(headers)).toEqual([400, code]);
    expect(await server.files()).toEqual({ blobs: [], incoming: [] });
    const right = {
      'x-amz-content-sha256': sha256Hex('hello world'),
      'content-md5': md5Base64('hello world'),
      'x-amz-checksum-sha1': 'Kq5sNclPz7QV2+lfQIuc6R7oRu0=',
      'x-amz-sdk-checksum-algorithm': 'SHA1',
    };
    expect(await put(server, right)).toEqual([200, undefined]);
  });

  it('are not held to checksums in the query', async () => {
    const server = await startTestServer();
    const target =
      '/bucket/k?x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32&x-id=PutObject';
    expect((await server.send('PUT', target, { body: 'hello' })).status).toBe(200);
    expect(await readObject(server.store, 'bucket', 'k')).toBe('hello');
  });

  it('are held to a checksum in the trailer', async () => {
    const server = await startTestServer();
    const headers = {
      'x-amz-content-sha256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER',
      'x-amz-decoded-content-length': '5',
      'x-amz-trailer': 'x-amz-checksum-crc32',
    };
    const chunked = (value: string) => `5\r\nhello\r\n0\r\nx-amz-checksum-crc32:${value}\r\n\r\n`;
    expect(await put(server, headers, chunked('AAAAAA=='))).toEqual([400, 'BadDigest']);
    expect(await put(server, headers, chunked('AAAA'))).toEqual([400, 'InvalidRequest']);
    expect(await put(server, headers, '5\r\nhello\r\n0\r\n\r\n')).toEqual([400, 'MalformedTrailerError']);
    expect(
      await put(server, { ...headers, 'x-amz-decoded-content-length': '6' }, chunked('NhCmhg==')),
    ).toEqual([400, 'IncompleteBody']);
    expect(
      await put(server, { ...headers, 'x-amz-decoded-content-length': '' }, chunked('NhCmhg==')),
    ).toEqual([411, 'MissingContentLength']);
    expect(await server.files()).toEqual({ blobs: [], incoming: [] });
    expect(await put(server, headers, chunked('NhCmhg=='))).toEqual([200, undefined]);
  });

  it('need a length of at most 5 GiB', async () => {
    const server = await startTestServer();
    const chunkedTransfer = { headers: { 'transfer-encoding': 'chunked' } };
    expect(await refusal(server, 'PUT', '/bucket/k', chunkedTransfer)).toEqual([411, 'MissingContentLength']);
    const headers = {
      'x-amz-content-sha256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER',
      'x-amz-decoded-content-length': String(5 * 1024 ** 3 + 1),
    };
    expect(await put(server, headers, '0\r\n\r\n')).toEqual([400, 'EntityTooLarge']);
    const document = { body: `<Delete>${' '.repeat(3 << 20)}</Delete>` };
    expect(await refusal(server, 'POST', '/bucket?delete', document)).toEqual([
      400,
      'MaxMessageLengthExceeded',
    ]);
  });

  it('are refused in forms that are not served', async () => {
    const server = await startTestServer();
    for (const form of ['STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD', 'STREAMING-UNSIGNED-PAYLOAD']) {
      expect(await put(server, { 'x-amz-content-sha256': form })).toEqual([501, 'NotImplemented']);
    }
    const unseeded = { 'x-amz-content-sha256': 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD' };
    expect(await put(server, unseeded)).toEqual([400, 'InvalidRequest']);
  });

  it('leave nothing when the client hangs up', async () => {
    const server = await startTestServer();
    const socket = connect(server.port, '127.0.0.1');
    socket.write(
      `PUT /bucket/k HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n${'x'.repeat(3_000_000)}`,
    );
    await vi.waitFor(async () => expect((await server.files()).incoming).toHaveLength(1), 5000);
    socket.destroy();
    await vi.waitFor(() => expect(server.faults).toHaveLength(1), 5000);
    expect(server.faults[0]).toMatchObject({ code: 'ECONNRESET' });
    expect(await server.files()).toEqual({ blobs: [], incoming: [] });
    expect(await server.store.headObject('bucket', 'k')).toBeUndefined();
  });

  it('are asked for only when they are wanted', async () => {
    const server = await startTestServer();
    const answerTo = async (target: string, body: string) => {
      const socket = connect(server.port, '127.0.0.1');
      let received = '';
      socket.on('data', (data) => {
        if (!received.includes('100 Continue') && data.includes('100 Continue')) socket.write(body);
        received += data.toString();
      });
      socket.write(
        `PUT ${target} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: ${body.length}\r\n\r\n`,
      );
      await vi.waitFor(() => expect(received).toMatch(/HTTP\/1\.1 [2345]\d\d/), 5000);
      socket.destroy();
      return received;
    };
    const refused = await answerTo('/none/k', 'hello');
    expect(refused).not.toContain('100 Continue');
    expect(refused).toMatch(/404 Not Found[^]*connection: close/i);
    expect(await answerTo('/bucket/k', 'hello')).toMatch(/100 Continue[^]*200 OK/);
    expect(await readObject(server.store, 'bucket', 'k')).toBe('hello');
  });

  it('leave the connection usable after a refusal', async () => {
    const server = await startTestServer();
    const socket = connect(server.port, '127.0.0.1');
    let received = '';
    socket.on('data', (data) => {
      received += data.toString();
    });
    const body = 'x'.repeat(200_000);
    socket.write(`PUT /none/k HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await vi.waitFor(() => expect(received).toContain('ListAllMyBucketsResult'), 5000);
    expect(received).toContain('NoSuchBucket');
    socket.destroy();
  });
});

describe('multipart uploads', () => {
  const big = Buffer.alloc(MIN_PART_BYTES, 'a');
  const part = (number: number, etag: string | undefined) =>
    `<Part><PartNumber>${number}</PartNumber><ETag>${etag?.replaceAll('"', '&quot;')}</ETag></Part>`;

  async function start(server: TestServer, headers: Record<string, string> = {}) {
    const created = await server.send('POST', '/bucket/k?uploads', { headers });
    const uploadId = /<UploadId>(.*)<\/UploadId>/.exec(created.text)?.[1] ?? '';
    return {
      created,
      uploadId,
      put: (number: number, body: string | Uint8Array, extra: Record<string, string> = {}) =>
        server.send('PUT', `/bucket/k?partNumber=${number}&uploadId=${uploadId}`, { body, headers: extra }),
      complete: (parts: string, extra: Record<string, string> = {}) =>
        server.send('POST', `/bucket/k?uploadId=${uploadId}`, {
          body: `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${parts}</CompleteMultipartUpload>`,
          headers: extra,
        }),
    };
  }

  it('become one object, whose parts can be read', async () => {
    const server = await startTestServer();
    const upload = await start(server, { 'x-amz-checksum-algorithm': 'CRC32', 'content-type': 'a/b' });
    expect(upload.created.headers).toMatchObject({
      'x-amz-checksum-algorithm': 'CRC32',
      'x-amz-checksum-type': 'COMPOSITE',
    });
    const one = await upload.put(1, big);
    const two = await upload.put(2, 'hello world', { 'x-amz-checksum-crc32': 'DUoRhQ==' });
    expect(two.headers['x-amz-checksum-crc32']).toBe('DUoRhQ==');
    const listed = (await server.send('GET', `/bucket/k?uploadId=${upload.uploadId}&max-parts=1`)).text;
    expect(listed).toMatch(
      /<NextPartNumberMarker>1<.*<IsTruncated>true<.*<Size>5242880<.*<ChecksumType>COMPOSITE</,
    );
    expect((await server.send('GET', '/bucket?uploads')).text).toContain(
      `<UploadId>${upload.uploadId}</UploadId>`,
    );
    const parts = part(1, one.headers.etag) + part(2, two.headers.etag);
    const done = await upload.complete(parts);
    expect(done.text).toMatch(
      /<ETag>&quot;\w{32}-2&quot;<.*<ChecksumCRC32>.{8}-2<\/ChecksumCRC32><ChecksumType>COMPOSITE</,
    );
    expect((await upload.complete(parts)).text).toBe(done.text);
    const second = await server.send('GET', '/bucket/k?partNumber=2', {
      headers: { 'x-amz-checksum-mode': 'ENABLED' },
    });
    expect(second).toMatchObject({
      status: 206,
      text: 'hello world',
      headers: {
        'x-amz-mp-parts-count': '2',
        'content-range': `bytes ${MIN_PART_BYTES}-${MIN_PART_BYTES + 10}/${MIN_PART_BYTES + 11}`,
        'x-amz-checksum-crc32': 'DUoRhQ==',
        'content-type': 'a/b',
      },
    });
    expect(await refusal(server, 'GET', '/bucket/k?partNumber=3')).toEqual([416, 'InvalidPartNumber']);
    expect((await server.send('GET', '/bucket?uploads')).text).not.toContain('<Upload>');
  });

  it('take parts from other objects', async () => {
    const server = await startTestServer();
    await server.store.putObject({ bucket: 'bucket', key: 's', body: chunks('0123456789') });
    const upload = await start(server);
    const target = `/bucket/k?partNumber=1&uploadId=${upload.uploadId}`;
    const copy = (headers: Record<string, string>) =>
      server.send('PUT', target, { headers: { 'x-amz-copy-source': 'bucket/s', ...headers } });
    expect(codeOf((await copy({ 'x-amz-copy-source-range': 'bytes=2-10' })).text)).toBe('InvalidArgument');
    const { text } = await copy({ 'x-amz-copy-source-range': 'bytes=2-4' });
    await upload.complete(part(1, /<ETag>(.*)<\/ETag>/.exec(text)?.[1]));
    expect(await readObject(server.store, 'bucket', 'k')).toBe('234');
  });

  it('are refused in the words of S3', async () => {
    const server = await startTestServer();
    const upload = await start(server, { 'x-amz-checksum-algorithm': 'CRC32' });
    const { etag } = (await upload.put(1, 'x')).headers;
    const sha1 = await upload.put(1, 'hello world', {
      'x-amz-checksum-sha1': 'Kq5sNclPz7QV2+lfQIuc6R7oRu0=',
    });
    expect(codeOf(sha1.text)).toBe('InvalidRequest');
    for (const number of ['0', '10001', '-1', 'x', '']) {
      const target = `/bucket/k?partNumber=${number}&uploadId=${upload.uploadId}`;
      expect(await refusal(server, 'PUT', target, { body: 'x' }), number).toEqual([400, 'InvalidArgument']);
    }
    expect(await refusal(server, 'PUT', '/bucket/k?partNumber=1', { body: 'x' })).toEqual([
      400,
      'InvalidRequest',
    ]);
    expect(await refusal(server, 'PUT', '/bucket/k?partNumber=1&uploadId=x', { body: 'x' })).toEqual([
      404,
      'NoSuchUpload',
    ]);
    expect(
      await refusal(server, 'PUT', `/bucket/other?partNumber=1&uploadId=${upload.uploadId}`, { body: 'x' }),
    ).toEqual([404, 'NoSuchUpload']);
    expect(codeOf((await upload.complete('')).text)).toBe('MalformedXML');
    expect(codeOf((await upload.complete(part(2, etag))).text)).toBe('InvalidPart');
    expect(codeOf((await upload.complete(part(1, etag), { 'x-amz-checksum-crc32': 'AAAAAA==' })).text)).toBe(
      'BadDigest',
    );
    const created = (headers: Record<string, string>) =>
      refusal(server, 'POST', '/bucket/k?uploads', { headers });
    expect(
      await created({ 'x-amz-checksum-algorithm': 'SHA1', 'x-amz-checksum-type': 'FULL_OBJECT' }),
    ).toEqual([400, 'InvalidRequest']);
    expect(await created({ 'x-amz-checksum-type': 'FULL_OBJECT' })).toEqual([400, 'InvalidRequest']);
    expect((await server.send('DELETE', `/bucket/k?uploadId=${upload.uploadId}`)).status).toBe(204);
    expect(await server.files()).toEqual({ blobs: [], incoming: [] });
  });
});

describe('listings', () => {
  const keys = ['a b', 'a+b', 'd/1', 'd/2', 'é', '<x>'];
  const elements = (text: string, name: string) =>
    [...text.matchAll(new RegExp(`<${name}>(.*?)</${name}>`, 'g'))].map((match) => match[1]);

  async function serverWithKeys() {
    const server = await startTestServer();
    for (const key of keys) await server.store.putObject({ bucket: 'bucket', key, body: chunks('x') });
    return server;
  }

  it('encode names when the client asks for it', async () => {
    const { send } = await serverWithKeys();
    const { text } = await send(
      'GET',
      '/bucket/?list-type=2&encoding-type=url&delimiter=%2F&start-after=%3C',
    );
    expect(text).toContain('<EncodingType>url</EncodingType>');
    expect(elements(text, 'Key')).toEqual(['%3Cx%3E', 'a%20b', 'a%2Bb', '%C3%A9']);
    expect(elements(text, 'StartAfter')).toEqual(['%3C']);
    expect(elements(text, 'CommonPrefixes')).toEqual(['<Prefix>d/</Prefix>']);
    expect(elements(text, 'KeyCount')).toEqual(['5']);
    expect(elements((await send('GET', '/bucket?list-type=2&prefix=%3C')).text, 'Key')).toEqual([
      '&lt;x&gt;',
    ]);
  });

  it('go on where the token says', async () => {
    const server = await serverWithKeys();
    const seen: (string | undefined)[] = [];
    let token: string | undefined = '';
    do {
      const query = token ? `&continuation-token=${token}` : '';
      const { text } = await server.send('GET', `/bucket?list-type=2&max-keys=2&encoding-type=url${query}`);
      seen.push(...elements(text, 'Key').map((key) => decodeURIComponent(key ?? '')));
      token = elements(text, 'NextContinuationToken')[0];
      expect(elements(text, 'IsTruncated')).toEqual([String(token !== undefined)]);
    } while (token);
    expect(seen).toEqual(['<x>', 'a b', 'a+b', 'd/1', 'd/2', 'é']);
    for (const bad of ['!', 'a', '_w']) {
      expect(await refusal(server, 'GET', `/bucket?list-type=2&continuation-token=${bad}`)).toEqual([
        400,
        'InvalidArgument',
      ]);
    }
    expect(await refusal(server, 'GET', '/bucket?list-type=2&max-keys=-1')).toEqual([400, 'InvalidArgument']);
    expect(await refusal(server, 'GET', '/bucket?list-type=2&encoding-type=xml')).toEqual([
      400,
      'InvalidArgument',
    ]);
  });

  it('have a first version with markers', async () => {
    const { send } = await serverWithKeys();
    const first = (await send('GET', '/bucket?max-keys=4&delimiter=/')).text;
    expect(elements(first, 'Key')).toEqual(['&lt;x&gt;', 'a b', 'a+b']);
    expect(elements(first, 'NextMarker')).toEqual(['d/']);
    const second = (await send('GET', '/bucket?max-keys=4&delimiter=/&marker=d/')).text;
    expect(elements(second, 'Key')).toEqual(['é']);
    expect(second).not.toContain('CommonPrefixes');
    expect((await send('GET', '/bucket?max-keys=1')).text).not.toContain('NextMarker');
  });
});

describe('everything else', () => {
  it('is refused as not implemented, never taken for something else', async () => {
    const server = await startTestServer();
    await server.store.putObject({ bucket: 'bucket', key: 'k', body: chunks('kept') });
    const requests: [string, string, Record<string, string>?][] = [
      ['GET', '/bucket?acl'],
      ['PUT', '/bucket?policy'],
      ['DELETE', '/bucket?lifecycle'],
      ['GET', '/bucket?versions'],
      ['GET', '/bucket?list-type=1'],
      ['PUT', '/bucket/k?tagging'],
      ['DELETE', '/bucket/k?tagging'],
      ['GET', '/bucket/k?attributes'],
      ['POST', '/bucket/k?select&select-type=2'],
      ['PUT', '/bucket/k?uploadId=x&tagging'],
      ['DELETE', '/bucket/k?versionId=3'],
      ['PATCH', '/bucket/k'],
      ['POST', '/bucket'],
      ['DELETE', '/'],
      ['PUT', '/bucket/k', { 'x-amz-tagging': 'a=b' }],
      ['PUT', '/bucket/k', { 'x-amz-object-lock-mode': 'GOVERNANCE' }],
      ['PUT', '/bucket/k', { 'x-amz-server-side-encryption-customer-algorithm': 'AES256' }],
      ['PUT', '/bucket/k', { 'x-amz-write-offset-bytes': '3' }],
    ];
    for (const [method, target, headers = {}] of requests) {
      expect(await refusal(server, method, target, { headers }), `${method} ${target}`).toEqual([
        501,
        'NotImplemented',
      ]);
    }
    expect(await refusal(server, 'PUT', '/bucket/k', { headers: { 'x-amz-acl': 'public-read' } })).toEqual([
      400,
      'AccessControlListNotSupported',
    ]);
    expect(
      await refusal(server, 'PUT', '/bucket/k', { headers: { 'x-amz-storage-class': 'GLACIER' } }),
    ).toEqual([400, 'InvalidStorageClass']);
    expect(await readObject(server.store, 'bucket', 'k')).toBe('kept');
    const big = { body: 'x', headers: { 'x-amz-meta-a': 'x'.repeat(2048) } };
    expect(await refusal(server, 'PUT', '/bucket/k', big)).toEqual([400, 'MetadataTooLarge']);
    expect((await server.send('GET', '/bucket/k?tagging')).text).toContain('<TagSet></TagSet>');
  });

  it('is denied when the authorizer says no, before anything is done', async () => {
    const asked: unknown[] = [];
    const server = await startTestServer({
      authorize: (principal, access) => {
        asked.push([principal.accessKeyId, access]);
        return false;
      },
    });
    for (const [method, target] of [
      ['GET', '/'],
      ['GET', '/bucket?list-type=2&prefix=p'],
      ['PUT', '/bucket/k'],
      ['DELETE', '/bucket'],
    ] as const) {
      expect(await refusal(server, method, target)).toEqual([403, 'AccessDenied']);
    }
    expect(asked).toEqual([
      ['AKIDEXAMPLE', { action: 'list-buckets', bucket: null, key: null }],
      ['AKIDEXAMPLE', { action: 'list', bucket: 'bucket', key: 'p' }],
      ['AKIDEXAMPLE', { action: 'write', bucket: 'bucket', key: 'k' }],
      ['AKIDEXAMPLE', { action: 'delete-bucket', bucket: 'bucket', key: null }],
    ]);
  });

  it('tells what went wrong in S3 elements, and nothing on HEAD', async () => {
    const server = await startTestServer();
    const { text, headers } = await server.send('GET', '/bucket/a&b');
    expect(headers['content-type']).toBe('application/xml');
    expect(text).toBe(
      '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message><Key>a&amp;b</Key><Resource>/bucket/a&amp;b</Resource><RequestId>request-1</RequestId><HostId>request-1</HostId></Error>',
    );
    expect(await server.send('HEAD', '/bucket/a')).toMatchObject({ status: 404, text: '' });
  });

  it('serves buckets named by the host', async () => {
    const server = await startTestServer();
    const headers = { host: 'bucket.localhost:9400' };
    expect((await server.send('PUT', '/a/b', { headers, body: 'hello' })).status).toBe(200);
    expect((await server.send('GET', '/bucket/a/b')).text).toBe('hello');
    expect((await server.send('GET', '/?list-type=2', { headers })).text).toContain('<Key>a/b</Key>');
  });
});
