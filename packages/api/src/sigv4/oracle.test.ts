import { createHash, createHmac } from 'node:crypto';
import { SignatureV4 } from '@smithy/signature-v4';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Hasher } from '../hasher.ts';
import { percentEncode, toBinary } from './bytes.ts';
import { presignUrl, sha256Hex, signHeaders } from './sign.ts';
import { verifySignature } from './verify.ts';

/** The oracle is AWS's own signer: requests that it signs must verify here, and both must sign alike. */

const hasher: Hasher = {
  sha256: (data) => createHash('sha256').update(data).digest(),
  hmac: (key, data) => createHmac('sha256', key).update(data).digest(),
};

class NodeSha256 {
  readonly #hash;
  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#hash = secret === undefined ? createHash('sha256') : createHmac('sha256', secret as string);
  }
  update(data: string | Uint8Array) {
    this.#hash.update(data);
  }
  async digest() {
    return new Uint8Array(this.#hash.digest());
  }
  reset() {}
}

const credentials = {
  accessKeyId: 'AKIAEXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY',
};
const now = Date.UTC(2026, 10, 24, 12, 30, 5);

interface Sample {
  service: 's3' | 'sagemaker' | 'sts';
  method: string;
  segments: string[];
  trailingSlash: boolean;
  query: Record<string, string | string[]>;
  headers: Record<string, string>;
  body: string;
  token: string | undefined;
}

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 12 }),
  fc.constantFrom(
    '',
    '+',
    ' ',
    'a b',
    'a+b',
    '%',
    '%2F',
    '%zz',
    '=',
    '&',
    '/',
    '~',
    '*',
    "'",
    'ü',
    '日本',
    '🚂',
    '..',
  ),
);
const headerValue = fc.stringMatching(/^[!-~]([ -~]{0,20}[!-~])?$/);
const sample: fc.Arbitrary<Sample> = fc.record({
  service: fc.constantFrom('s3', 'sagemaker', 'sts'),
  method: fc.constantFrom('GET', 'PUT', 'POST', 'DELETE', 'HEAD'),
  // A URL cannot carry segments of dots, and the oracle drops empty ones outside S3.
  segments: fc.array(
    text.filter((segment) => segment !== '' && !/^\.+$/.test(segment)),
    { maxLength: 4 },
  ),
  trailingSlash: fc.boolean(),
  query: fc.dictionary(
    text.filter((name) => name !== '' && name !== '__proto__' && !/^x-amz-/i.test(name)),
    fc.oneof(text, fc.array(text, { minLength: 2, maxLength: 3 })),
    { maxKeys: 5 },
  ),
  headers: fc.dictionary(
    fc.stringMatching(/^(x-amz-meta-[a-z]{1,8}|content-type|if-match|x-amz-target)$/),
    headerValue,
    { maxKeys: 4 },
  ),
  body: fc.string({ maxLength: 40 }),
  token: fc.option(fc.stringMatching(/^[A-Za-z0-9+/=]{1,40}$/), { nil: undefined }),
});

const encode = (part: string) => percentEncode(toBinary(part));

/** Decoding `%XX` in a text that is already decoded would change it: the oracle encodes names and values itself. */
function pathOf({ segments, trailingSlash }: Sample): string {
  return `/${segments.map(encode).join('/')}${trailingSlash && segments.length > 0 ? '/' : ''}`;
}

function queryOf(query: Sample['query']): string {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    [value].flat().map((item) => `${encode(name)}=${encode(item)}`),
  );
  return pairs.length > 0 ? `?${pairs.join('&')}` : '';
}

const signerFor = ({ service, token }: Sample) =>
  new SignatureV4({
    service,
    region: 'us-west-2',
    credentials: { ...credentials, ...(token === undefined ? {} : { sessionToken: token }) },
    sha256: NodeSha256,
    uriEscapePath: service !== 's3',
  });

const keyFor = (token: string | undefined) => ({
  secretAccessKey: credentials.secretAccessKey,
  ...(token === undefined ? {} : { sessionToken: token }),
});

