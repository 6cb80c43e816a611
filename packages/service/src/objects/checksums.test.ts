import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  CHECKSUM_ALGORITHMS,
  type ChecksumAlgorithm,
  isChecksumValue,
  joinPartChecksums,
} from './checksums.ts';

function checksumOf(algorithm: ChecksumAlgorithm, data: Uint8Array): string {
  const running = CHECKSUM_ALGORITHMS[algorithm].start();
  running.update(data);
  return running.digest().toString('base64');
}

describe('checksums', () => {
  it('encode the published check values of "123456789"', () => {
    const values: Record<ChecksumAlgorithm, string> = {
      CRC32: Buffer.from('cbf43926', 'hex').toString('base64'),
      CRC32C: Buffer.from('e3069283', 'hex').toString('base64'),
      CRC64NVME: Buffer.from('ae8b14860a799888', 'hex').toString('base64'),
      SHA1: Buffer.from('f7c3bc1d808e04732adf679965ccc34ca7ae3441', 'hex').toString('base64'),
      SHA256: Buffer.from('15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225', 'hex').toString(
        'base64',
      ),
    };
    for (const [algorithm, value] of Object.entries(values) as [ChecksumAlgorithm, string][]) {
      expect(checksumOf(algorithm, Buffer.from('123456789')), algorithm).toBe(value);
      expect(isChecksumValue(algorithm, value), algorithm).toBe(true);
    }
  });

  it('refuses values of another length or in sloppy base64', () => {
    expect(isChecksumValue('CRC32', 'y/Q5Jg==')).toBe(true);
    for (const value of ['', 'y/Q5Jg', 'y/Q5Jg=', 'y/Q5', 'not base64', 'y_Q5Jg==', 'rosUhgp5mIg=']) {
      expect(isChecksumValue('CRC32', value), value).toBe(false);
    }
  });

  it.each(['CRC32', 'CRC32C', 'CRC64NVME'] as const)(
    'joins %s of parts into that of the object',
    (algorithm) => {
      const parts = [randomBytes(70_000), randomBytes(70_000), randomBytes(3)];
      const joined = joinPartChecksums(
        algorithm,
        'FULL_OBJECT',
        parts.map((part) => ({ checksum: checksumOf(algorithm, part), sizeBytes: part.length })),
      );
      expect(joined).toBe(checksumOf(algorithm, Buffer.concat(parts)));
    },
  );

  it('makes a composite of the digests of the parts and says of how many', () => {
    const checksums = ['a', 'b'].map((text) => checksumOf('SHA256', Buffer.from(text)));
    const composite = checksumOf(
      'SHA256',
      Buffer.concat(checksums.map((value) => Buffer.from(value, 'base64'))),
    );
    const parts = checksums.map((checksum) => ({ checksum, sizeBytes: 1 }));
    expect(joinPartChecksums('SHA256', 'COMPOSITE', parts)).toBe(`${composite}-2`);
  });
});
