import { expect, test } from 'vitest';
import { AttemptOver, ControlChannel } from './control-channel.ts';

interface Call {
  url: string;
  init: RequestInit;
}

function channelTo(answers: (() => Response | Promise<Response>)[]): {
  channel: ControlChannel;
  calls: Call[];
} {
  const calls: Call[] = [];
  const fake = async (url: unknown, init: unknown): Promise<Response> => {
    calls.push({ url: String(url), init: init as RequestInit });
    return answers[calls.length - 1]!();
  };
  const channel = new ControlChannel({
    endpointUrl: 'http://service',
    token: 'secret',
    fetch: fake as typeof fetch,
  });
  return { channel, calls };
}

const sync = { reports: [], ackedCommand: -1, phase: 'ready', waitMs: 0 } as const;

test('a call carries the host’s token and its body', async () => {
  const { channel, calls } = channelTo([() => Response.json({ nextReportSeq: 3, commands: [] })]);
  expect(await channel.sync({ ...sync, reports: [] })).toEqual({ nextReportSeq: 3, commands: [] });
  expect(calls[0]!.url).toBe('http://service/_trainyard/agent/v1/sync');
  expect(calls[0]!.init).toMatchObject({
    method: 'POST',
    headers: { authorization: 'Bearer secret' },
    body: JSON.stringify(sync),
  });
});

test('a call is tried again while the service is away or in trouble', async () => {
  const { channel, calls } = channelTo([
    () => Promise.reject(new TypeError('fetch failed')),
    () => new Response('busy', { status: 503 }),
    () => Response.json({ nextSeq: 1 }),
  ]);
  expect(await channel.sendLogs({ firstSeq: 0, lines: [] })).toEqual({ nextSeq: 1 });
  expect(calls).toHaveLength(3);
});

test('an attempt that is over ends the call', async () => {
  const { channel } = channelTo([() => new Response('gone', { status: 410 })]);
  await expect(channel.sync({ ...sync, reports: [] })).rejects.toBeInstanceOf(AttemptOver);
});

test('each try of a part sends a body of its own, and a part that is not there yet is asked for again', async () => {
  const bodies: ReadableStream[] = [];
  const { channel, calls } = channelTo([
    () => Promise.reject(new TypeError('reset')),
    () => Response.json({}),
    () => new Response('not yet', { status: 404 }),
    () => new Response('bytes'),
  ]);
  await channel.putPart('model', () => {
    const body = new ReadableStream<Uint8Array>();
    bodies.push(body);
    return body;
  });
  expect(bodies).toHaveLength(2);
  expect(calls[1]!.init.body).toBe(bodies[1]);
  expect(await new Response(await channel.getPart('model', 'algo-2')).text()).toBe('bytes');
  expect(calls.at(-1)!.url).toBe('http://service/_trainyard/agent/v1/parts/model/algo-2');
});
