import { createHash, createHmac } from 'node:crypto';
import type { Hasher } from '@trainyard/api';

/** Synchronous and about ten times as fast for small inputs as WebCrypto. */
export const nodeHasher: Hasher = {
  sha256: (data) => createHash('sha256').update(data).digest(),
  hmac: (key, data) => createHmac('sha256', key).update(data).digest(),
  hmacSha1: (key, data) => createHmac('sha1', key).update(data).digest(),
};
