import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jsonError, s3Error } from '@trainyard/api';
import { afterEach, describe, expect, test } from 'vitest';
import type { GatewayDeps } from './deps.ts';
import type { TestGateway } from './test-gateway.ts';
import { createTestGateway, JOB } from './test-gateway.ts';

let it: TestGateway;
afterEach(() => it.gateway.close());
const start = async (overrides: Partial<GatewayDeps> = {}) => {
  it = await createTestGateway(overrides);
};

/** Writes bytes to the gateway and reads until it closes the connection. */
function raw(bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(it.port, '127.0.0.1');
    let answer = '';
    socket.on('data', (chunk) => {
      answer += chunk.toString();
    });
    socket.on('end', () => resolve(answer));
    socket.on('error', reject);
    socket.write(bytes);
  });
}

describe('awsJson calls', () => {
  test('the handler gets the parsed input and its caller, and its value is serialised by the model', async () => {
    await start({
      sagemaker: {
        ListTrainingJobs: ({ principal, region, requestId }, input) => ({
          TrainingJobSummaries: [
            {
              TrainingJobName: `${principal.kind} ${region} ${input.MaxResults} ${input.Unknown}`,
              TrainingJobArn: requestId,
              CreationTime: new Date(1_700_000_000_123),
              TrainingJobStatus: 'Completed',
              Internal: 'not on the wire',
            },
          ],
        }),
      },
    });
    const answer = await it.json('SageMaker.ListTrainingJobs', { MaxResults: 7, Unknown: true });
    expect(answer.status).toBe(200);
    expect(answer.headers).toMatchObject({
      'content-type': 'application/x-amz-json-1.1',
      date: expect.any(String),
    });
    expect(answer.body).toEqual({
      TrainingJobSummaries: [
        {
          TrainingJobName: 'operator us-west-2 7 undefined',
          TrainingJobArn: answer.headers['x-amzn-requestid'],
          CreationTime: 1_700_000_000.123,
          TrainingJobStatus: 'Completed',
        },
      ],
    });
  });

  test('an empty body means no members', async () => {
    await start({ sagemaker: { ListTrainingJobs: () => ({ TrainingJobSummaries: [] }) } });
    expect((await it.json('SageMaker.ListTrainingJobs', '')).status).toBe(200);
  });

  test('a handler without an answer answers with an empty object', async () => {
    await start({ sagemaker: { StopTrainingJob: () => undefined } });
    expect((await it.json('SageMaker.StopTrainingJob', { TrainingJobName: 'x' })).body).toEqual({});
  });

  test.each<[string, string | Uint8Array]>([
    ['that is cut off', '{"a":'],
    ['that is a list', '[]'],
    ['that is a string', '"x"'],
    ['that is null', 'null'],
    ['with a member of the wrong type', '{"MaxResults":"7"}'],
    ['that is not UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
    ['nested without end', '['.repeat(200_000)],
  ])('a body %s is a SerializationException', async (_title, body) => {
    await start({ sagemaker: { ListTrainingJobs: () => ({}) } });
    const answer = await it.json('SageMaker.ListTrainingJobs', {}, { body });
    expect(`${answer.status} ${answer.body.__type}`).toBe('400 SerializationException');
    expect(it.internalErrors).toEqual([]);
  });

  test('all violations of the model come in one ValidationException', async () => {
    await start({ sagemaker: { ListTrainingJobs: () => ({}) } });
    const answer = await it.json('SageMaker.ListTrainingJobs', { MaxResults: 0, NameContains: '!' });
    expect(`${answer.status} ${answer.body.__type}`).toBe('400 ValidationException');
    expect(answer.body.message).toMatch(
      /^2 validation errors detected: Value '.*' at '.*' failed to satisfy constraint/,
    );
  });

  test.each([
    ['SageMaker.CreateModel', '400 ValidationException', 'sagemaker:CreateModel'],
    ['SageMaker.NoSuchThing', '404 UnknownOperationException', 'NoSuchThing'],
    ['SageMaker.constructor', '404 UnknownOperationException', 'constructor'],
    ['Logs_20140328.StartQuery', '400 ValidationException', 'docs/compatibility.md'],
    ['DynamoDB_20120810.ListTables', '404 UnknownOperationException', 'DynamoDB_20120810.ListTables'],
    ['__proto__.x', '404 UnknownOperationException', '__proto__'],
  ])('%s is refused with %s', async (target, expected, text) => {
    await start();
    const answer = await it.json(target, {});
    expect(`${answer.status} ${answer.body.__type}`).toBe(expected);
    expect(answer.body.message).toContain(text);
  });

  test('a refusal of a handler keeps its code and words', async () => {
    await start({
      sagemaker: {
        DescribeTrainingJob: () => {
          throw jsonError('ValidationException', { message: 'Requested resource not found.' });
        },
      },
    });
    const answer = await it.json('SageMaker.DescribeTrainingJob', { TrainingJobName: 'x' });
    expect(answer.status).toBe(400);
    expect(answer.body).toEqual({ __type: 'ValidationException', message: 'Requested resource not found.' });
  });

  test('a fault of ours is reported with the id that the client saw, and says nothing about itself', async () => {
    await start({
      sagemaker: {
        ListTrainingJobs: () => {
          throw new Error('secret detail at /home/somebody');
        },
      },
    });
    const answer = await it.json('SageMaker.ListTrainingJobs', {});
    expect(`${answer.status} ${answer.body.__type}`).toBe('500 InternalFailure');
    expect(answer.text).not.toMatch(/secret|somebody|\.ts/);
    expect(it.internalErrors).toMatchObject([
      { requestId: answer.headers['x-amzn-requestid'], action: 'SageMaker.ListTrainingJobs' },
    ]);
  });

  test('a value that does not fit the model is a fault of ours, not half an answer', async () => {
    await start({ sagemaker: { ListTrainingJobs: () => ({ TrainingJobSummaries: 'none' }) } });
    const answer = await it.json('SageMaker.ListTrainingJobs', {});
    expect(answer.body.__type).toBe('InternalFailure');
    expect(it.internalErrors).toHaveLength(1);
  });
});

describe('query calls', () => {
  test('GetCallerIdentity names an assumed role for both kinds of keys', async () => {
    await start();
    const form = { Action: 'GetCallerIdentity', Version: '2011-06-15' };
    const operator = await it.query('sts', form);
    expect(operator.headers['content-type']).toBe('text/xml');
    expect(operator.text).toMatch(
      /^<GetCallerIdentityResponse xmlns="https:\/\/sts.amazonaws.com\/doc\/2011-06-15\/"><GetCallerIdentityResult><Arn>arn:aws:sts::111122223333:assumed-role\/TrainyardOperator\/AKIAOPERATOR00000000<\/Arn><UserId>AROA[0-9A-F]{17}:AKIAOPERATOR00000000<\/UserId><Account>111122223333<\/Account><\/GetCallerIdentityResult>/,
    );
    const job = await it.query('sts', form, { credentials: JOB });
    expect(job.text).toContain('<Arn>arn:aws:sts::111122223333:assumed-role/TrainyardJob/my-job</Arn>');
  });

  test('SDK v3 finds a role that trusts SageMaker and may do what it asks for', async () => {
    await start();
    const role = await it.query('iam', { Action: 'GetRole', Version: '2010-05-08', RoleName: 'MyRole' });
    expect(role.text).toContain('<Arn>arn:aws:iam::111122223333:role/MyRole</Arn>');
    const document = decodeURIComponent(/<AssumeRolePolicyDocument>(.*?)</.exec(role.text)?.[1] ?? '');
    expect(JSON.parse(document)).toMatchObject({
      Statement: [{ Principal: { Service: 'sagemaker.amazonaws.com' }, Action: 'sts:AssumeRole' }],
    });
    const simulated = await it.query('iam', {
      Action: 'SimulatePrincipalPolicy',
      Version: '2010-05-08',
      PolicySourceArn: 'arn:aws:iam::111122223333:role/MyRole',
      'ActionNames.member.1': 's3:PutObject',
      'ActionNames.member.2': 's3:Get<Object>',
      'ResourceArns.member.1': 'arn:aws:s3:::b/*',
    });
    expect(simulated.text).toContain(
      '<member><EvalActionName>s3:Get&lt;Object&gt;</EvalActionName><EvalResourceName>arn:aws:s3:::b/*</EvalResourceName><EvalDecision>allowed</EvalDecision></member>',
    );
    const bad = await it.query('iam', { Action: 'GetRole', Version: '2010-05-08', RoleName: 'a/b' });
    expect(bad.text).toContain('<Code>ValidationError</Code>');
  });

  test.each([
    [{ Action: 'AssumeRole', Version: '2011-06-15' }, 'InvalidAction'],
    [{ Action: 'GetCallerIdentity', Version: '1999-01-01' }, 'InvalidAction'],
    [{ Version: '2011-06-15' }, 'MissingAction'],
    [{ Action: '__proto__' }, 'InvalidAction'],
  ])('%j is refused as %s', async (form, code) => {
    await start();
    const answer = await it.query('sts', form as Record<string, string>);
    expect(answer.status).toBe(400);
    expect(answer.text).toMatch(
      new RegExp(
        `^<ErrorResponse .*<Type>Sender</Type><Code>${code}</Code>.*<RequestId>${answer.headers['x-amzn-requestid']}<`,
      ),
    );
  });
});

describe('S3 calls', () => {
  const refuse: GatewayDeps['s3'] = async () => {
    throw s3Error('NoSuchKey', { message: 'No <key> & nothing' });
  };

  test('an error is XML with the id of the request, and has no body for HEAD', async () => {
    await start({ s3: refuse });
    const answer = await it.send({ path: '/bucket/key' });
    const id = answer.headers['x-amz-request-id'];
    expect(answer.status).toBe(404);
    expect(answer.headers).toMatchObject({
      'content-type': 'application/xml',
      'x-amz-id-2': expect.any(String),
    });
    expect(answer.text).toContain('<Code>NoSuchKey</Code><Message>No &lt;key&gt; &amp; nothing</Message>');
    expect(answer.text).toContain(`<RequestId>${id as string}</RequestId>`);
    const head = await it.send({ path: '/bucket/key', method: 'HEAD' });
    expect(head).toMatchObject({ status: 404, text: '' });
  });

  test('an answer that fails half way is cut, not ended as if it were whole', async () => {
    await start({
      s3: async ({ res }) => {
        res.writeHead(200, { 'content-length': 10 });
        res.write('half');
        throw new Error('disk');
      },
    });
    await expect(it.send({ path: '/bucket/key' })).rejects.toThrow(/aborted|hang up|reset/);
    expect(it.internalErrors).toHaveLength(1);
  });

  test('headers that the handler had set for its own answer are gone from an error', async () => {
    await start({
      s3: async ({ res }) => {
        res.setHeader('content-length', 5_000_000);
        res.setHeader('etag', '"x"');
        throw s3Error('InternalError');
      },
    });
    const answer = await it.send({ path: '/bucket/key' });
    expect(answer.status).toBe(500);
    expect(answer.headers.etag).toBeUndefined();
    expect(answer.text).toContain('InternalError');
  });
});

describe('bodies', () => {
  test('one that is announced too large is refused unread, one that grows too large is cut off', async () => {
    await start();
    const announced = await raw(
      'POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: SageMaker.ListTrainingJobs\r\nContent-Length: 1048577\r\nConnection: close\r\n\r\n',
    );
    expect(announced).toMatch(/^HTTP\/1\.1 413 [\s\S]*RequestEntityTooLargeException/);
    const chunk = 'x'.repeat(1 << 20);
    const grown = await raw(
      `POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: SageMaker.ListTrainingJobs\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n100000\r\n${chunk}\r\n1\r\nx\r\n0\r\n\r\n`,
    );
    expect(grown).toMatch(/^HTTP\/1\.1 413 /);
  });

  test('100 Continue is said after the signature was found right, never before', async () => {
    await start({
      sagemaker: { ListTrainingJobs: () => ({ TrainingJobSummaries: [] }) },
      s3: async ({ expectsContinue, req, res }) => {
        expect(expectsContinue).toBe(true);
        res.writeContinue();
        for await (const chunk of req) res.write(chunk);
        res.end();
      },
    });
    const put = { method: 'PUT', path: '/bucket/key', body: 'content', expectsContinue: true };
    expect(await it.send(put)).toMatchObject({ status: 200, text: 'content', continues: 1 });
    expect(await it.send({ ...put, credentials: null })).toMatchObject({ status: 403, continues: 0 });
    const json = { expectsContinue: true };
    expect(await it.json('SageMaker.ListTrainingJobs', {}, json)).toMatchObject({
      status: 200,
      continues: 1,
    });
    const wrong = { ...json, clockSkewMs: 3_600_000 };
    expect(await it.json('SageMaker.ListTrainingJobs', {}, wrong)).toMatchObject({
      status: 403,
      continues: 0,
    });
  });

  test('a connection goes on after a refused call whose body was not read', async () => {
    await start({ s3: async ({ res }) => void res.end('fine') });
    const refused = 'PUT /bucket/key HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n';
    const second = 'GET /_trainyard/v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
    const answers = await raw(refused + 'x'.repeat(100_000) + second);
    expect(answers).toMatch(/^HTTP\/1\.1 403 [\s\S]*AccessDenied[\s\S]*HTTP\/1\.1 200 [\s\S]*"trainyard"/);
  });
});

describe('what is not for any protocol', () => {
  test.each([
    ['what is no HTTP', 'nonsense\r\n\r\n', '400 Bad Request'],
    ['two lengths', 'GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', '400 Bad Request'],
    [
      'a header of 40 kB',
      `GET / HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(40_000)}\r\n\r\n`,
      '431 Request Header Fields Too Large',
    ],
  ])('%s is answered in JSON, with date and id', async (_title, bytes, status) => {
    await start();
    const answer = await raw(bytes);
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status}\r\n`));
    expect(answer).toMatch(/\r\nDate: .* GMT\r\n/);
    expect(answer).toMatch(/\r\nx-amzn-RequestId: /);
    expect(answer).toContain('"__type":"MalformedHttpRequestException"');
    expect(answer).not.toMatch(/<html|at .*\.js/i);
  });

  test.each(['/_trainyard/', '/_trainyard/v2/jobs', '/_trainyard/agent/v2/sync'])(
    '%s is unknown',
    async (path) => {
      await start();
      const answer = await it.send({ path, service: 'trainyard' });
      expect(answer.status).toBe(404);
      expect(JSON.parse(answer.text)).toMatchObject({ __type: 'UnknownOperationException' });
    },
  );

  test('health needs no signature and gives no more than it was told to', async () => {
    await start();
    const answer = await it.send({ path: '/_trainyard/v1/health', credentials: null });
    expect(answer).toMatchObject({ status: 200, text: '{"service":"trainyard"}' });
    expect(answer.headers['content-type']).toBe('application/json');
  });
});

test('an agent is handed on with its bearer token and an unread body', async () => {
  await start({
    agent: async ({ bearerToken, method, path, request }, response) => {
      let size = 0;
      for await (const chunk of request) size += (chunk as Buffer).length;
      response.end(`${method} ${path} ${bearerToken} ${size}`);
    },
  });
  const call = {
    method: 'POST',
    path: '/_trainyard/agent/v1/logs?x',
    body: 'x'.repeat(3_000_000),
    credentials: null,
  };
  expect((await it.send({ ...call, headers: { authorization: 'Bearer abc.def' } })).text).toBe(
    'POST logs abc.def 3000000',
  );
  expect((await it.send({ ...call, headers: { authorization: 'Basic abc' } })).text).toBe(
    'POST logs null 3000000',
  );
});

test('our own API gets path, query and body of the operator', async () => {
  await start({
    trainyard: ({ body, method, path, query, principal }, response) => {
      response.end(`${method} ${path} ${query.get('after')} ${body.length} ${principal.kind}`);
    },
  });
  const answer = await it.send({
    method: 'POST',
    path: '/_trainyard/v1/jobs/a%2Fb?after=1.2',
    service: 'trainyard',
    body: 'xyz',
  });
  expect(answer.text).toBe('POST jobs/a%2Fb 1.2 3 operator');
});

test('a handler learns that its client went away', async () => {
  let aborted: Promise<void> = Promise.resolve();
  let arrived = (): void => {};
  const arrival = new Promise<void>((resolve) => {
    arrived = resolve;
  });
  await start({
    agent: ({ signal }) => {
      aborted = new Promise((resolve) => signal.addEventListener('abort', () => resolve()));
      arrived();
      return aborted;
    },
  });
  const waiting = httpRequest({ port: it.port, host: '127.0.0.1', path: '/_trainyard/agent/v1/sync' });
  waiting.on('error', () => {});
  waiting.end();
  await arrival;
  waiting.destroy();
  await aborted;
  expect(it.internalErrors).toEqual([]);
});

test('closing ends long polls and streams at once and can be repeated', async () => {
  let isOpen = false;
  await start({
    agent: async ({ signal }, response) => {
      response.writeHead(200).write('first ');
      isOpen = true;
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      response.end('last');
    },
  });
  const answer = it.send({ path: '/_trainyard/agent/v1/sync', credentials: null });
  await expect.poll(() => isOpen).toBe(true);
  await it.gateway.close();
  expect((await answer).text).toBe('first last');
  await it.gateway.close();
  await expect(it.send({ path: '/' })).rejects.toThrow('ECONNREFUSED');
});

describe('the Unix socket', () => {
  const directory = mkdtempSync(join(tmpdir(), 'trainyard-gateway-'));
  const path = join(directory, 'gateway.sock');
  afterEach(() => rmSync(path, { force: true }));

  const health = (): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      httpRequest({ socketPath: path, path: '/_trainyard/v1/health', agent: false }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on('error', reject)
        .end();
    });

  test('answers as the port does, is open to its user only and is removed at the end', async () => {
    await start();
    await it.gateway.listenSocket(path);
    expect(await health()).toBe(200);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await it.gateway.close();
    expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
  });

  test('replaces a socket that a crash left there, but no file', async () => {
    await start();
    const crashed = createServer().listen(path);
    await new Promise((resolve) => crashed.once('listening', resolve));
    await it.gateway.listenSocket(path);
    expect(await health()).toBe(200);
    await it.gateway.close();
    await new Promise((resolve) => crashed.close(resolve));

    writeFileSync(path, 'precious');
    await expect(it.gateway.listenSocket(path)).rejects.toThrow('EADDRINUSE');
    rmSync(directory, { recursive: true });
  });

  test('says so when its path is too long for the system', async () => {
    await start();
    const long = `/tmp/${'x'.repeat(120)}.sock`;
    await expect(it.gateway.listenSocket(long)).rejects.toThrow(/has 130 bytes; .*shorter data directory/);
  });
});
