import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { chunkChain } from './chunks.ts';
import { webCryptoHasher } from '../webcrypto-hasher.ts';
import { equalsConstantTime } from './bytes.ts';
import { canonicalRequest, parseQuery } from './canonical.ts';
import { deriveSigningKey, formatScope, hmacHex, stringToSign } from './keys.ts';
import type { AccessKey, RawRequest, SignatureFailureReason } from './raw-request.ts';
import { presignUrl, sha256Hex, signHeaders } from './sign.ts';
import { verifySigV2Query } from './sigv2.ts';
import { type VerifyOptions, verifySignature } from './verify.ts';

/** One well-signed request, and every way to bend it that must be noticed. */

const now = Date.UTC(2026, 10, 24, 12);
const host = '127.0.0.1:8080';
const credentials = { accessKeyId: 'AKIAEXAMPLE', secretAccessKey: 'secret/KEY+1' };
const body = new TextEncoder().encode('{"TrainingJobName":"a"}');
const options: VerifyOptions = { now, services: ['sagemaker'] };

interface Bent {
  method?: string;
  target?: string;
  body?: Uint8Array | null;
  /** Undefined takes the header away. */
  headers?: Record<string, string | undefined>;
  /** Appended as they are. */
  extra?: string[];
}

async function signedRequest(service = 'sagemaker', token?: string): Promise<RawRequest> {
  const headers = await signHeaders({
    method: 'POST',
    url: `http://${host}/path?b=2&a=1`,
    headers: { 'X-Amz-Target': 'SageMaker.CreateTrainingJob', 'Content-Type': 'application/x-amz-json-1.1' },
    payloadHash: await sha256Hex(body),
    credentials: { ...credentials, ...(token === undefined ? {} : { sessionToken: token }) },
    region: 'us-west-2',
    service,
    now,
  });
  return {
    method: 'POST',
    target: '/path?b=2&a=1',
    rawHeaders: Object.entries({ host, ...headers }).flat(),
    body,
  };
}

function bend(request: RawRequest, bent: Bent): RawRequest {
  const headers: string[] = [];
  for (let at = 0; at < request.rawHeaders.length; at += 2) {
    const name = request.rawHeaders[at]!;
    const value = bent.headers && name in bent.headers ? bent.headers[name] : request.rawHeaders[at + 1];
    if (value !== undefined) headers.push(name, value);
  }
  return {
    method: bent.method ?? request.method,
    target: bent.target ?? request.target,
    rawHeaders: [...headers, ...(bent.extra ?? [])],
    body: bent.body === undefined ? request.body : bent.body,
  };
}

const headerOf = ({ rawHeaders }: RawRequest, name: string) => rawHeaders[rawHeaders.indexOf(name) + 1]!;
const known = (id: string): AccessKey | undefined =>
  id === credentials.accessKeyId ? credentials : undefined;

async function expectRefusal(
  request: RawRequest,
  reason: SignatureFailureReason,
  with_: Partial<VerifyOptions> = {},
) {
  const result = await verifySignature(request, known, { ...options, ...with_ });
  expect(result).toMatchObject({ ok: false, reason });
  expect(JSON.stringify(result)).not.toContain(credentials.secretAccessKey);
}

test('the unbent request verifies and says what was signed', async () => {
  expect(await verifySignature(await signedRequest(), known, options)).toMatchObject({
    ok: true,
    method: 'header',
    accessKeyId: 'AKIAEXAMPLE',
    region: 'us-west-2',
    service: 'sagemaker',
    signedHeaders: ['content-type', 'host', 'x-amz-content-sha256', 'x-amz-date', 'x-amz-target'],
    payload: { kind: 'sha256' },
    query: [
      ['b', '2'],
      ['a', '1'],
    ],
  });
});

