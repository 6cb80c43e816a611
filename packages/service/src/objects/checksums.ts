import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { type Crc64, crc32c, joinCrcs, updateCrc64Nvme } from './crc.ts';

export type ChecksumAlgorithm = 'CRC32' | 'CRC32C' | 'CRC64NVME' | 'SHA1' | 'SHA256';
/** Over the bytes of the whole object, or over the checksums of its parts (value `base64-N`). */
export type ChecksumType = 'FULL_OBJECT' | 'COMPOSITE';

export interface ObjectChecksum {
  algorithm: ChecksumAlgorithm;
  type: ChecksumType;
  value: string;
}

/** A checksum to compute while a body passes; `digest` ends it. */
export interface RunningChecksum {
  update(chunk: Uint8Array): void;
  digest(): Buffer;
}

interface AlgorithmRules {
  digestBytes: number;
  /** What a multipart upload may ask for; the first is the default. */
  multipartTypes: readonly [ChecksumType, ...ChecksumType[]];
  start(): RunningChecksum;
}

/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html */
export const CHECKSUM_ALGORITHMS: Record<ChecksumAlgorithm, AlgorithmRules> = {
  CRC32: {
    digestBytes: 4,
    multipartTypes: ['COMPOSITE', 'FULL_OBJECT'],
    start: () => startCrc32((chunk, crc) => crc32(chunk, crc)),
  },
  CRC32C: { digestBytes: 4, multipartTypes: ['COMPOSITE', 'FULL_OBJECT'], start: () => startCrc32(crc32c) },
  CRC64NVME: { digestBytes: 8, multipartTypes: ['FULL_OBJECT'], start: startCrc64 },
  SHA1: { digestBytes: 20, multipartTypes: ['COMPOSITE'], start: () => createHash('sha1') },
  SHA256: { digestBytes: 32, multipartTypes: ['COMPOSITE'], start: () => createHash('sha256') },
};

export function isChecksumAlgorithm(name: string): name is ChecksumAlgorithm {
  return Object.hasOwn(CHECKSUM_ALGORITHMS, name);
}

/** True for the base64 form of a digest of the algorithm's length. */
export function isChecksumValue(algorithm: ChecksumAlgorithm, value: string): boolean {
  const digest = Buffer.from(value, 'base64');
  return digest.length === CHECKSUM_ALGORITHMS[algorithm].digestBytes && digest.toString('base64') === value;
}

/** The checksum of an object from those of its parts, without reading the parts again. */
export function joinPartChecksums(
  algorithm: ChecksumAlgorithm,
  type: ChecksumType,
  parts: readonly { checksum: string; sizeBytes: number }[],
): string {
  const digests = parts.map((part) => Buffer.from(part.checksum, 'base64'));
  if (type === 'COMPOSITE') {
    const whole = CHECKSUM_ALGORITHMS[algorithm].start();
    for (const digest of digests) whole.update(digest);
    return `${whole.digest().toString('base64')}-${parts.length}`;
  }
  if (algorithm === 'SHA1' || algorithm === 'SHA256')
    throw new TypeError(`${algorithm} parts cannot be joined`);
  const joined = joinCrcs(
    algorithm,
    parts.map((part, i) => ({ crc: BigInt(`0x${digests[i]!.toString('hex')}`), sizeBytes: part.sizeBytes })),
  );
  const width = CHECKSUM_ALGORITHMS[algorithm].digestBytes * 2;
  return Buffer.from(joined.toString(16).padStart(width, '0'), 'hex').toString('base64');
}

function startCrc32(step: (chunk: Uint8Array, crc: number) => number): RunningChecksum {
  let crc = 0;
  return {
    update: (chunk) => {
      crc = step(chunk, crc);
    },
    digest: () => {
      const digest = Buffer.alloc(4);
      digest.writeUInt32BE(crc);
      return digest;
    },
  };
}

function startCrc64(): RunningChecksum {
  const state: Crc64 = { high: 0, low: 0 };
  return {
    update: (chunk) => updateCrc64Nvme(state, chunk),
    digest: () => {
      const digest = Buffer.alloc(8);
      digest.writeUInt32BE(state.high, 0);
      digest.writeUInt32BE(state.low, 4);
      return digest;
    },
  };
}
