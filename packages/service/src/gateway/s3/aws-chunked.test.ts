import { createHash, createHmac, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chunkChain } from '@trainyard/api';
import { AwsChunkedDecoder, type ChunkedBodyRules } from './aws-chunked.ts';

const seed = {
  signature: '4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9',
  amzDate: '20130524T000000Z',
  scope: '20130524/us-east-1/s3/aws4_request',
  signingKey: signingKey('wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', '20130524', 'us-east-1'),
};

function signingKey(secret: string, date: string, region: string): Uint8Array {
  return [date, region, 's3', 'aws4_request'].reduce<Uint8Array>(
    (key, part) => createHmac('sha256', key).update(part).digest(),
    Buffer.from(`AWS4${secret}`),
  );
}

interface Frame {
  chunks: Uint8Array[];
  signed: boolean;
  trailers: [string, string][] | null;
}

/** The body as a client sends it, and the rules that its headers would give. */
async function frame({
  chunks,
  signed,
  trailers,
}: Frame): Promise<{ wire: Buffer; rules: ChunkedBodyRules }> {
  const chain = chunkChain(seed);
  const out: (string | Uint8Array)[] = [];
  for (const chunk of [...chunks, Buffer.alloc(0)]) {
    const signature = await chain.next(createHash('sha256').update(chunk).digest('hex'));
    out.push(`${chunk.length.toString(16)}${signed ? `;chunk-signature=${signature}` : ''}\r\n`, chunk);
    if (chunk.length > 0) out.push('\r\n');
  }
  for (const [name, value] of trailers ?? []) out.push(`${name}:${value}\r\n`);
  if (signed && trailers) out.push(`x-amz-trailer-signature:${await chain.signTrailer(trailers)}\r\n`);
  out.push('\r\n');
  return {
    wire: Buffer.concat(out.map((part) => Buffer.from(part))),
    rules: {
      decodedBytes: chunks.reduce((sum, chunk) => sum + chunk.length, 0),
      signatures: signed ? chunkChain(seed) : null,
      trailerNames: trailers?.map(([name]) => name) ?? null,
    },
  };
}

async function decode(
  rules: ChunkedBodyRules,
  wire: Uint8Array,
  pieceBytes = 7,
): Promise<{ data: Buffer; trailers: Map<string, string> }> {
  const decoder = new AwsChunkedDecoder(rules);
  async function* pieces() {
    for (let at = 0; at < wire.length; at += pieceBytes) yield wire.subarray(at, at + pieceBytes);
  }
  const data: Uint8Array[] = [];
  for await (const piece of decoder.decode(pieces())) data.push(piece);
  return { data: Buffer.concat(data), trailers: decoder.trailers };
}

const trailer: [string, string][] = [['x-amz-checksum-crc32', 'y/Q5Jg==']];
const unsigned = { signatures: null, trailerNames: null };