async function verifyAsSent(
  value: Sample,
  target: string,
  headers: Record<string, string>,
  body = value.body,
) {
  return verifySignature(
    {
      method: value.method,
      target,
      rawHeaders: Object.entries(headers).flat(),
      body: new TextEncoder().encode(body),
    },
    (id) => (id === credentials.accessKeyId ? keyFor(value.token) : undefined),
    { now, hasher, services: [value.service] },
  );
}

const httpRequest = (value: Sample, headers: Record<string, string>) => ({
  method: value.method,
  protocol: 'http:',
  hostname: '127.0.0.1',
  port: 8080,
  path: pathOf(value),
  query: value.query,
  headers: { host: '127.0.0.1:8080', ...headers },
  body: value.body,
});

describe('against the signer of the AWS SDK', () => {
  test('a request that it signs in headers verifies', () =>
    fc.assert(
      fc.asyncProperty(sample, async (value) => {
        const signed = await signerFor(value).sign(httpRequest(value, value.headers), {
          signingDate: new Date(now),
        });
        const result = await verifyAsSent(value, pathOf(value) + queryOf(value.query), signed.headers);
        expect(result).toMatchObject({ ok: true });
      }),
    ));

  test('both signers write the same Authorization', () =>
    fc.assert(
      fc.asyncProperty(sample, async (value) => {
        const oracle = await signerFor(value).sign(httpRequest(value, value.headers), {
          signingDate: new Date(now),
        });
        const ours = await signHeaders({
          method: value.method,
          url: `http://127.0.0.1:8080${pathOf(value)}${queryOf(value.query)}`,
          headers: value.headers,
          payloadHash: await sha256Hex(value.body, hasher),
          credentials: {
            ...credentials,
            ...(value.token === undefined ? {} : { sessionToken: value.token }),
          },
          region: 'us-west-2',
          service: value.service,
          now,
          hasher,
        });
        expect(ours.authorization).toBe(oracle.headers.authorization);
      }),
    ));

  test('a URL that it presigns verifies, and ours carries the same signature', () =>
    fc.assert(
      fc.asyncProperty(sample, async (value) => {
        const s3 = { ...value, service: 's3' as const };
        const extra = value.method === 'PUT' ? value.headers : {};
        const presigned = await signerFor(s3).presign(
          httpRequest(s3, { ...extra, 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' }),
          {
            signingDate: new Date(now),
            expiresIn: 900,
            unhoistableHeaders: new Set(Object.keys(extra)),
          },
        );
        const target = pathOf(s3) + queryOf(presigned.query as Sample['query']);
        const result = await verifyAsSent(s3, target, presigned.headers);
        expect(result).toMatchObject({ ok: true, method: 'query', payload: { kind: 'unsigned' } });
      }),
    ));

  test('a URL presigned here verifies until the second it expires', () =>
    fc.assert(
      fc.asyncProperty(sample, fc.integer({ min: 1, max: 604_800 }), async (value, expiresInSeconds) => {
        const extra = value.method === 'PUT' ? value.headers : {};
        const url = new URL(
          await presignUrl({
            method: value.method,
            url: `http://127.0.0.1:8080${pathOf(value)}${queryOf(value.query)}`,
            headers: extra,
            expiresInSeconds,
            credentials: {
              ...credentials,
              ...(value.token === undefined ? {} : { sessionToken: value.token }),
            },
            region: 'us-west-2',
            service: 's3',
            now,
            hasher,
          }),
        );
        const at = (later: number) =>
          verifySignature(
            {
              method: value.method,
              target: url.pathname + url.search,
              rawHeaders: Object.entries({ ...extra, Host: url.host }).flat(),
              body: null,
            },
            () => keyFor(value.token),
            { now: now + later, hasher, services: ['s3'] },
          );
        expect(await at(expiresInSeconds * 1000 - 1)).toMatchObject({ ok: true });
        expect(await at(expiresInSeconds * 1000)).toMatchObject({ ok: false, reason: 'expired' });
      }),
    ));
});
