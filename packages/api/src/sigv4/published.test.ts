import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { webCryptoHasher } from '../webcrypto-hasher.ts';
import { chunkChain } from './chunks.ts';
import { presignUrl, signHeaders, UNSIGNED_PAYLOAD } from './sign.ts';
import { isSigV2Query, verifySigV2Query } from './sigv2.ts';
import { verifySignature } from './verify.ts';

/** Values that AWS prints in its documentation; the pages are named at each. */

const credentials = {
  accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
};
const now = Date.UTC(2013, 4, 24);
const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
const s3 = { credentials, region: 'us-east-1', service: 's3', now };
const signatureIn = (headers: Record<string, string>) => /Signature=(\w+)$/.exec(headers.authorization!)?.[1];

// https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
describe('S3 header examples', () => {
  test.each([
    [
      'GET',
      '/test.txt',
      { Range: 'bytes=0-9' },
      '',
      'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
    ],
    [
      'PUT',
      '/test%24file.text',
      { Date: 'Fri, 24 May 2013 00:00:00 GMT', 'x-amz-storage-class': 'REDUCED_REDUNDANCY' },
      'Welcome to Amazon S3.',
      '98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd',
    ],
    ['GET', '/?lifecycle', {}, '', 'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543'],
    [
      'GET',
      '/?max-keys=2&prefix=J',
      {},
      '',
      '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
    ],
  ] as const)('%s %s', async (method, target, headers, body, signature) => {
    const url = `https://examplebucket.s3.amazonaws.com${target}`;
    const signed = await signHeaders({ ...s3, method, url, headers, payloadHash: sha256(body) });
    expect(signatureIn(signed)).toBe(signature);
    const verified = await verifySignature(
      {
        method,
        target,
        rawHeaders: Object.entries({ ...signed, Host: 'examplebucket.s3.amazonaws.com' }).flat(),
        body: new TextEncoder().encode(body),
      },
      () => credentials,
      { now, services: ['s3'] },
    );
    expect(verified).toMatchObject({ ok: true, signature });
  });
});

// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
test('the S3 presigned example', async () => {
  const url = await presignUrl({
    ...s3,
    method: 'GET',
    url: 'https://examplebucket.s3.amazonaws.com/test.txt',
    expiresInSeconds: 86_400,
  });
  expect(new URL(url).searchParams.get('X-Amz-Signature')).toBe(
    'aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404',
  );
});

// https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html (earlier edition)
test('the IAM ListUsers example, whose payload hash is in no header', async () => {
  const request = {
    method: 'GET',
    target: '/?Action=ListUsers&Version=2010-05-08',
    rawHeaders: [
      'Host',
      'iam.amazonaws.com',
      'Content-Type',
      'application/x-www-form-urlencoded; charset=utf-8',
      'X-Amz-Date',
      '20150830T123600Z',
      'Authorization',
      'AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7',
    ],
    body: new Uint8Array(),
  };
  const key = { secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY' };
  const result = await verifySignature(request, () => key, {
    now: Date.UTC(2015, 7, 30, 12, 36),
    services: ['iam'],
  });
  expect(result).toMatchObject({ ok: true, accessKeyId: 'AKIDEXAMPLE', region: 'us-east-1' });
});

const chunks = ['a'.repeat(65_536), 'a'.repeat(1024), ''];

async function seedOf(headers: Record<string, string>, payloadHash: string) {
  const url = 'https://s3.amazonaws.com/examplebucket/chunkObject.txt';
  const signed = await signHeaders({ ...s3, method: 'PUT', url, headers, payloadHash });
  const verified = await verifySignature(
    {
      method: 'PUT',
      target: '/examplebucket/chunkObject.txt',
      rawHeaders: Object.entries({ ...signed, Host: 's3.amazonaws.com' }).flat(),
      body: null,
    },
    () => credentials,
    { now, services: ['s3'] },
  );
  if (!verified.ok) throw new Error(verified.message);
  return verified;
}

const streamed = {
  'content-encoding': 'aws-chunked',
  'content-length': '66824',
  'x-amz-decoded-content-length': '66560',
  'x-amz-storage-class': 'REDUCED_REDUNDANCY',
};

// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
test('the chunked upload example', async () => {
  const seed = await seedOf(streamed, 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD');
  expect(seed.signature).toBe('4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9');
  expect(seed.payload).toEqual({ kind: 'signed-chunks', trailer: false });
  const chain = chunkChain(seed, webCryptoHasher);
  expect(await chain.next(sha256(chunks[0]!))).toBe(
    'ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648',
  );
  expect(await chain.next(sha256(chunks[1]!))).toBe(
    '0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497',
  );
  expect(await chain.next(sha256(chunks[2]!))).toBe(
    'b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9',
  );
});

// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
test('the chunked upload example with a trailer', async () => {
  const { 'content-length': _, ...rest } = streamed;
  const seed = await seedOf(
    { ...rest, 'x-amz-trailer': 'x-amz-checksum-crc32c' },
    'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER',
  );
  expect(seed.signature).toBe('106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e');
  const chain = chunkChain(seed);
  expect(await chain.next(sha256(chunks[0]!))).toBe(
    'b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2',
  );
  expect(await chain.next(sha256(chunks[1]!))).toBe(
    '1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7',
  );
  expect(await chain.next(sha256(chunks[2]!))).toBe(
    '2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992',
  );
  expect(
    await chain.verifyTrailer(
      [['x-amz-checksum-crc32c', 'sOO8/Q==']],
      'd81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435',
    ),
  ).toBe(true);
});

// https://docs.aws.amazon.com/AmazonS3/latest/userguide/RESTAuthentication.html
test('the SigV2 query example', async () => {
  const target =
    '/photos/puppy.jpg?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D&Expires=1175139620';
  const request = { method: 'GET', target, rawHeaders: ['Host', 'johnsmith.s3.amazonaws.com'], body: null };
  expect(isSigV2Query(target)).toBe(true);
  const verify = (at: number) =>
    verifySigV2Query(request, () => credentials, { now: at, virtualBucket: 'johnsmith' });
  expect(await verify(1_175_139_619_999)).toMatchObject({ ok: true, accessKeyId: 'AKIAIOSFODNN7EXAMPLE' });
  expect(await verify(1_175_139_620_000)).toMatchObject({ ok: false, reason: 'expired' });
});

test('a payload outside the signature is for S3 alone', async () => {
  const url = 'http://127.0.0.1/';
  const signed = await signHeaders({
    ...s3,
    service: 'logs',
    method: 'POST',
    url,
    payloadHash: UNSIGNED_PAYLOAD,
  });
  const request = {
    method: 'POST',
    target: '/',
    rawHeaders: Object.entries({ ...signed, Host: '127.0.0.1' }).flat(),
    body: new Uint8Array(),
  };
  const result = await verifySignature(request, () => credentials, { now, services: ['logs'] });
  expect(result).toMatchObject({ ok: false, reason: 'malformed' });
});
