import type { Hasher } from '../hasher.ts';
import { webCryptoHasher } from '../webcrypto-hasher.ts';
import { binaryBytes, equalsConstantTime, hex } from './bytes.ts';
import { hmacHex } from './keys.ts';
import type { VerifiedRequest } from './verify.ts';

export type ChunkSeed = Pick<VerifiedRequest, 'signingKey' | 'amzDate' | 'scope' | 'signature'>;

export type Trailers = readonly (readonly [name: string, value: string])[];

/**
 * The chain of signatures of an aws-chunked body, seeded with the signature of the headers: every link covers
 * the one before, so chunks cannot be dropped, repeated or reordered. Calls must come in the order of the chunks,
 * one at a time.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
 */
export interface ChunkChain {
  /** @param sha256Hex of the chunk's data; of nothing for the last chunk. @returns its signature. */
  next(sha256Hex: string): Promise<string>;
  /** Like {@link ChunkChain.next}, compared in constant time. After false every further call answers false. */
  verify(sha256Hex: string, signature: string): Promise<boolean>;
  /** @param trailers in the order sent: `[['x-amz-checksum-crc32', 'AAAAAA==']]`. */
  signTrailer(trailers: Trailers): Promise<string>;
  verifyTrailer(trailers: Trailers, signature: string): Promise<boolean>;
}

const EMPTY_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

export function chunkChain(seed: ChunkSeed, hasher: Hasher = webCryptoHasher): ChunkChain {
  let previous = seed.signature;
  let broken = false;

  const link = async (algorithm: string, ...hashes: string[]) => {
    const text = [algorithm, seed.amzDate, seed.scope, previous, ...hashes].join('\n');
    previous = await hmacHex(seed.signingKey, text, hasher);
    return previous;
  };
  const next = (sha256Hex: string) => link('AWS4-HMAC-SHA256-PAYLOAD', EMPTY_SHA256, sha256Hex);
  const signTrailer = async (trailers: Trailers) => {
    const text = trailers.map(([name, value]) => `${name.toLowerCase()}:${value.trim()}\n`).join('');
    return link('AWS4-HMAC-SHA256-TRAILER', hex(await hasher.sha256(binaryBytes(text))));
  };
  const check = async (expected: Promise<string>, signature: string) => {
    const matches = equalsConstantTime(await expected, signature);
    if (!matches) broken = true;
    return matches && !broken;
  };
  return {
    next,
    signTrailer,
    verify: (sha256Hex, signature) => check(next(sha256Hex), signature),
    verifyTrailer: (trailers, signature) => check(signTrailer(trailers), signature),
  };
}
