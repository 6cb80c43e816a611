import { randomUUID } from 'node:crypto';
import { chmodSync, lstatSync, rmSync } from 'node:fs';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { isServiceError, jsonError, queryError, s3Error } from '@trainyard/api';
import { isDiskFull } from '../store/disk-reserve.ts';
import type { AnswerForm } from './answers.ts';
import { sendError, sendJson, setRequestId } from './answers.ts';
import { authenticate, authenticateS3 } from './authenticate.ts';
import type { Call } from './call.ts';
import type { GatewayDeps } from './deps.ts';
import { answerJson } from './json-protocol.ts';
import { answerQuery } from './query-protocol.ts';
import type { Route } from './route.ts';
import { routeOf, withoutPrefix } from './route.ts';

export interface Gateway {
  /** @returns the port, which is the given one unless that is 0. @throws what listening throws: EADDRINUSE, EACCES. */
  listenTcp(host: string, port: number): Promise<number>;
  /**
   * Listens on a Unix socket that only this user may open. The caller owns the directory: a socket left there by
   * a crash is replaced.
   */
  listenSocket(path: string): Promise<void>;
  /** Stops listening, ends long polls and streams, gives calls in work two seconds. May be called twice. */
  close(): Promise<void>;
}

const HEADERS_TIMEOUT_MS = 20_000;
/** Longer than clients keep idle connections, so that they never write into one that we are closing. */
const KEEP_ALIVE_TIMEOUT_MS = 65_000;
/** A body may take hours, but not stand still. */
const BODY_IDLE_TIMEOUT_MS = 120_000;
/** What is left of a refused body is read and thrown away for this long, so that the client sees the answer. */
const DRAIN_TIMEOUT_MS = 10_000;
const CLOSE_GRACE_MS = 2_000;
const TRAINYARD_BODY_LIMIT_BYTES = 1 << 20;
/** `sun_path` of Linux without its closing zero; macOS has 103. */
const MAX_SOCKET_PATH_BYTES = process.platform === 'linux' ? 107 : 103;

/** The front door: every protocol on one address, every call verified before anything is done for it. */
export function createGateway(deps: GatewayDeps): Gateway {
  const servers = new Set<Server>();
  const inFlight = new Set<AbortController>();

  const onRequest =
    (expectsContinue: boolean) =>
    (request: IncomingMessage, response: ServerResponse): void => {
      void handle(request, response, expectsContinue);
    };

  async function handle(
    request: IncomingMessage,
    response: ServerResponse,
    expectsContinue: boolean,
  ): Promise<void> {
    const method = request.method ?? '';
    const target = withoutPrefix(request.url ?? '', deps.pathPrefix);
    const route = routeOf({ method, target, headers: request.headers });
    const form: AnswerForm = route.kind === 's3' || route.kind === 'query' ? route.kind : 'json';
    const requestId = randomUUID();
    setRequestId(response, requestId, form);
    const call: Call = {
      request,
      response,
      requestId,
      method,
      target,
      expectsContinue,
      signal: signalOf(response),
    };
    // Of a connection that broke nobody can be told; the signal ends the work.
    response.on('error', () => {});
    limitStandstill(request);
    response.once('finish', () => limitDrain(request));
    try {
      await dispatch(call, route);
    } catch (error) {
      fail(call, form, describe(route), error);
    }
  }

  async function dispatch(call: Call, route: Route): Promise<void> {
    switch (route.kind) {
      case 'json':
        return answerJson(call, route, deps);
      case 'query':
        return answerQuery(call, deps);
      case 's3':
        return answerS3(call);
      case 'agent': {
        const { request, response, requestId, method, expectsContinue, signal } = call;
        const [, bearerToken = null] = /^Bearer (\S+)$/i.exec(request.headers.authorization ?? '') ?? [];
        return deps.agent(
          { requestId, method, path: route.path, bearerToken, request, expectsContinue, signal },
          response,
        );
      }
      case 'trainyard':
        return answerTrainyard(call, route.path, route.query);
      case 'health':
        return sendJson(call.response, 200, deps.health(), 'application/json');
      case 'refused':
        throw jsonError(route.code, { message: route.message });
    }
  }

  async function answerS3(call: Call): Promise<void> {
    const { principal, auth } = await authenticateS3(call, deps);
    await deps.s3({
      req: call.request,
      res: call.response,
      rawTarget: call.target,
      requestId: call.requestId,
      principal: { accessKeyId: principal.accessKeyId, accountId: deps.account.accountId },
      auth,
      expectsContinue: call.expectsContinue,
    });
  }

  async function answerTrainyard(call: Call, path: string, query: string): Promise<void> {
    const { body, principal, region } = await authenticate(call, deps, {
      services: ['trainyard'],
      form: 'json',
      bodyLimitBytes: TRAINYARD_BODY_LIMIT_BYTES,
    });
    if (principal.kind !== 'operator') {
      throw jsonError('AccessDeniedException', { message: 'Only the operator may use /_trainyard/v1/.' });
    }
    const { requestId, method, request, response, signal } = call;
    const params = new URLSearchParams(query);
    await deps.trainyard(
      { requestId, principal, region, signal, method, path, query: params, headers: request.headers, body },
      response,
    );
  }

  /** Says what went wrong, if there is still somebody to tell and a way to say it. */
  function fail(call: Call, form: AnswerForm, action: string, error: unknown): void {
    const { request, response, requestId } = call;
    const isGone = request.destroyed && !request.complete;
    if (!isServiceError(error) && !isGone) deps.reportInternalError(error, { requestId, action });
    if (response.writableEnded) return;
    if (response.headersSent || isGone) {
      // Half an answer: only a cut connection tells the client that it is not whole.
      response.destroy();
      return;
    }
    for (const name of response.getHeaderNames())
      if (/^(content-|etag)/.test(name)) response.removeHeader(name);
    sendError(
      call,
      form,
      isServiceError(error) ? error : isDiskFull(error) ? diskFull(form) : internalError(form),
    );
  }

  /** Aborted when the answer's connection closes before the answer is whole, and when the gateway closes. */
  function signalOf(response: ServerResponse): AbortSignal {
    const gone = new AbortController();
    inFlight.add(gone);
    response.once('close', () => {
      inFlight.delete(gone);
      if (!response.writableFinished) gone.abort();
    });
    return gone.signal;
  }

  async function listen(start: (server: Server) => void): Promise<Server> {
    const server = createServer({
      headersTimeout: HEADERS_TIMEOUT_MS,
      // Objects of any size stream in; see limitStandstill.
      requestTimeout: 0,
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
      connectionsCheckingInterval: 5_000,
      maxHeaderSize: 32 << 10,
      // A missing Host fails the signature, with an answer in the protocol's form.
      requireHostHeader: false,
    });
    server.on('request', onRequest(false));
    server.on('checkContinue', onRequest(true));
    server.on('checkExpectation', onRequest(false));
    server.on('clientError', answerBrokenRequest);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.once('listening', resolve);
      start(server);
    });
    servers.add(server);
    return server;
  }

  return {
    async listenTcp(host, port) {
      const server = await listen((it) => it.listen(port, host));
      return (server.address() as AddressInfo).port;
    },

    async listenSocket(path) {
      const pathBytes = Buffer.byteLength(path);
      if (pathBytes > MAX_SOCKET_PATH_BYTES) {
        throw new Error(
          `The path of the socket ${path} has ${pathBytes} bytes; this system takes at most ${MAX_SOCKET_PATH_BYTES}. Choose a shorter data directory.`,
        );
      }
      if (lstatSync(path, { throwIfNoEntry: false })?.isSocket()) rmSync(path);
      await listen((it) => it.listen(path));
      chmodSync(path, 0o600);
    },

    async close() {
      for (const call of inFlight) call.abort();
      await Promise.all(
        [...servers].map(async (server) => {
          servers.delete(server);
          const closed = new Promise<void>((resolve) => server.close(() => resolve()));
          server.closeIdleConnections();
          const timer = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS);
          await closed;
          clearTimeout(timer);
        }),
      );
    },
  };
}

