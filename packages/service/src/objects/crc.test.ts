import { randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { crc32c, joinCrcs, updateCrc64Nvme } from './crc.ts';

const check = Buffer.from('123456789');

function crc64(data: Uint8Array, pieces: number[] = []): bigint {
  const state = { high: 0, low: 0 };
  let from = 0;
  for (const size of [...pieces, data.length]) {
    updateCrc64Nvme(state, data.subarray(from, from + size));
    from += size;
  }
  return (BigInt(state.high) << 32n) | BigInt(state.low);
}

describe('crc', () => {
  it('gives the published check values', () => {
    expect(crc32c(check)).toBe(0xe3069283);
    expect(crc64(check)).toBe(0xae8b14860a799888n);
    expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa); // RFC 3720, B.4
  });

  it('does not depend on how the data is cut', () => {
    const data = randomBytes(5000);
    for (const cut of [0, 1, 7, 8, 9, 4096]) {
      expect(crc32c(data.subarray(cut), crc32c(data.subarray(0, cut)))).toBe(crc32c(data));
      expect(crc64(data, [cut, 3])).toBe(crc64(data));
    }
  });

  it('joins checksums of parts into the checksum of the whole', () => {
    const parts = [randomBytes(4096), randomBytes(4096), randomBytes(0), randomBytes(13)];
    const whole = Buffer.concat(parts);
    const joined = (kind: 'CRC32' | 'CRC32C' | 'CRC64NVME', crc: (data: Uint8Array) => bigint | number) =>
      joinCrcs(
        kind,
        parts.map((part) => ({ crc: BigInt(crc(part)), sizeBytes: part.length })),
      );
    expect(joined('CRC32', (data) => crc32(data))).toBe(BigInt(crc32(whole)));
    expect(joined('CRC32C', (data) => crc32c(data))).toBe(BigInt(crc32c(whole)));
    expect(joined('CRC64NVME', (data) => crc64(data))).toBe(crc64(whole));
  });
});
