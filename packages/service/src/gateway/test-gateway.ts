import type { IncomingHttpHeaders } from 'node:http';
import { request as httpRequest } from 'node:http';
import { type Credentials, presignUrl, sha256Hex, signHeaders } from '@trainyard/api';
import type { GatewayDeps } from './deps.ts';
import type { CredentialRecord } from './principal.ts';
import type { Gateway } from './server.ts';
import { createGateway } from './server.ts';

/** For tests of this folder: a real gateway on a free port, with one key of each kind. */
export const OPERATOR: Credentials = {
  accessKeyId: 'AKIAOPERATOR00000000',
  secretAccessKey: 'operator-secret',
};
export const JOB: Credentials = {
  accessKeyId: 'ASIAJOB0000000000000',
  secretAccessKey: 'job-secret',
  sessionToken: 'job-token',
};
export const EXPIRED: Credentials = {
  accessKeyId: 'ASIAEXPIRED000000000',
  secretAccessKey: 's',
  sessionToken: 't',
};
export const ACCOUNT = { region: 'us-west-2', accountId: '111122223333' };

const KEYS = new Map<string, CredentialRecord>([
  [
    OPERATOR.accessKeyId,
    {
      secretAccessKey: OPERATOR.secretAccessKey,
      sessionToken: null,
      expiresAt: null,
      principal: { kind: 'operator', accessKeyId: OPERATOR.accessKeyId, roleName: 'TrainyardOperator' },
    },
  ],
  [
    JOB.accessKeyId,
    {
      secretAccessKey: JOB.secretAccessKey,
      sessionToken: 'job-token',
      expiresAt: Number.MAX_SAFE_INTEGER,
      principal: { kind: 'job', accessKeyId: JOB.accessKeyId, jobName: 'my-job', attempt: 1 },
    },
  ],
  [
    EXPIRED.accessKeyId,
    {
      secretAccessKey: 's',
      sessionToken: 't',
      expiresAt: 1,
      principal: { kind: 'job', accessKeyId: EXPIRED.accessKeyId, jobName: 'my-job', attempt: 1 },
    },
  ],
]);

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  /** How often the server said `100 Continue`. */
  continues: number;
}

export interface Sending {
  method?: string;
  path?: string;
  headers?: Record<string, string>;
  body?: string | Uint8Array;
  /** Signed with this key unless null. */
  credentials?: Credentials | null;
  service?: string;
  region?: string;
  /** Milliseconds by which the signer's clock is ahead. */
  clockSkewMs?: number;
  /** What is sent instead of what was signed. */
  tamper?: {
    method?: string;
    path?: string;
    headers?: Record<string, string | undefined>;
    body?: string | Uint8Array;
  };
  /** Sends `Expect: 100-continue` and the body only once the server asks for it. */
  expectsContinue?: boolean;
}

/** An answer's members, or an error's. */
export interface JsonBody {
  __type?: string;
  message?: string;
  [member: string]: unknown;
}

export interface TestGateway {
  gateway: Gateway;
  port: number;
  internalErrors: { error: unknown; requestId: string; action: string }[];
  send(sending: Sending): Promise<Answer>;
  /** A signed awsJson call: `json('SageMaker.ListTrainingJobs', {})`. */
  json(target: string, input: unknown, sending?: Sending): Promise<Answer & { body: JsonBody }>;
  /** A signed query call. */
  query(service: string, form: Record<string, string>, sending?: Sending): Promise<Answer>;
  presign(
    path: string,
    options?: { service?: string; expiresInSeconds?: number; now?: number },
  ): Promise<string>;
}

