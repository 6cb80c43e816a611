import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createAwsClient } from './client.ts';
import { isServiceError } from './errors.ts';
import { verifySignature } from './sigv4/verify.ts';

/**
 * The answering side is a function in place of `fetch`; signature checks are the service's own. Timers are
 * vitest's, so that waiting between tries takes no time.
 */
const credentials = { accessKeyId: 'AKIAEXAMPLE', secretAccessKey: 'secret', sessionToken: 'token' };
const start = Date.UTC(2026, 10, 24, 12);

interface Seen {
  url: string;
  headers: Record<string, string>;
  body: string;
}

type Answer = Response | Error | ((seen: Seen) => Response | Promise<Response>);

const json = (body: unknown, status = 200, headers: Record<string, string> = {}) =>
  new Response(typeof body === 'string' ? body : JSON.stringify(body), { status, headers });

function service(...answers: Answer[]) {
  const seen: Seen[] = [];
  const fetch: typeof globalThis.fetch = async (url, init) => {
    init?.signal?.throwIfAborted();
    const body = new TextDecoder().decode(init?.body as Uint8Array);
    const request = { url: String(url), headers: init?.headers as Record<string, string>, body };
    seen.push(request);
    const answer = answers[seen.length - 1] ?? new Error('more requests than expected');
    if (answer instanceof Error) throw new TypeError('fetch failed', { cause: answer });
    return typeof answer === 'function' ? answer(request) : answer;
  };
  const client = createAwsClient({
    endpoint: 'http://127.0.0.1:8080',
    region: 'us-west-2',
    credentials,
    fetch,
  });
  return { client, seen };
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
  vi.useFakeTimers({ now: start, toFake: ['setTimeout', 'clearTimeout', 'Date'] });
});
afterEach(() => {
  vi.useRealTimers();
});

const verified = (request: Seen, signingName: string, now = Date.now()) =>
  verifySignature(
    {
      method: 'POST',
      target: new URL(request.url).pathname,
      rawHeaders: Object.entries({ ...request.headers, host: '127.0.0.1:8080' }).flat(),
      body: new TextEncoder().encode(request.body),
    },
    () => credentials,
    { now, services: [signingName] },
  );

test('a call is signed, typed both ways and free of unknown members', async () => {
  const { client, seen } = service(
    json({ TrainingJobSummaries: [{ TrainingJobName: 'a', CreationTime: 1_795_368_620.5, New: 1 }] }),
  );
  const input = { CreationTimeAfter: new Date(start), MaxResults: 5 };
  const output = await client.sagemaker.call('ListTrainingJobs', input);
  expect(output.TrainingJobSummaries).toEqual([
    { TrainingJobName: 'a', CreationTime: new Date(1_795_368_620_500) },
  ]);
  expect(seen[0]).toMatchObject({
    url: 'http://127.0.0.1:8080/',
    body: JSON.stringify({ MaxResults: 5, CreationTimeAfter: start / 1000 }),
    headers: { 'x-amz-target': 'SageMaker.ListTrainingJobs', 'content-type': 'application/x-amz-json-1.1' },
  });
  expect(await verified(seen[0]!, 'sagemaker')).toMatchObject({ ok: true });
});

test('an input that does not fit is refused before it is sent', async () => {
  const { client, seen } = service();
  await expect(client.sagemaker.call('StopTrainingJob', { TrainingJobName: 1 as never })).rejects.toThrow(
    TypeError,
  );
  expect(seen).toEqual([]);
});

test('an empty answer is an empty output', async () => {
  const { client } = service(json(''));
  expect(await client.logs.call('CreateLogGroup', { logGroupName: 'g' })).toEqual({});
});

test('a refusal becomes a ServiceError at once, whatever framing its code has', async () => {
  const { client, seen } = service(
    json({ __type: 'com.amazon.coral#ResourceInUse:http://x/', Message: 'taken' }, 400, {
      'x-amzn-requestid': 'r-1',
    }),
  );
  await expect(
    settle(client.sagemaker.call('StopTrainingJob', { TrainingJobName: 'a' })),
  ).rejects.toMatchObject({
    code: 'ResourceInUse',
    status: 400,
    actor: 'caller',
    message: 'taken',
    data: { operation: 'StopTrainingJob', requestId: 'r-1' },
  });
  expect(seen).toHaveLength(1);
});

test('throttling, 5xx and broken connections are tried again, each signed anew', async () => {
  const { client, seen } = service(
    json({ __type: 'ThrottlingException' }, 400),
    new Error('ECONNRESET'),
    json({ logStreams: [] }),
  );
  const output = await settle(client.logs.call('DescribeLogStreams', { logGroupName: 'g' }));
  expect(output).toEqual({ logStreams: [] });
  expect(seen).toHaveLength(3);
  for (const request of seen) expect(await verified(request, 'logs', start)).toMatchObject({ ok: true });
});

