import type { IncomingHttpHeaders } from 'node:http';
import { AGENT_API_PREFIX } from '@trainyard/api';

export const TRAINYARD_API_PREFIX = '/_trainyard/v1/';

/** Where a request goes, found without looking at its signature or its body. */
export type Route =
  | { kind: 'json'; targetPrefix: string; operation: string }
  | { kind: 'query' }
  | { kind: 's3' }
  | { kind: 'agent' | 'trainyard'; path: string; query: string }
  | { kind: 'health' }
  /** Answered at once; `message` says why. */
  | { kind: 'refused'; code: 'UnknownOperationException' | 'MalformedHttpRequestException'; message: string };

interface RoutedRequest {
  method: string;
  /** Path and query as on the request line, without the configured prefix. */
  target: string;
  headers: IncomingHttpHeaders;
}

/** The four protocols share one address: what a request carries tells them apart, in this order. */
export function routeOf({ method, target, headers }: RoutedRequest): Route {
  if (!target.startsWith('/')) {
    return refused('MalformedHttpRequestException', `The request target '${target}' must start with '/'.`);
  }
  const [path = '', query = ''] = target.split(/\?(.*)/s, 2);
  if (path.startsWith(AGENT_API_PREFIX)) {
    return { kind: 'agent', path: path.slice(AGENT_API_PREFIX.length), query };
  }
  if (path.startsWith(TRAINYARD_API_PREFIX)) {
    const rest = path.slice(TRAINYARD_API_PREFIX.length);
    return method === 'GET' && rest === 'health'
      ? { kind: 'health' }
      : { kind: 'trainyard', path: rest, query };
  }
  if (path.startsWith('/_trainyard/')) {
    return refused(
      'UnknownOperationException',
      `There is nothing at ${path}; the paths are ${AGENT_API_PREFIX} and ${TRAINYARD_API_PREFIX}.`,
    );
  }

  const amzTarget = headers['x-amz-target'];
  if (typeof amzTarget === 'string') {
    if (method !== 'POST') {
      return refused(
        'UnknownOperationException',
        `X-Amz-Target '${amzTarget}' was sent with ${method}; send POST.`,
      );
    }
    const dot = amzTarget.lastIndexOf('.');
    return {
      kind: 'json',
      targetPrefix: amzTarget.slice(0, Math.max(0, dot)),
      operation: amzTarget.slice(dot + 1),
    };
  }
  if (headers['smithy-protocol'] !== undefined) {
    return refused(
      'UnknownOperationException',
      `Protocol '${String(headers['smithy-protocol'])}' is not served at ${path}; docs/compatibility.md lists what is.`,
    );
  }
  const contentType = headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase();
  if (method === 'POST' && path === '/' && contentType === 'application/x-www-form-urlencoded') {
    return { kind: 'query' };
  }
  return { kind: 's3' };
}

const refused = (
  code: 'UnknownOperationException' | 'MalformedHttpRequestException',
  message: string,
): Route => ({
  kind: 'refused',
  code,
  message,
});

/** Takes the configured prefix off a request target; signatures are verified over the target as sent. */
export function withoutPrefix(target: string, prefix: string): string {
  if (prefix === '' || !target.startsWith(prefix)) return target;
  const rest = target.slice(prefix.length);
  if (rest === '' || rest.startsWith('?')) return `/${rest}`;
  return rest.startsWith('/') ? rest : target;
}