describe('a header request is refused when', () => {
  const attacks: [string, SignatureFailureReason, Bent][] = [
    ['the method changes', 'bad_signature', { method: 'PUT' }],
    ['the path changes', 'bad_signature', { target: '/path2?b=2&a=1' }],
    ['a query parameter is added', 'bad_signature', { target: '/path?b=2&a=1&c=3' }],
    ['a query parameter is taken away', 'bad_signature', { target: '/path?b=2' }],
    ['a query parameter is repeated', 'bad_signature', { target: '/path?b=2&a=1&a=1' }],
    ['a query value changes its encoding level', 'bad_signature', { target: '/path?b=%2532&a=1' }],
    ['the body changes', 'body_mismatch', { body: new TextEncoder().encode('{"TrainingJobName":"b"}') }],
    ['the body goes', 'body_mismatch', { body: new Uint8Array() }],
    [
      'the declared hash changes with the body',
      'bad_signature',
      { body: new Uint8Array(), headers: { 'x-amz-content-sha256': createHash('sha256').digest('hex') } },
    ],
    ['the declared hash is upper case', 'malformed', { headers: { 'x-amz-content-sha256': 'A'.repeat(64) } }],
    [
      'the payload is declared unsigned',
      'malformed',
      { headers: { 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' } },
    ],
    [
      'the payload form is a name on Object.prototype',
      'malformed',
      { headers: { 'x-amz-content-sha256': 'constructor' } },
    ],
    ['the host changes', 'bad_signature', { headers: { host: 'other:8080' } }],
    ['the host goes', 'bad_signature', { headers: { host: undefined } }],
    [
      'a signed header changes',
      'bad_signature',
      { headers: { 'x-amz-target': 'SageMaker.StopTrainingJob' } },
    ],
    ['a signed header goes', 'bad_signature', { headers: { 'content-type': undefined } }],
    ['a signed header is repeated', 'malformed', { extra: ['X-Amz-Target', 'SageMaker.StopTrainingJob'] }],
    ['Content-Type is repeated', 'malformed', { extra: ['Content-Type', 'text/plain'] }],
    ['Host is repeated', 'malformed', { extra: ['Host', host] }],
    ['an x-amz- header is added unsigned', 'unsigned_header', { extra: ['X-Amz-Meta-Role', 'admin'] }],
    ['a session token is added unsigned', 'unsigned_header', { extra: ['x-amz-security-token', 'x'] }],
    ['x-amz-date changes within the day', 'bad_signature', { headers: { 'x-amz-date': '20261124T115900Z' } }],
    [
      'x-amz-date is another day than the scope',
      'malformed',
      { headers: { 'x-amz-date': '20261125T120000Z' } },
    ],
    ['x-amz-date is no date', 'malformed', { headers: { 'x-amz-date': '20261324T120000Z' } }],
    ['x-amz-date goes', 'malformed', { headers: { 'x-amz-date': undefined } }],
    ['Authorization goes', 'missing', { headers: { authorization: undefined } }],
    ['Authorization is there twice', 'ambiguous', { extra: ['Authorization', 'AWS4-HMAC-SHA256 x'] }],
    ['the query is signed too', 'ambiguous', { target: '/path?b=2&a=1&X-Amz-Signature=0' }],
    [
      'a SigV2 query is there too',
      'ambiguous',
      { target: '/path?b=2&a=1&AWSAccessKeyId=AKIAEXAMPLE&Signature=x&Expires=9999999999' },
    ],
    ['the target is absolute', 'malformed', { target: `http://${host}/path?b=2&a=1` }],
    ['the target is a star', 'malformed', { target: '*' }],
  ];
  test.each(attacks)('%s', async (_title, reason, bent) => {
    await expectRefusal(bend(await signedRequest(), bent), reason);
  });

  const rewrites: [string, SignatureFailureReason, (authorization: string) => string][] = [
    ['the signature is truncated', 'malformed', (text) => text.slice(0, -1)],
    ['the signature is upper case', 'malformed', (text) => text.replace(/\w+$/, (hex) => hex.toUpperCase())],
    [
      'one digit of the signature changes',
      'bad_signature',
      (text) => text.slice(0, -1) + (text.endsWith('0') ? '1' : '0'),
    ],
    ['the signature is of zeros', 'bad_signature', (text) => text.replace(/\w+$/, '0'.repeat(64))],
    ['the signature is empty', 'malformed', (text) => text.replace(/Signature=\w+$/, 'Signature=')],
    ['a second Signature follows', 'malformed', (text) => `${text}, Signature=${'0'.repeat(64)}`],
    ['an unknown field follows', 'malformed', (text) => `${text}, Extra=1`],
    ['Signature is missing', 'malformed', (text) => text.replace(/, Signature.*/, '')],
    ['host is left out of SignedHeaders', 'unsigned_header', (text) => text.replace('host;', '')],
    [
      'x-amz-target is left out of SignedHeaders',
      'unsigned_header',
      (text) => text.replace(';x-amz-target', ''),
    ],
    ['x-amz-date is left out of SignedHeaders', 'unsigned_header', (text) => text.replace(';x-amz-date', '')],
    [
      'content-type is left out of SignedHeaders',
      'bad_signature',
      (text) => text.replace('content-type;', ''),
    ],
    [
      'a header that was not sent is added to SignedHeaders',
      'bad_signature',
      (text) => text.replace('host;', 'host;x-amz-acl;'),
    ],
    [
      'SignedHeaders are not sorted',
      'malformed',
      (text) => text.replace('content-type;host', 'host;content-type'),
    ],
    ['SignedHeaders name one twice', 'malformed', (text) => text.replace('host;', 'host;host;')],
    ['SignedHeaders are upper case', 'malformed', (text) => text.replace('=content-type', '=Content-type')],
    [
      'SignedHeaders hold an empty name',
      'malformed',
      (text) => text.replace('SignedHeaders=', 'SignedHeaders=;'),
    ],
    ['the service in the scope changes', 'wrong_service', (text) => text.replace('/sagemaker/', '/s3/')],
    [
      'the region in the scope changes',
      'bad_signature',
      (text) => text.replace('/us-west-2/', '/eu-west-1/'),
    ],
    ['the day in the scope changes', 'malformed', (text) => text.replace('/20261124/', '/20261123/')],
    ['the scope ends otherwise', 'malformed', (text) => text.replace('aws4_request', 'aws4_reply')],
    ['the scope lacks a part', 'malformed', (text) => text.replace('/us-west-2', '')],
    ['the key is unknown', 'unknown_key', (text) => text.replace('AKIAEXAMPLE', 'AKIAOTHER')],
    [
      'the key is a name on Object.prototype',
      'unknown_key',
      (text) => text.replace('AKIAEXAMPLE', '__proto__'),
    ],
    [
      'the scheme is SigV4a',
      'unsupported',
      (text) => text.replace('AWS4-HMAC-SHA256', 'AWS4-ECDSA-P256-SHA256'),
    ],
    ['the scheme is SigV2', 'unsupported', () => 'AWS AKIAEXAMPLE:frJIUN8DYpKDtOLCwo//yllqDzg='],
    ['the scheme is Bearer', 'unsupported', () => 'Bearer token'],
    ['Authorization is empty', 'unsupported', () => ''],
  ];
  test.each(rewrites)('%s', async (_title, reason, rewrite) => {
    const request = await signedRequest();
    await expectRefusal(
      bend(request, { headers: { authorization: rewrite(headerOf(request, 'authorization')) } }),
      reason,
    );
  });

  test('it is replayed beyond the skew, or comes from the future', async () => {
    const request = await signedRequest();
    const at = (offset: number) => verifySignature(request, known, { ...options, now: now + offset });
    expect(await at(300_000)).toMatchObject({ ok: true });
    expect(await at(-300_000)).toMatchObject({ ok: true });
    expect(await at(300_001)).toMatchObject({
      reason: 'skewed_past',
      message:
        'Signature expired: 20261124T120000Z is now earlier than 20261124T120000Z (20261124T120500Z - 5 min.)',
    });
    expect(await at(-301_000)).toMatchObject({
      reason: 'skewed_future',
      message:
        'Signature not yet current: 20261124T120000Z is still later than 20261124T115959Z (20261124T115459Z + 5 min.)',
    });
  });

  test('its payload form is a name on Object.prototype, for S3 too', async () => {
    const request = await signedRequest('s3');
    const bent = bend(request, { headers: { 'x-amz-content-sha256': 'constructor' } });
    await expectRefusal(bent, 'malformed', { services: ['s3'] });
  });

  test('its region is not served', async () => {
    await expectRefusal(await signedRequest(), 'wrong_region', { regions: ['eu-west-1'] });
  });

  test('it is signed with the secret of another key', async () => {
    const other = { secretAccessKey: 'another' };
    expect(await verifySignature(await signedRequest(), () => other, options)).toMatchObject({
      reason: 'bad_signature',
    });
  });
});

describe('temporary keys', () => {
  const key = { ...credentials, sessionToken: 'token+/=', expiresAt: now + 1000 };
  const verify = async (sent: string | undefined, stored: AccessKey, at = now) =>
    verifySignature(await signedRequest('sagemaker', sent), () => stored, { ...options, now: at });

  test('verify with their token until they expire', async () => {
    expect(await verify('token+/=', key)).toMatchObject({ ok: true });
    expect(await verify('token+/=', key, now + 1000)).toMatchObject({ reason: 'expired_token' });
  });
  test('are refused without their token, with another, or with one that the key does not have', async () => {
    expect(await verify(undefined, key)).toMatchObject({ reason: 'invalid_token' });
    expect(await verify('token+/', key)).toMatchObject({ reason: 'invalid_token' });
    expect(await verify('', key)).toMatchObject({ reason: 'invalid_token' });
    expect(await verify('token+/=', credentials)).toMatchObject({ reason: 'invalid_token' });
  });
});

describe('the Date header', () => {
  /** Old clients: no header of AWS's but Authorization. */
  const withDate = async (names: string[]): Promise<RawRequest> => {
    const headers: Record<string, string> = { date: 'Tue, 24 Nov 2026 12:00:00 GMT', host };
    const scope = { date: '20261124', region: 'us-west-2', service: 'sagemaker' };
    const canonical = canonicalRequest({
      method: 'POST',
      path: '/',
      rawQuery: '',
      headers: names.map((name) => [name, [headers[name]!]]),
      payloadHash: await sha256Hex(body),
      service: 'sagemaker',
    });
    const text = await stringToSign(canonical, '20261124T120000Z', formatScope(scope), webCryptoHasher);
    const key = await deriveSigningKey(credentials.secretAccessKey, scope, webCryptoHasher);
    const signature = await hmacHex(key, text, webCryptoHasher);
    const authorization = `AWS4-HMAC-SHA256 Credential=${credentials.accessKeyId}/${formatScope(scope)},SignedHeaders=${names.join(';')},Signature=${signature}`;
    return {
      method: 'POST',
      target: '/',
      rawHeaders: Object.entries({ ...headers, authorization }).flat(),
      body,
    };
  };
  test('stands in for x-amz-date when it is signed', async () => {
    expect(await verifySignature(await withDate(['date', 'host']), known, options)).toMatchObject({
      ok: true,
    });
  });
  test('is refused unsigned: a replay could set it to now', async () => {
    await expectRefusal(await withDate(['host']), 'unsigned_header');
  });
});

describe('a presigned URL', () => {
  const s3: VerifyOptions = { now, services: ['s3'] };
  const presigned = async (headers: Record<string, string> = {}) => {
    const url = new URL(
      await presignUrl({
        method: 'GET',
        url: `http://${host}/bucket/a%20key?response-content-type=a%2Fb`,
        headers,
        expiresInSeconds: 900,
        credentials,
        region: 'us-west-2',
        service: 's3',
        now,
      }),
    );
    return url.pathname + url.search;
  };
  const verify = (target: string, extra: string[] = [], at = now, method = 'GET') =>
    verifySignature({ method, target, rawHeaders: ['Host', host, ...extra], body: null }, known, {
      ...s3,
      now: at,
    });

  test('verifies for its lifetime, also after the skew of header requests', async () => {
    expect(await verify(await presigned(), [], now + 899_999)).toMatchObject({ ok: true, method: 'query' });
    expect(await verify(await presigned(), [], now + 900_000)).toMatchObject({ reason: 'expired' });
    expect(await verify(await presigned(), [], now - 900_001)).toMatchObject({ reason: 'skewed_future' });
  });
  test('carries the headers that were signed into it', async () => {
    const target = await presigned({ 'content-type': 'text/plain' });
    expect(await verify(target, ['Content-Type', 'text/plain'])).toMatchObject({ ok: true });
    expect(await verify(target, ['Content-Type', 'text/html'])).toMatchObject({ reason: 'bad_signature' });
    expect(await verify(target)).toMatchObject({ reason: 'bad_signature' });
  });

  const attacks: [string, SignatureFailureReason, (target: string) => string, string[]?][] = [
    ['the key changes', 'bad_signature', (target) => target.replace('a%20key', 'b%20key')],
    ['the key is encoded otherwise', 'bad_signature', (target) => target.replace('a%20key', '%61%20key')],
    ['dots are added to the path', 'bad_signature', (target) => target.replace('/bucket/', '/bucket/./')],
    ['the lifetime grows', 'bad_signature', (target) => target.replace('Expires=900', 'Expires=901')],
    [
      'the lifetime is above a week',
      'malformed',
      (target) => target.replace('Expires=900', 'Expires=604801'),
    ],
    ['the lifetime is zero', 'malformed', (target) => target.replace('Expires=900', 'Expires=0')],
    ['the lifetime is no number', 'malformed', (target) => target.replace('Expires=900', 'Expires=9e2')],
    ['the lifetime is there twice', 'malformed', (target) => `${target}&X-Amz-Expires=604800`],
    ['the signature is there twice', 'malformed', (target) => `${target}&X-Amz-Signature=${'0'.repeat(64)}`],
    ['the date is later', 'bad_signature', (target) => target.replace('T120000Z', 'T120001Z')],
    ['a parameter is added', 'bad_signature', (target) => `${target}&versionId=1`],
    ['a parameter is added encoded', 'bad_signature', (target) => `${target}&%61cl`],
    ['a parameter changes', 'bad_signature', (target) => target.replace('a%2Fb', 'a%2Fc')],
    [
      'the payload hash is set in the query',
      'bad_signature',
      (target) => `${target}&X-Amz-Content-Sha256=${'0'.repeat(64)}`,
    ],
    ['the algorithm goes', 'malformed', (target) => target.replace(/X-Amz-Algorithm=[^&]*&/, '')],
    [
      'the algorithm is SigV4a',
      'unsupported',
      (target) => target.replace('AWS4-HMAC-SHA256', 'AWS4-ECDSA-P256-SHA256'),
    ],
    [
      'host is not signed',
      'unsigned_header',
      (target) => target.replace('SignedHeaders=host', 'SignedHeaders=content-type'),
    ],
    [
      'an x-amz- header comes along unsigned',
      'unsigned_header',
      (target) => target,
      ['x-amz-copy-source', '/other/secret'],
    ],
    [
      'a storage hash header comes along unsigned',
      'unsigned_header',
      (target) => target,
      ['x-amz-content-sha256', 'UNSIGNED-PAYLOAD'],
    ],
    [
      'an Authorization header comes along',
      'ambiguous',
      (target) => target,
      ['authorization', 'AWS4-HMAC-SHA256 x'],
    ],
    [
      'a token is added',
      'bad_signature',
      (target) => target.replace('&X-Amz-Signature', '&X-Amz-Security-Token=&X-Amz-Signature'),
    ],
  ];
  test.each(attacks)('is refused when %s', async (_title, reason, change, extra = []) => {
    expect(await verify(change(await presigned()), extra)).toMatchObject({ ok: false, reason });
  });
  test('is refused with another method', async () => {
    expect(await verify(await presigned(), [], now, 'PUT')).toMatchObject({ reason: 'bad_signature' });
  });
  test('may have its query reordered and re-encoded, which changes nothing it means', async () => {
    const [path, query = ''] = (await presigned()).split('?');
    const target = `${path}?${query.split('&').reverse().join('&').replace('a%2Fb', '%61%2fb')}`;
    const result = await verify(target);
    expect(result).toMatchObject({ ok: true });
    expect(result.ok && result.query).toContainEqual(['response-content-type', 'a/b']);
  });
});

describe('a chunk chain', () => {
  const sum = (text: string) => createHash('sha256').update(text).digest('hex');
  const seed = {
    signingKey: new Uint8Array(32).fill(7),
    amzDate: '20261124T120000Z',
    scope: '20261124/r/s3/aws4_request',
    signature: '0'.repeat(64),
  };
  const signAll = async (...texts: string[]) => {
    const chain = chunkChain(seed);
    const signatures: string[] = [];
    for (const text of texts) signatures.push(await chain.next(sum(text)));
    return signatures;
  };
  test('verifies chunks in order and refuses them swapped, repeated, dropped or changed', async () => {
    const [a = '', b = ''] = await signAll('a', 'b', '');
    const fresh = () => chunkChain(seed);
    expect(await fresh().verify(sum('a'), a)).toBe(true);
    expect(await fresh().verify(sum('b'), b)).toBe(false);
    expect(await fresh().verify(sum('x'), a)).toBe(false);
    const repeating = fresh();
    expect(await repeating.verify(sum('a'), a)).toBe(true);
    expect(await repeating.verify(sum('a'), a)).toBe(false);
  });
  test('stays refused after one false chunk', async () => {
    const [a = '', b = ''] = await signAll('a', 'b');
    const chain = chunkChain(seed);
    expect(await chain.verify(sum('a'), b)).toBe(false);
    expect(await chain.verify(sum('b'), b)).toBe(false);
    expect(a).not.toBe(b);
  });
  test('depends on the signature of the headers', async () => {
    const [a = ''] = await signAll('a');
    expect(await chunkChain({ ...seed, signature: '1'.repeat(64) }).verify(sum('a'), a)).toBe(false);
  });
  test('covers the trailer', async () => {
    const signature = await chunkChain(seed).signTrailer([['x-amz-checksum-crc32', 'AAAAAA==']]);
    expect(await chunkChain(seed).verifyTrailer([['X-Amz-Checksum-CRC32', ' AAAAAA== ']], signature)).toBe(
      true,
    );
    expect(await chunkChain(seed).verifyTrailer([['x-amz-checksum-crc32', 'AAAAAQ==']], signature)).toBe(
      false,
    );
    expect(await chunkChain(seed).verifyTrailer([], signature)).toBe(false);
  });
});

describe('SigV2 URLs that boto3 presigns by default', () => {
  const rows = JSON.parse(
    readFileSync(new URL('../generated/boto3-presigned.fixture.json', import.meta.url), 'utf8'),
  ) as {
    operation: string;
    method: string;
    token: string | null;
    target: string;
  }[];
  const signedAt = 1_795_000_000_000;
  const verify = (
    target: string,
    method: string,
    token: string | null,
    rawHeaders: string[] = [],
    at = signedAt,
  ) =>
    verifySigV2Query(
      { method, target, rawHeaders: ['Host', host, ...rawHeaders], body: null },
      (id) =>
        id === 'AKIAEXAMPLE'
          ? { ...credentials, ...(token === null ? {} : { sessionToken: token }) }
          : undefined,
      { now: at },
    );

  test.each(rows)('$operation with token $token', async ({ target, method, token }) => {
    expect(await verify(target, method, token)).toMatchObject({ ok: true, accessKeyId: 'AKIAEXAMPLE' });
    expect(await verify(target, method, token, [], signedAt + 900_000)).toMatchObject({ reason: 'expired' });
    expect(await verify(target, 'POST', token)).toMatchObject({ reason: 'bad_signature' });
    expect(await verify(target, method, 'other')).toMatchObject({ reason: 'invalid_token' });
  });

  const get = rows[1]!.target;
  const attacks: [string, SignatureFailureReason, string, string[]?][] = [
    ['the key changes', 'bad_signature', get.replace('/b/k', '/b/l')],
    ['the version changes', 'bad_signature', get.replace('v1', 'v2')],
    ['a sub-resource is added', 'bad_signature', `${get}&acl`],
    ['a sub-resource is added encoded', 'bad_signature', `${get}&%61cl`],
    ['a space becomes a plus that was signed as one', 'bad_signature', get.replace('x%20y', 'x%2By')],
    [
      'two parameters hide in one value',
      'unsupported',
      get.replace('versionId=v1', 'versionId=v1%26uploads'),
    ],
    ['the lifetime grows', 'bad_signature', get.replace('1795000900', '1795000901')],
    ['the lifetime is there twice', 'malformed', `${get}&Expires=9999999999`],
    ['the signature is there twice', 'malformed', `${get}&Signature=x`],
    ['the lifetime is no number', 'malformed', get.replace('1795000900', '1e20')],
    ['the key is unknown', 'unknown_key', get.replace('AKIAEXAMPLE', 'AKIAOTHER')],
    ['a header changes what is done', 'bad_signature', get, ['x-amz-copy-source', '/other/secret']],
    ['SigV4 comes along', 'ambiguous', `${get}&X-Amz-Signature=0`],
    ['an Authorization header comes along', 'ambiguous', get, ['authorization', 'x']],
    ['header and query disagree', 'malformed', `${get}&x-amz-meta-a=1`, ['x-amz-meta-a', '2']],
  ];
  test.each(attacks)('are refused when %s', async (_title, reason, target, headers = []) => {
    expect(await verify(target, 'GET', null, headers)).toMatchObject({ ok: false, reason });
  });
  test('are refused by the SigV4 verifier', async () => {
    const request = { method: 'GET', target: get, rawHeaders: ['Host', host], body: null };
    expect(await verifySignature(request, known, { now, services: ['s3'] })).toMatchObject({
      reason: 'unsupported',
    });
  });
});

test('any one changed character of a signed request is noticed', () =>
  fc.assert(
    fc.asyncProperty(
      fc.nat(),
      fc.constantFrom('x', '0', '%', '/', ' ', '&', '\u00e9'),
      async (seed, char) => {
        const request = await signedRequest();
        const places = [request.target, ...request.rawHeaders.filter((_, at) => at % 2 === 1)];
        const place = seed % places.length;
        const text = places[place]!;
        const at = Math.floor(seed / places.length) % text.length;
        const changed = text.slice(0, at) + char + text.slice(at + 1);
        // A second space collapses and `&&` holds no parameter: the meaning stays, and so does the signature.
        fc.pre(changed !== text && changed.trim().replace(/ +/g, ' ') !== text && char !== '&');
        const rawHeaders = request.rawHeaders.map((value, index) =>
          index === place * 2 - 1 ? changed : value,
        );
        const result = await verifySignature(
          { ...request, target: place === 0 ? changed : request.target, rawHeaders },
          known,
          options,
        );
        expect(result.ok).toBe(false);
      },
    ),
  ));

test('bytes that are not UTF-8 do not pass for each other', () => {
  expect(parseQuery('/?a=%ff')).toEqual([['a', '\ufffd']]);
  expect(parseQuery('/?a=%zz&b&&=c&d=e=f&g=%F0%9F%9A%82+1')).toEqual([
    ['a', '%zz'],
    ['b', ''],
    ['', 'c'],
    ['d', 'e=f'],
    ['g', '🚂 1'],
  ]);
});

test('comparison is by content and length', () => {
  expect(equalsConstantTime('abc', 'abc')).toBe(true);
  expect(equalsConstantTime('abc', 'abd')).toBe(false);
  expect(equalsConstantTime('abc', 'abcd')).toBe(false);
  expect(equalsConstantTime('', '')).toBe(true);
});
