import { createHash } from 'node:crypto';
import { createServer, type IncomingHttpHeaders, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';
import { createTestStore, readAll, type TestStore } from '../../objects/test-store.ts';
import { createS3Handler } from './handler.ts';
import type { ChunkSigningContext, S3Authorizer } from './request.ts';

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
  text: string;
}

export interface TestServer extends TestStore {
  port: number;
  /** What the handler threw: faults and ended connections. */
  faults: unknown[];
  send: (
    method: string,
    target: string,
    options?: { headers?: Record<string, string>; body?: string | Uint8Array },
  ) => Promise<Answer>;
}

/**
 * The handler behind a plain HTTP server on the loopback. Authentication is the gateway's: here the request is taken
 * as signed, with the payload hash that it names.
 */
export async function startTestServer(
  options: { authorize?: S3Authorizer; chunkSigning?: ChunkSigningContext } = {},
): Promise<TestServer> {
  const test = await createTestStore();
  const { authorize = () => true, chunkSigning = null } = options;
  const handler = createS3Handler({ store: test.store, region: 'us-west-2', authorize });
  const faults: unknown[] = [];
  const server = createServer();
  for (const event of ['request', 'checkContinue'] as const) {
    server.on(event, (req, res) => {
      const payloadHash = String(req.headers['x-amz-content-sha256'] ?? 'UNSIGNED-PAYLOAD');
      handler({
        req,
        res,
        rawTarget: req.url ?? '',
        requestId: 'request-1',
        principal: { accessKeyId: 'AKIDEXAMPLE', accountId: '123456789012' },
        auth: { payloadHash, chunkSigning, presigned: false, anonymous: false },
        expectsContinue: event === 'checkContinue',
      }).catch((error) => {
        faults.push(error);
        res.destroy();
      });
    });
  }
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return {
    ...test,
    port,
    faults,
    send: (method, target, { headers = {}, body } = {}) =>
      new Promise((resolve, reject) => {
        const length = body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) };
        const request = httpRequest(
          { port, method, path: target, headers: { ...length, ...headers } },
          (response) => {
            readAll(response).then(
              (content) =>
                resolve({
                  status: response.statusCode ?? 0,
                  headers: response.headers,
                  body: content,
                  text: content.toString(),
                }),
              reject,
            );
          },
        );
        request.on('error', reject);
        request.end(body === undefined ? undefined : Buffer.from(body)); // text would change the encoding of the headers
      }),
  };
}

export const sha256Hex = (data: string | Uint8Array): string =>
  createHash('sha256').update(data).digest('hex');
export const md5Base64 = (data: string | Uint8Array): string =>
  createHash('md5').update(data).digest('base64');
