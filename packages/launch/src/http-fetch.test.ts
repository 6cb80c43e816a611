import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createSocketServer, type Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, test } from 'vitest';
import { httpFetch } from './http-fetch.ts';

type Handler = (request: IncomingMessage, body: Buffer, response: ServerResponse) => void;

let server: Server;
let handler: Handler;
let url: string;
let connections: Set<Socket>;

beforeEach(async () => {
  connections = new Set();
  server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => handler(request, Buffer.concat(chunks), response));
  });
  server.on('connection', (socket: Socket) => connections.add(socket));
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
});

const echo: Handler = (request, body, response) =>
  response.end(`${request.method} ${request.url} ${body.toString()}`);

describe('a request', () => {
  it.each([
    ['nothing', undefined, ''],
    ['text', 'grün', 'grün'],
    ['bytes', Buffer.from('bytes'), 'bytes'],
    ['a blob', new Blob(['a', 'blob']), 'ablob'],
    ['a stream', new Blob(['x'.repeat(200_000)]).stream(), 'x'.repeat(200_000)],
  ])('may send %s', async (_, body, received) => {
    handler = echo;
    const answer = await httpFetch(`${url}/a%20b?c=d`, { method: 'PUT', body: body as BodyInit });
    expect([answer.status, answer.ok, await answer.text()]).toEqual([
      200,
      true,
      `PUT /a%20b?c=d ${received}`,
    ]);
  });

  it('sends headers, with the host of the URL', async () => {
    handler = (request, _, response) => response.end(JSON.stringify(request.headers));
    const answer = await httpFetch(url, { headers: { 'x-one': '1' } });
    expect(await answer.json()).toMatchObject({ 'x-one': '1', host: url.slice('http://'.length) });
  });

  it('uses a connection again, several at once have their own', async () => {
    handler = echo;
    for (let n = 0; n < 5; n += 1) await (await httpFetch(url)).text();
    expect(connections.size).toBe(1);
    await Promise.all([1, 2, 3].map(async () => (await httpFetch(url)).text()));
    expect(connections.size).toBe(3);
  });

  it('is sent again when the connection that waited was closed meanwhile, a stream is not', async () => {
    handler = echo;
    await (await httpFetch(url)).text();
    for (const socket of connections) socket.destroy();
    expect(await (await httpFetch(url, { method: 'POST', body: 'again' })).text()).toBe('POST / again');
  });

  it('ends with what aborts it, before, during and after the head', async () => {
    handler = () => {};
    await expect(httpFetch(url, { signal: AbortSignal.abort(new Error('early')) })).rejects.toThrow('early');
    const abort = new AbortController();
    const waiting = httpFetch(url, { signal: abort.signal });
    abort.abort(new Error('meanwhile'));
    await expect(waiting).rejects.toThrow('meanwhile');
    handler = (_, __, response) => void response.writeHead(200, { 'content-length': 10 }).write('half');
    const late = new AbortController();
    const answer = await httpFetch(url, { signal: late.signal });
    late.abort(new Error('late'));
    await expect(answer.text()).rejects.toThrow('late');
  });

  it('to a port where nobody listens says so', async () => {
    server.close();
    await expect(httpFetch(url)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });
});

describe('an answer', () => {
  it('may be large and read as a stream', async () => {
    const large = Buffer.alloc(5 << 20, 'abc');
    handler = (_, __, response) => response.end(large);
    const parts: Uint8Array[] = [];
    for await (const part of (await httpFetch(url)).body!) parts.push(part);
    expect(Buffer.concat(parts).equals(large)).toBe(true);
  });

  it('may come in chunks of any size', async () => {
    handler = (_, __, response) => {
      response.write('one ');
      response.write('two ');
      response.end('three');
    };
    expect(await (await httpFetch(url)).text()).toBe('one two three');
  });

  it('may have no body', async () => {
    handler = (_, __, response) => response.writeHead(204, { etag: '"x"' }).end();
    const answer = await httpFetch(url, { method: 'DELETE' });
    expect([answer.status, await answer.text(), answer.headers.get('ETag')]).toEqual([204, '', '"x"']);
    handler = (_, __, response) => response.writeHead(200, { 'content-length': 1000 }).end();
    expect(await (await httpFetch(url, { method: 'HEAD' })).text()).toBe('');
  });

  it('whose body is thrown away gives its connection back or closes it, and the next request works', async () => {
    handler = (_, __, response) => response.end(Buffer.alloc(3 << 20));
    await (await httpFetch(url)).body!.cancel();
    handler = echo;
    expect(await (await httpFetch(url)).text()).toBe('GET / ');
  });

  it('of an error can be read twice', async () => {
    handler = (_, __, response) => response.writeHead(503).end('busy');
    const answer = await httpFetch(url);
    expect([answer.ok, await answer.clone().text(), await answer.text()]).toEqual([false, 'busy', 'busy']);
  });

  it('may come while the request is still being sent', async () => {
    handler = echo;
    server.removeAllListeners('request');
    server.on('request', (_: IncomingMessage, response: ServerResponse) => {
      response.writeHead(403, { connection: 'close' }).end('no');
    });
    const answer = await httpFetch(url, { method: 'PUT', body: new Blob(['x'.repeat(1000)]) });
    expect([answer.status, await answer.text()]).toEqual([403, 'no']);
  });
});

/** What a server could send that node:http never would. */
describe('raw bytes', () => {
  async function answered(pieces: string[]): Promise<Response> {
    const raw = createSocketServer((socket) => {
      socket.once('data', async () => {
        for (const piece of pieces) {
          socket.write(piece);
          await turn();
        }
        socket.end();
      });
      socket.on('error', () => {});
    });
    await new Promise<void>((done) => raw.listen(0, '127.0.0.1', done));
    raw.unref();
    return httpFetch(`http://127.0.0.1:${(raw.address() as AddressInfo).port}`);
  }

  it('that come one by one make the same answer', async () => {
    const text =
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n';
    const answer = await answered(Array.from(text));
    expect(await answer.text()).toBe('abc0123456789');
  });

  it('with an interim answer give the one behind it', async () => {
    const answer = await answered([
      'HTTP/1.1 100 Continue\r\n\r\n',
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
    ]);
    expect(await answer.text()).toBe('ok');
  });

  it('without a length end with the connection', async () => {
    expect(await (await answered(['HTTP/1.0 200 OK\r\n\r\nall', ' of it'])).text()).toBe('all of it');
  });

  it('that end too early are an error', async () => {
    await expect(
      (await answered(['HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf'])).text(),
    ).rejects.toThrow('ended 5 bytes before the body');
    await expect(answered(['HTTP/1.1 200'])).rejects.toThrow('ended before the answer');
    await expect(answered(['SSH-2.0-OpenSSH\r\n\r\n'])).rejects.toThrow(
      'no HTTP answer, it begins with "SSH-2.0-OpenSSH"',
    );
  });
});

test('other schemes are left to fetch', async () => {
  await expect(httpFetch('data:text/plain,hello').then((answer) => answer.text())).resolves.toBe('hello');
});
