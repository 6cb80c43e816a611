import { expect, test } from 'vitest';
import type { Uploader } from './upload.ts';
import { uploadStream } from './upload.ts';

const MIB = 2 ** 20;

function recorder(): Uploader & { puts: number[]; parts: number[] } {
  const puts: number[] = [];
  const parts: number[] = [];
  return {
    puts,
    parts,
    putObject: async ({ body }) => {
      puts.push((body as Uint8Array).length);
      return { etag: '' };
    },
    uploadMultipart: async ({ parts: given }) => {
      for await (const part of given) parts.push((part as Uint8Array).length);
      return { etag: '', sizeBytes: parts.reduce((sum, size) => sum + size, 0) };
    },
  };
}

async function* stream(total: number, chunk = 100_000): AsyncGenerator<Uint8Array> {
  for (let left = total; left > 0; left -= chunk) yield new Uint8Array(Math.min(chunk, left));
}

const target = { bucket: 'b', key: 'k' };

test.each([0, 1, 15 * MIB])('a stream of %i bytes is one put', async (total) => {
  const s3 = recorder();
  expect(await uploadStream(s3, target, stream(total))).toEqual({ sizeBytes: total });
  expect(s3.puts).toEqual([total]);
  expect(s3.parts).toEqual([]);
});

test('a longer stream goes up in parts as it comes, each large enough for S3', async () => {
  const s3 = recorder();
  const total = 40 * MIB + 5;
  expect(await uploadStream(s3, target, stream(total))).toMatchObject({ sizeBytes: total });
  expect(s3.parts).toHaveLength(3);
  expect(Math.min(...s3.parts.slice(0, -1))).toBeGreaterThanOrEqual(5 * MIB);
});