describe('AwsChunkedDecoder', () => {
  it.each([
    { signed: true, trailers: null },
    { signed: true, trailers: trailer },
    { signed: false, trailers: null },
    { signed: false, trailers: trailer },
  ])(
    'takes the framing off, however the network cuts it: signed $signed, trailers $trailers',
    async (form) => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { maxLength: 5 }),
          fc.integer({ min: 1, max: 400 }),
          async (chunks, pieceBytes) => {
            const { wire, rules } = await frame({ chunks, ...form });
            const { data, trailers } = await decode(rules, wire, pieceBytes);
            expect(data.equals(Buffer.concat(chunks))).toBe(true);
            expect([...trailers]).toEqual(form.trailers ?? []);
          },
        ),
        { numRuns: 30 },
      );
    },
  );

  it('accepts the example of the S3 documentation', async () => {
    const signatures = [
      'ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648',
      '0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497',
      'b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9',
    ];
    const wire = Buffer.concat([
      Buffer.from(`10000;chunk-signature=${signatures[0]}\r\n`),
      Buffer.alloc(65_536, 'a'),
      Buffer.from(`\r\n400;chunk-signature=${signatures[1]}\r\n`),
      Buffer.alloc(1024, 'a'),
      Buffer.from(`\r\n0;chunk-signature=${signatures[2]}\r\n\r\n`),
    ]);
    const rules = { decodedBytes: 66_560, signatures: chunkChain(seed), trailerNames: null };
    expect((await decode(rules, wire, 4096)).data.equals(Buffer.alloc(66_560, 'a'))).toBe(true);
  });

  it('refuses any flipped bit of a signed body', async () => {
    const chunks = [randomBytes(40), randomBytes(20)];
    const { wire } = await frame({ chunks, signed: true, trailers: trailer });
    for (let at = 0; at < wire.length; at++) {
      const changed = Buffer.from(wire);
      changed[at]! ^= 1;
      const { rules } = await frame({ chunks, signed: true, trailers: trailer });
      await expect(decode(rules, changed, 64), `byte ${at}`).rejects.toMatchObject({ name: 'ServiceError' });
    }
  });

  it('refuses a body that ends early, wherever', async () => {
    for (const signed of [true, false]) {
      const chunks = [randomBytes(10), randomBytes(3)];
      const { wire } = await frame({ chunks, signed, trailers: trailer });
      // Without its last CRLF the body is still whole.
      for (let end = 0; end < wire.length - 2; end++) {
        const { rules } = await frame({ chunks, signed, trailers: trailer });
        await expect(decode(rules, wire.subarray(0, end), 16), `${end} bytes`).rejects.toMatchObject({
          name: 'ServiceError',
        });
      }
    }
  });

  it('refuses chunks that were dropped, repeated or swapped', async () => {
    const chunks = [Buffer.from('one'), Buffer.from('two')];
    const { wire } = await frame({ chunks, signed: true, trailers: null });
    const text = wire.toString('latin1');
    const [one, two, last] = [...text.matchAll(/\w+;chunk-signature=\w{64}\r\n(?:\w+)?\r\n/g)].map(
      (match) => match[0],
    );
    for (const [body, decodedBytes] of [
      [`${two}${one}${last}`, 6],
      [`${one}${one}${last}`, 6],
      [`${one}${last}`, 3],
      [`${last}`, 0],
    ] as const) {
      const rules = { decodedBytes, signatures: chunkChain(seed), trailerNames: null };
      await expect(decode(rules, Buffer.from(body))).rejects.toMatchObject({ code: 'SignatureDoesNotMatch' });
    }
  });

  it.each([
    ['a size that is no number', 'xyz\r\nabc\r\n0\r\n\r\n', 'is no chunk header'],
    ['a negative size', '-3\r\nabc\r\n0\r\n\r\n', 'is no chunk header'],
    ['a size beyond all numbers', 'fffffffffffffffff\r\nabc\r\n', 'is no chunk header'],
    ['an empty size', '\r\nabc\r\n0\r\n\r\n', 'is no chunk header'],
    ['spaces around the size', ' 3 \r\nabc\r\n0\r\n\r\n', 'is no chunk header'],
    ['an oversized chunk', '4\r\nabcd\r\n0\r\n\r\n', 'exceeds the 3 bytes that are left'],
    ['a huge chunk', 'fffffffffff\r\nabc', 'exceeds the 3 bytes that are left'],
    ['a line that never ends', 'a'.repeat(2000), 'a line exceeds 1024 bytes'],
    ['a line feed alone', '3\nabc\r\n0\r\n\r\n', 'does not end with CRLF'],
    ['data longer than its chunk', '2\r\nabc\r\n0\r\n\r\n', 'does not end with CRLF|not followed by CRLF'],
    ['data shorter than announced', '2\r\nab\r\n0\r\n\r\n', 'x-amz-decoded-content-length says 3'],
    [
      'a signature where none belongs',
      `3;chunk-signature=${'a'.repeat(64)}\r\nabc\r\n0\r\n\r\n`,
      'although the body is sent unsigned',
    ],
    ['an unknown extension', '3;x=y\r\nabc\r\n0\r\n\r\n', 'is no chunk header'],
    [
      'a trailer that was not declared',
      '3\r\nabc\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n',
      'declared were none',
    ],
    ['bytes after the end', '3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n', 'goes on after its end'],
    ['a trailer without a colon', '3\r\nabc\r\n0\r\nnonsense\r\n\r\n', 'is no trailer'],
  ])('refuses %s', async (_, wire, problem) => {
    await expect(decode({ decodedBytes: 3, ...unsigned }, Buffer.from(wire))).rejects.toThrow(
      new RegExp(problem),
    );
  });

  it('refuses trailers other than the declared ones', async () => {
    const rules = { decodedBytes: 0, signatures: null, trailerNames: ['x-amz-checksum-crc32'] };
    for (const lines of [
      '',
      'x-amz-checksum-crc32c:a\r\n',
      'x-amz-checksum-crc32:a\r\nx-amz-checksum-crc32:b\r\n',
      'x-amz-checksum-crc32:a\r\nother:b\r\n',
    ]) {
      await expect(decode(rules, Buffer.from(`0\r\n${lines}\r\n`))).rejects.toMatchObject({
        code: 'MalformedTrailerError',
      });
    }
  });

  it('refuses a signed body whose chunks or trailer are not signed', async () => {
    const { wire } = await frame({ chunks: [Buffer.from('abc')], signed: false, trailers: trailer });
    const rules = () => ({ decodedBytes: 3, signatures: chunkChain(seed), trailerNames: [trailer[0]![0]] });
    await expect(decode(rules(), wire)).rejects.toThrow('a chunk has no signature');
    const signed = (await frame({ chunks: [Buffer.from('abc')], signed: true, trailers: trailer })).wire;
    const stripped = Buffer.from(signed.toString().replace(/x-amz-trailer-signature:\w+\r\n/, ''));
    await expect(decode(rules(), stripped)).rejects.toThrow('signature of the trailer');
  });

  it('refuses a signed chunk that is too large to be held back', async () => {
    const header = `1000001;chunk-signature=${'a'.repeat(64)}\r\n`;
    const rules = { decodedBytes: 1 << 30, signatures: chunkChain(seed), trailerNames: null };
    await expect(decode(rules, Buffer.from(header))).rejects.toThrow('at most 16777216');
  });
});
