import { createHash, createHmac } from 'node:crypto';
import { createRequire } from 'node:module';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { AuthenticatedS3Request } from './s3/request.ts';
import type { Answer, Sending, TestGateway } from './test-gateway.ts';
import { createTestGateway, EXPIRED, JOB, OPERATOR } from './test-gateway.ts';

// Its ES build has extensionless imports, made for bundlers: Node runs the CommonJS one.
const { SignatureV4 } = createRequire(import.meta.url)(
  '@smithy/signature-v4',
) as typeof import('@smithy/signature-v4');

/** The hash of the AWS SDK's signer, on Node's own. */
class Sha256 {
  readonly #secret: string | undefined;
  #data = '';
  constructor(secret?: string) {
    this.#secret = secret;
  }
  update(data: Uint8Array | string): void {
    this.#data += Buffer.from(data as Uint8Array).toString('latin1');
  }
  reset(): void {}
  digest = async (): Promise<Uint8Array> => {
    const hash = this.#secret === undefined ? createHash('sha256') : createHmac('sha256', this.#secret);
    return hash.update(this.#data, 'latin1').digest();
  };
}

let it: TestGateway;
let reached: { who: string; s3?: AuthenticatedS3Request }[] = [];

beforeAll(async () => {
  it = await createTestGateway({
    sagemaker: {
      ListTrainingJobs: ({ principal }) => {
        reached.push({ who: principal.kind });
        return { TrainingJobSummaries: [] };
      },
    },
    s3: async (s3) => {
      reached.push({ who: s3.principal.accessKeyId, s3 });
      s3.res.end('object');
    },
    trainyard: ({ principal }, response) => {
      reached.push({ who: principal.kind });
      response.end('ours');
    },
  });
});
afterAll(() => it.gateway.close());
beforeEach(() => {
  reached = [];
});

const listJobs = (sending: Sending = {}) => it.json('SageMaker.ListTrainingJobs', {}, sending);
const whoAmI = (sending: Sending = {}) =>
  it.query('sts', { Action: 'GetCallerIdentity', Version: '2011-06-15' }, sending);
const getObject = (sending: Sending = {}) => it.send({ path: '/bucket/key', ...sending });

function codeOf({ text, headers }: Answer): string {
  return headers['content-type']?.includes('json')
    ? (JSON.parse(text) as { __type: string }).__type
    : (/<Code>(.*?)<\/Code>/.exec(text)?.[1] ?? text);
}

test('each protocol knows a request signed for it', async () => {
  expect((await listJobs()).status).toBe(200);
  expect((await whoAmI()).status).toBe(200);
  expect((await getObject()).text).toBe('object');
  expect((await it.send({ path: '/_trainyard/v1/jobs/x', service: 'trainyard' })).text).toBe('ours');
  expect((await getObject({ credentials: JOB })).text).toBe('object');
  expect(reached.map(({ who }) => who)).toEqual([
    'operator',
    OPERATOR.accessKeyId,
    'operator',
    JOB.accessKeyId,
  ]);
});

const MINUTE = 60_000;
const { sessionToken: _, ...JOB_WITHOUT_TOKEN } = JOB;
const faults: [string, Sending, { json: string; query: string; s3: string }][] = [
  [
    'no signature at all',
    { credentials: null },
    {
      json: '403 MissingAuthenticationTokenException',
      query: '403 MissingAuthenticationToken',
      s3: '403 AccessDenied',
    },
  ],
  [
    'an unknown key',
    { credentials: { accessKeyId: 'AKIANOBODY', secretAccessKey: 'x' } },
    {
      json: '403 UnrecognizedClientException',
      query: '403 InvalidClientTokenId',
      s3: '403 InvalidAccessKeyId',
    },
  ],
  [
    'a wrong secret',
    { credentials: { ...OPERATOR, secretAccessKey: 'guess' } },
    {
      json: '403 InvalidSignatureException',
      query: '403 SignatureDoesNotMatch',
      s3: '403 SignatureDoesNotMatch',
    },
  ],
  [
    'the key of a job without its token',
    { credentials: JOB_WITHOUT_TOKEN },
    { json: '403 UnrecognizedClientException', query: '403 InvalidClientTokenId', s3: '400 InvalidToken' },
  ],
  [
    'the key of a job with another token',
    { credentials: { ...JOB, sessionToken: 'stolen' } },
    { json: '403 UnrecognizedClientException', query: '403 InvalidClientTokenId', s3: '400 InvalidToken' },
  ],
  [
    'an expired key',
    { credentials: EXPIRED },
    { json: '403 ExpiredTokenException', query: '403 ExpiredToken', s3: '400 ExpiredToken' },
  ],
  [
    'a clock 20 minutes slow',
    { clockSkewMs: -20 * MINUTE },
    {
      json: '403 InvalidSignatureException',
      query: '403 SignatureDoesNotMatch',
      s3: '403 RequestTimeTooSkewed',
    },
  ],
  [
    'a clock 20 minutes fast',
    { clockSkewMs: 20 * MINUTE },
    {
      json: '403 InvalidSignatureException',
      query: '403 SignatureDoesNotMatch',
      s3: '403 RequestTimeTooSkewed',
    },
  ],
  [
    'the scope of another service',
    { service: 'lambda' },
    {
      json: '403 InvalidSignatureException',
      query: '403 SignatureDoesNotMatch',
      s3: '400 AuthorizationHeaderMalformed',
    },
  ],
  [
    'a malformed Authorization header',
    { tamper: { headers: { authorization: 'AWS4-HMAC-SHA256 Credential=nonsense' } } },
    {
      json: '403 IncompleteSignatureException',
      query: '400 IncompleteSignature',
      s3: '400 AuthorizationHeaderMalformed',
    },
  ],
];

describe.each(faults)('a request with %s', (_title, sending, expected) => {
  test.each(['json', 'query', 's3'] as const)('is refused by %s in its own words', async (form) => {
    const call = { json: listJobs, query: whoAmI, s3: getObject }[form];
    const answer = await call(sending);
    expect(`${answer.status} ${codeOf(answer)}`).toBe(expected[form]);
    expect(answer.headers.date).toBeDefined();
    expect(reached).toEqual([]);
  });
});

test('the words for an unknown key and for a slow clock are those of AWS', async () => {
  const unknown = await listJobs({ credentials: { accessKeyId: 'AKIANOBODY', secretAccessKey: 'x' } });
  expect(unknown.body.message).toBe('The security token included in the request is invalid.');
  const slow = await listJobs({ clockSkewMs: -6 * MINUTE });
  expect(slow.body.message).toMatch(
    /^Signature expired: \d{8}T\d{6}Z is now earlier than \d{8}T\d{6}Z \(\d{8}T\d{6}Z - 5 min\.\)$/,
  );
});

test('S3 tells the time, by which clients set theirs right', async () => {
  const { text } = await getObject({ clockSkewMs: 20 * MINUTE });
  const serverTime = Date.parse(/<ServerTime>(.*?)<\/ServerTime>/.exec(text)?.[1] ?? '');
  expect(Math.abs(serverTime - Date.now())).toBeLessThan(MINUTE);
  expect(text).toContain('<MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>');
});

test('S3 allows 15 minutes where the others allow five', async () => {
  expect((await getObject({ clockSkewMs: -10 * MINUTE })).status).toBe(200);
  expect((await listJobs({ clockSkewMs: -10 * MINUTE })).status).toBe(403);
  expect((await listJobs({ clockSkewMs: -4 * MINUTE })).status).toBe(200);
});

describe('what was changed on the way is found', () => {
  const body = JSON.stringify({ MaxResults: 1 });
  test.each<[string, Sending]>([
    ['another body of the same size', { tamper: { body: JSON.stringify({ MaxResults: 9 }) } }],
    ['a longer body', { tamper: { body: `${body} ` } }],
    ['no body', { tamper: { body: '' } }],
    ['another operation', { tamper: { headers: { 'x-amz-target': 'SageMaker.DeleteTrainingJob' } } }],
    ['another host', { tamper: { headers: { host: 'elsewhere' } } }],
    ['another date', { tamper: { headers: { 'x-amz-date': '20200101T000000Z' } } }],
    ['an unsigned x-amz header', { tamper: { headers: { 'x-amz-extra': 'x' } } }],
    ['another path', { tamper: { path: '/other' } }],
    ['another query', { tamper: { path: '/?x=1' } }],
    ['a hash that says nothing', { tamper: { headers: { 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' } } }],
  ])('%s', async (_title, sending) => {
    const answer = await it.json('SageMaker.ListTrainingJobs', body, sending);
    expect(answer.status).toBe(403);
    expect(codeOf(answer)).toMatch(/SignatureException$/);
    expect(reached).toEqual([]);
  });

  test.each<[string, Sending]>([
    ['another key', { tamper: { path: '/bucket/other' } }],
    ['an added subresource', { tamper: { path: '/bucket/key?acl' } }],
    ['a path with dots', { tamper: { path: '/bucket/x/../key' } }],
    ['another method', { tamper: { method: 'DELETE' } }],
  ])('S3: %s', async (_title, sending) => {
    const answer = await getObject(sending);
    expect(`${answer.status} ${codeOf(answer)}`).toBe('403 SignatureDoesNotMatch');
    expect(reached).toEqual([]);
  });
});

describe('a call that does not announce the hash of its body, as boto3 and the AWS CLI make it', () => {
  async function signedLikeBoto(body: string): Promise<Sending> {
    const signer = new SignatureV4({
      credentials: OPERATOR,
      region: 'us-west-2',
      service: 'sagemaker',
      sha256: Sha256 as never,
      applyChecksum: false,
    });
    const { headers } = await signer.sign({
      method: 'POST',
      protocol: 'http:',
      hostname: '127.0.0.1',
      path: '/',
      headers: { host: `127.0.0.1:${it.port}`, 'x-amz-target': 'SageMaker.ListTrainingJobs' },
      body,
    });
    expect(headers).not.toHaveProperty('x-amz-content-sha256');
    return { method: 'POST', headers, body, credentials: null };
  }

  test('is verified over the body itself', async () => {
    expect((await it.send(await signedLikeBoto('{"MaxResults":1}'))).status).toBe(200);
    const changed = { ...(await signedLikeBoto('{"MaxResults":1}')), body: '{"MaxResults":9}' };
    expect(codeOf(await it.send(changed))).toBe('InvalidSignatureException');
    expect(reached).toHaveLength(1);
  });
});

test('authentication in two places is refused', async () => {
  const path = await it.presign('/bucket/key');
  const answer = await getObject({ path });
  expect(answer.status).toBe(400);
  expect(codeOf(answer)).toMatch(/^Invalid(Argument|Request)$/);
});

describe('presigned URLs', () => {
  test('one of SigV4 reaches the handler as such, with the target as sent', async () => {
    const path = await it.presign('/bucket/a%20key?response-content-type=x');
    expect((await it.send({ path, credentials: null })).text).toBe('object');
    expect(reached[0]?.s3).toMatchObject({
      rawTarget: path,
      auth: { payloadHash: 'UNSIGNED-PAYLOAD', chunkSigning: null, presigned: true },
    });
  });

  test('one that has expired or was changed is refused', async () => {
    const old = await it.presign('/bucket/key', { now: Date.now() - 2 * MINUTE, expiresInSeconds: 60 });
    const expired = await it.send({ path: old, credentials: null });
    expect(`${expired.status} ${codeOf(expired)}`).toBe('403 AccessDenied');
    expect(expired.text).toContain('Request has expired');
    const fresh = await it.presign('/bucket/key');
    const changed = await it.send({ path: fresh.replace('/bucket/key', '/bucket/kez'), credentials: null });
    expect(codeOf(changed)).toBe('SignatureDoesNotMatch');
    const longer = await it.send({ path: fresh.replace('Expires=60', 'Expires=600'), credentials: null });
    expect(codeOf(longer)).toBe('SignatureDoesNotMatch');
    const bad = await it.send({ path: fresh.replace('Expires=60', 'Expires=0'), credentials: null });
    expect(`${bad.status} ${codeOf(bad)}`).toBe('400 AuthorizationQueryParametersError');
    const other = await it.send({ path: fresh, method: 'DELETE', credentials: null });
    expect(codeOf(other)).toBe('SignatureDoesNotMatch');
    expect(reached).toEqual([]);
  });

  test('one of SigV2, as boto3 makes it, is known by its signature', async () => {
    const expires = Math.floor(Date.now() / 1000) + 60;
    const signature = createHmac('sha1', OPERATOR.secretAccessKey)
      .update(`GET\n\n\n${expires}\n/bucket/key`)
      .digest('base64');
    const pathWith = (value: string) =>
      `/bucket/key?AWSAccessKeyId=${OPERATOR.accessKeyId}&Signature=${encodeURIComponent(value)}&Expires=${expires}`;
    expect((await it.send({ path: pathWith(signature), credentials: null })).text).toBe('object');
    expect(reached[0]?.s3?.auth).toMatchObject({
      payloadHash: 'UNSIGNED-PAYLOAD',
      chunkSigning: null,
      presigned: true,
    });
    const wrong = await it.send({ path: pathWith(`A${signature.slice(1)}`), credentials: null });
    expect(codeOf(wrong)).toBe('SignatureDoesNotMatch');
    // Host is not signed: with this one the path would name another object, `bucket/key` in `other`.
    const elsewhere = { path: pathWith(signature), credentials: null, headers: { host: 'other.localhost' } };
    expect(codeOf(await it.send(elsewhere))).toBe('SignatureDoesNotMatch');
  });
});

test('the S3 handler gets what the chain of chunk signatures starts from', async () => {
  const seed = 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD';
  const answer = await it.send({
    method: 'PUT',
    path: '/bucket/key',
    headers: { 'x-amz-content-sha256': seed, 'x-amz-decoded-content-length': '0' },
  });
  expect(answer.status).toBe(200);
  const auth = reached[0]?.s3?.auth;
  expect(auth?.payloadHash).toBe(seed);
  expect(auth?.chunkSigning).toMatchObject({
    seedSignature: expect.stringMatching(/^[0-9a-f]{64}$/),
    amzDate: expect.stringMatching(/^\d{8}T\d{6}Z$/),
    scope: expect.stringMatching(/^\d{8}\/us-west-2\/s3\/aws4_request$/),
  });
  expect(auth?.chunkSigning?.signingKey).toHaveLength(32);
});

test('regions are free unless the operator names them', async () => {
  expect((await listJobs({ region: 'eu-central-1' })).status).toBe(200);
  const strict = await createTestGateway({ allowedRegions: ['us-west-2'] });
  try {
    const answer = await strict.json('SageMaker.ListTrainingJobs', {}, { region: 'eu-central-1' });
    expect(answer.body.__type).toBe('InvalidSignatureException');
    expect(answer.body.message).toContain('Credential should be scoped to a valid region');
    const s3 = await strict.send({ path: '/bucket/key', region: 'eu-central-1' });
    expect(codeOf(s3)).toBe('AuthorizationHeaderMalformed');
    expect(s3.text).toContain('<Region>us-west-2</Region>');
  } finally {
    await strict.gateway.close();
  }
});

test('a prefix of the public URL is signed but not routed', async () => {
  const prefixed = await createTestGateway({
    pathPrefix: '/trainyard',
    s3: async ({ rawTarget, res }) => void res.end(rawTarget),
  });
  try {
    expect((await prefixed.send({ path: '/trainyard/bucket/key?x=1' })).text).toBe('/bucket/key?x=1');
  } finally {
    await prefixed.gateway.close();
  }
});

test('the key of a job is denied by the front door itself where it has no business', async () => {
  const denied = await listJobs({ credentials: JOB });
  expect(`${denied.status} ${denied.body.__type}`).toBe('403 AccessDeniedException');
  expect(denied.body.message).toMatch(
    /^User: arn:aws:sts::111122223333:assumed-role\/TrainyardJob\/my-job is not authorized/,
  );
  const ours = await it.send({ path: '/_trainyard/v1/doctor', service: 'trainyard', credentials: JOB });
  expect(ours.status).toBe(403);
  const iam = await it.query('iam', { Action: 'GetRole', RoleName: 'x' }, { credentials: JOB });
  expect(`${iam.status} ${codeOf(iam)}`).toBe('403 AccessDenied');
  expect(reached).toEqual([]);
});