test('the last answer counts when tries run out', async () => {
  const failing = () => json({ __type: 'InternalFailure', message: 'boom' }, 500);
  const { client, seen } = service(failing(), failing(), failing());
  await expect(
    settle(client.sagemaker.call('StopTrainingJob', { TrainingJobName: 'a' })),
  ).rejects.toMatchObject({
    code: 'InternalFailure',
    actor: 'us',
  });
  expect(seen).toHaveLength(3);
});

test('without any answer the error names the endpoint, the tries and the cause', async () => {
  const { client } = service(
    new Error('connect ECONNREFUSED'),
    new Error('connect ECONNREFUSED'),
    new Error('connect ECONNREFUSED'),
  );
  await expect(
    settle(client.sagemaker.call('StopTrainingJob', { TrainingJobName: 'a' })),
  ).rejects.toMatchObject({
    code: 'ConnectionFailed',
    status: 0,
    message: expect.stringContaining('POST http://127.0.0.1:8080 after 3 tries: connect ECONNREFUSED'),
  });
});

test('HTML from a proxy is said to be no answer of the service', async () => {
  const { client } = service(json('<html>Not here</html>', 404));
  await expect(
    settle(client.sagemaker.call('StopTrainingJob', { TrainingJobName: 'a' })),
  ).rejects.toMatchObject({
    code: 'InvalidResponse',
    message: expect.stringContaining("status 404 and a body that is not AWS JSON, beginning '<html>"),
  });
});

test('a clock that is off is corrected by the Date of the refusal', async () => {
  const ahead = start + 3_600_000;
  const check: Answer = async (seen) => {
    const result = await verified(seen, 'sagemaker', ahead);
    const headers = { date: new Date(ahead).toUTCString() };
    return result.ok
      ? json({})
      : json({ __type: 'InvalidSignatureException', message: result.message }, 403, headers);
  };
  const { client, seen } = service(check, check, check);
  await settle(client.sagemaker.call('StopTrainingJob', { TrainingJobName: 'a' }));
  await client.sagemaker.call('StopTrainingJob', { TrainingJobName: 'a' });
  expect(seen).toHaveLength(3);
});

test('a wrong key is refused once, not tried again', async () => {
  const date = new Date(start).toUTCString();
  const { client, seen } = service(
    json({ __type: 'UnrecognizedClientException', message: 'x' }, 403, { date }),
  );
  await expect(settle(client.sagemaker.call('StopTrainingJob', { TrainingJobName: 'a' }))).rejects.toThrow(
    'x',
  );
  expect(seen).toHaveLength(1);
});

test('an aborted call ends with the reason of its signal, also while it waits to try again', async () => {
  const { client } = service(new Error('ECONNRESET'));
  const controller = new AbortController();
  const call = client.sagemaker.call(
    'StopTrainingJob',
    { TrainingJobName: 'a' },
    { signal: controller.signal },
  );
  controller.abort(new Error('stopped by the user'));
  await expect(call).rejects.toThrow('stopped by the user');
  expect(vi.getTimerCount()).toBe(0);
});

test('credentials are asked for before every try', async () => {
  const keys = ['first', 'second'];
  const seen: string[] = [];
  const client = createAwsClient({
    endpoint: (name) => `http://${name}.test/base`,
    region: 'us-west-2',
    credentials: async () => ({ accessKeyId: keys.shift()!, secretAccessKey: 's' }),
    fetch: async (url, init) => {
      seen.push(
        `${String(url)} ${(init!.headers as Record<string, string>).authorization!.split(/[=/]/)[1]}`,
      );
      return json({}, seen.length === 1 ? 503 : 200);
    },
  });
  await settle(client.logs.call('DescribeLogGroups', {}));
  expect(seen).toEqual(['http://logs.test/base/ first', 'http://logs.test/base/ second']);
});

test('GetCallerIdentity reads the query protocol', async () => {
  const answer = `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
    <Arn>arn:aws:sts::123456789012:assumed-role/r/s</Arn><UserId>AROAX:s</UserId><Account>123456789012</Account>
    </GetCallerIdentityResult></GetCallerIdentityResponse>`;
  const refusal =
    '<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code><Message>no</Message></Error></ErrorResponse>';
  const { client, seen } = service(json(answer), json(refusal, 403), json('{}'));
  expect(await client.sts.getCallerIdentity()).toEqual({
    Account: '123456789012',
    Arn: 'arn:aws:sts::123456789012:assumed-role/r/s',
    UserId: 'AROAX:s',
  });
  expect(seen[0]?.body).toBe('Action=GetCallerIdentity&Version=2011-06-15');
  expect(await verified(seen[0]!, 'sts')).toMatchObject({ ok: true });
  const refused = await client.sts.getCallerIdentity().catch((error: unknown) => error);
  expect(isServiceError(refused, 'InvalidClientTokenId')).toBe(true);
  await expect(client.sts.getCallerIdentity()).rejects.toMatchObject({ code: 'InvalidResponse' });
});