/** Clean up with `gateway.close()`. Handlers that a test does not give throw: no test reaches them by accident. */
export async function createTestGateway(overrides: Partial<GatewayDeps> = {}): Promise<TestGateway> {
  const internalErrors: TestGateway['internalErrors'] = [];
  const unexpected = (): never => {
    throw new Error('the test did not expect this handler to be called');
  };
  const gateway = createGateway({
    account: ACCOUNT,
    allowedRegions: null,
    pathPrefix: '',
    now: Date.now,
    lookupCredentials: (accessKeyId) => KEYS.get(accessKeyId),
    sagemaker: {},
    logs: {},
    s3: unexpected,
    agent: unexpected,
    trainyard: unexpected,
    health: () => ({ service: 'trainyard' }),
    reportInternalError: (error, context) => internalErrors.push({ error, ...context }),
    ...overrides,
  });
  const port = await gateway.listenTcp('127.0.0.1', 0);
  const endpoint = `http://127.0.0.1:${port}`;

  async function send(sending: Sending): Promise<Answer> {
    const {
      method = 'GET',
      path = '/',
      service = 's3',
      region = 'us-west-2',
      body = '',
      tamper = {},
    } = sending;
    const { host = `127.0.0.1:${port}`, ...toSign } = sending.headers ?? {};
    const { credentials = OPERATOR, clockSkewMs = 0 } = sending;
    const headers: Record<string, string | undefined> =
      credentials === null
        ? { ...toSign }
        : await signHeaders({
            method,
            url: endpoint + path,
            headers: toSign,
            payloadHash: toSign['x-amz-content-sha256'] ?? (await sha256Hex(body)),
            credentials,
            region,
            service,
            now: Date.now() + clockSkewMs,
          });
    Object.assign(headers, { host, ...tamper.headers });
    return exchange(port, {
      method: tamper.method ?? method,
      path: tamper.path ?? path,
      headers: Object.fromEntries(
        Object.entries(headers).filter((entry): entry is [string, string] => entry[1] !== undefined),
      ),
      body: Buffer.from((tamper.body ?? body) as Uint8Array),
      expectsContinue: sending.expectsContinue ?? false,
    });
  }

  return {
    gateway,
    port,
    internalErrors,
    send,
    async json(target, input, sending = {}) {
      const answer = await send({
        method: 'POST',
        service: target.startsWith('Logs') ? 'logs' : 'sagemaker',
        body: typeof input === 'string' ? input : JSON.stringify(input),
        ...sending,
        headers: { 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': target, ...sending.headers },
      });
      return { ...answer, body: JSON.parse(answer.text) as JsonBody };
    },
    query: (service, form, sending = {}) =>
      send({
        method: 'POST',
        service,
        body: new URLSearchParams(form).toString(),
        ...sending,
        headers: { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8', ...sending.headers },
      }),
    async presign(path, { service = 's3', expiresInSeconds = 60, now = Date.now() } = {}) {
      const url = await presignUrl({
        method: 'GET',
        url: endpoint + path,
        credentials: OPERATOR,
        region: 'us-west-2',
        service,
        now,
        expiresInSeconds,
      });
      return url.slice(endpoint.length);
    },
  };
}

/** One request over its own connection, exactly as given. */
function exchange(
  port: number,
  sending: {
    method: string;
    path: string;
    headers: Record<string, string>;
    body: Buffer;
    expectsContinue: boolean;
  },
): Promise<Answer> {
  const { body, expectsContinue, headers, method, path } = sending;
  return new Promise((resolve, reject) => {
    let continues = 0;
    const length = { 'content-length': String(body.length) };
    const outgoing = httpRequest({
      port,
      host: '127.0.0.1',
      method,
      path,
      agent: false,
      headers: {
        ...(body.length > 0 || method === 'POST' || method === 'PUT' ? length : {}),
        ...headers,
        ...(expectsContinue ? { expect: '100-continue' } : {}),
      },
    });
    outgoing.on('error', reject);
    outgoing.on('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        outgoing.destroy();
        const { headers: answered, statusCode = 0 } = response;
        resolve({ status: statusCode, headers: answered, text: Buffer.concat(chunks).toString(), continues });
      });
    });
    if (expectsContinue) {
      outgoing.on('continue', () => {
        continues++;
        outgoing.end(body);
      });
      outgoing.flushHeaders();
    } else {
      outgoing.end(body);
    }
  });
}
