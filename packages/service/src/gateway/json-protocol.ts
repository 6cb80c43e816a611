import type { ServiceName } from '@trainyard/api';
import {
  jsonError,
  operationNotServed,
  operationStatus,
  parseRequest,
  serializeResponse,
  unknownOperation,
} from '@trainyard/api';
import { sendJson } from './answers.ts';
import { authenticate } from './authenticate.ts';
import type { Call } from './call.ts';
import type { GatewayDeps, OperationHandlers } from './deps.ts';
import { authorize } from './policy.ts';
import type { Route } from './route.ts';

interface JsonService {
  name: Extract<ServiceName, 'sagemaker' | 'logs'>;
  signingName: string;
  bodyLimitBytes: number;
  handlers: (deps: GatewayDeps) => OperationHandlers;
}

/** By the part of `X-Amz-Target` before the last dot. */
const JSON_SERVICES: Readonly<Record<string, JsonService>> = {
  SageMaker: {
    name: 'sagemaker',
    signingName: 'sagemaker',
    bodyLimitBytes: 1 << 20,
    handlers: (deps) => deps.sagemaker,
  },
  Logs_20140328: {
    name: 'logs',
    signingName: 'logs',
    // A batch of PutLogEvents may have 1 MiB before it is written as JSON.
    bodyLimitBytes: 2 << 20,
    handlers: (deps) => deps.logs,
  },
};

/** One awsJson 1.1 call: known sender, known operation, allowed, well formed, then its handler. */
export async function answerJson(
  call: Call,
  { targetPrefix, operation }: Extract<Route, { kind: 'json' }>,
  deps: GatewayDeps,
): Promise<void> {
  const service = Object.hasOwn(JSON_SERVICES, targetPrefix) ? JSON_SERVICES[targetPrefix] : undefined;
  if (service === undefined) throw unknownOperation(`${targetPrefix}.${operation}`);
  const { name, signingName, bodyLimitBytes } = service;
  const { body, principal, region } = await authenticate(call, deps, {
    services: [signingName],
    form: 'json',
    bodyLimitBytes,
  });

  const status = operationStatus(name, operation);
  if (status === 'unknown') throw unknownOperation(`${targetPrefix}.${operation}`);
  const action = `${name}:${operation}`;
  const scope = { account: deps.account, form: 'json' as const };
  authorize(principal, action, undefined, scope);
  const handlers = service.handlers(deps);
  const handler = Object.hasOwn(handlers, operation) ? handlers[operation] : undefined;
  if (status === 'known' || handler === undefined) throw operationNotServed(name, operation);

  const input = parseRequest<object>(name, operation, parseJson(body));
  authorize(principal, action, input, scope);
  const context = { requestId: call.requestId, principal, region, signal: call.signal };
  const output = await handler(context, input);
  sendJson(call.response, 200, serializeResponse(name, operation, output ?? {}));
}

/** An empty body means `{}`. */
function parseJson(body: Buffer): unknown {
  if (body.length === 0) return {};
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch (cause) {
    throw jsonError('SerializationException', { message: 'The body is not JSON in UTF-8.' }, cause);
  }
}
