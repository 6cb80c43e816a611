import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { fetchFor, httpFetch } from './http-fetch.ts';

let stopServer = (): void => {};
let arrived: Promise<void>;

/** A real server on the loopback address: the subject is the wire. */
async function serve(handle: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  const server = createServer(handle);
  arrived = new Promise((arrive) => server.once('request', () => arrive()));
  stopServer = () => {
    server.closeAllConnections();
    server.close();
  };
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

afterEach(() => stopServer());

const text = 'größer 模型';

test.each([
  ['a string', text],
  ['bytes', new TextEncoder().encode(text)],
  ['a Blob', new Blob([text])],
])('%s goes out with its length and comes back as text, more than once', async (_what, body) => {
  const url = await serve((request, response) => {
    response.setHeader('x-length', request.headers['content-length'] ?? '');
    response.writeHead(418, { 'X-Two': ['a', 'b'] });
    request.pipe(response);
  });
  const answer = await httpFetch(url, { method: 'PUT', body, headers: { 'x-mine': '1' } });
  expect([answer.status, answer.ok]).toEqual([418, false]);
  expect(answer.headers.get('X-Length')).toBe(String(new TextEncoder().encode(text).length));
  expect(Object.fromEntries(answer.headers)['x-two']).toBe('a, b');
  expect(await answer.clone().text()).toBe(text);
  expect(await answer.text()).toBe(text);
});

test('a body can be read as it comes and given up', async () => {
  const url = await serve((_request, response) => {
    response.write('one');
  });
  const reader = (await httpFetch(url)).body?.getReader();
  expect(new TextDecoder().decode((await reader?.read())?.value)).toBe('one');
  await reader?.cancel();
});

test('answers without a body leave the connection for the next request', async () => {
  const ports = new Set<number | undefined>();
  const url = await serve((request, response) => {
    ports.add(request.socket.remotePort);
    response.writeHead(request.method === 'HEAD' ? 200 : 204, {
      'content-length': request.method === 'HEAD' ? 5 : 0,
    });
    response.end();
  });
  for (const method of ['HEAD', 'DELETE', 'HEAD']) {
    const answer = await httpFetch(url, { method });
    expect(answer.body).toBeNull();
    expect(await answer.text()).toBe('');
  }
  expect(ports.size).toBe(1);
});

test('a connection that fails is a TypeError with its cause, one that breaks fails the reading', async () => {
  const url = await serve((_request, response) => {
    response.writeHead(200, { 'content-length': 100 });
    response.write('cut off', () => response.destroy());
  });
  const answer = await httpFetch(url);
  await expect(answer.text()).rejects.toThrow();
  await expect(httpFetch('http://127.0.0.1:1/')).rejects.toMatchObject({
    name: 'TypeError',
    cause: { code: 'ECONNREFUSED' },
  });
});

test('a signal ends the request with its reason, before and during it', async () => {
  const url = await serve(() => {});
  const gone = new AbortController();
  gone.abort(new Error('gone'));
  await expect(httpFetch(url, { signal: gone.signal })).rejects.toThrow('gone');
  const leaving = new AbortController();
  const waiting = httpFetch(url, { signal: leaving.signal });
  await arrived;
  leaving.abort(new Error('left'));
  await expect(waiting).rejects.toThrow('left');
});

test('only plain HTTP goes this way', () => {
  expect(fetchFor('http://127.0.0.1:9400')).toBe(httpFetch);
  expect(fetchFor('https://api.sagemaker.us-west-2.amazonaws.com')).toBe(globalThis.fetch);
});