const internalError = (form: AnswerForm) =>
  form === 's3'
    ? s3Error('InternalError')
    : form === 'query'
      ? queryError('InternalFailure')
      : jsonError('InternalFailure');

/** Clients repeat a 503, and what the service holds back for this case is free by then. */
const diskFull = (form: AnswerForm) => {
  const message =
    'The disk that holds the data of this service is full. Free space on it, then repeat the request.';
  if (form === 's3') return s3Error('ServiceUnavailable', { message });
  return form === 'query'
    ? queryError('ServiceUnavailable', { message })
    : jsonError('ServiceUnavailable', { message });
};

const describe = (route: Route): string =>
  route.kind === 'json'
    ? `${route.targetPrefix}.${route.operation}`
    : 'path' in route
      ? `${route.kind} ${route.path}`
      : route.kind;

/**
 * Not a socket's own timeout: that one also counts the time in which nothing is left to send and we work or hold
 * a long poll.
 */
function limitStandstill(request: IncomingMessage): void {
  const { headers, socket } = request;
  if (headers['content-length'] === undefined && headers['transfer-encoding'] === undefined) return;
  let { bytesRead } = socket;
  const timer = setInterval(() => {
    if (request.complete) clearInterval(timer);
    else if (socket.bytesRead === bytesRead) socket.destroy();
    bytesRead = socket.bytesRead;
  }, BODY_IDLE_TIMEOUT_MS);
  request.once('close', () => clearInterval(timer));
}

function limitDrain(request: IncomingMessage): void {
  if (request.complete) return;
  const timer = setTimeout(() => request.destroy(), DRAIN_TIMEOUT_MS);
  request.once('close', () => clearTimeout(timer));
}

/** What is no HTTP at all gets an answer too, in the form that most of our clients read. */
function answerBrokenRequest(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const [status, code, message] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? [
          '431 Request Header Fields Too Large',
          'MalformedHttpRequestException',
          'The headers are larger than 32 KiB.',
        ]
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['408 Request Timeout', 'RequestTimeoutException', 'The headers did not arrive within 20 s.']
        : ['400 Bad Request', 'MalformedHttpRequestException', 'The request is not valid HTTP.'];
  const body = JSON.stringify({ __type: code, message });
  socket.end(
    `HTTP/1.1 ${status}\r\nDate: ${new Date().toUTCString()}\r\nx-amzn-RequestId: ${randomUUID()}\r\n` +
      `Content-Type: application/x-amz-json-1.1\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
  );
}
