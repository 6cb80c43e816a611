import type { Hasher } from '../hasher.ts';
import type { VerifiedRequest } from './verify.ts';

export type ChunkSeed = Pick<VerifiedRequest, 'signingKey' | 'amzDate' | 'scope' | 'signature'>;

/** The chain of signatures of an aws-chunked body; calls must come in the order of the chunks. */
export interface ChunkChain {
  /** @param sha256Hex of the chunk's data; of nothing for the last chunk. @returns its signature. */
  next(sha256Hex: string): Promise<string>;
  /** Like {@link ChunkChain.next}, compared in constant time. After false the chain must not be used further. */
  verify(sha256Hex: string, signature: string): Promise<boolean>;
  /** @param trailers in the order sent: `['x-amz-checksum-crc32', 'AAAAAA==']`. */
  verifyTrailer(
    trailers: readonly (readonly [name: string, value: string])[],
    signature: string,
  ): Promise<boolean>;
  signTrailer(trailers: readonly (readonly [name: string, value: string])[]): Promise<string>;
}

export function chunkChain(_seed: ChunkSeed, _hasher?: Hasher): ChunkChain {
  throw new Error('follows');
}
