import { createHash, createHmac } from 'node:crypto';
import type { Hasher } from '@trainyard/api';

/** Node's synchronous hashes: a few milliseconds faster to the first request than WebCrypto. */
export const nodeHasher: Hasher = {
  sha256: (data) => createHash('sha256').update(data).digest(),
  hmac: (key, data) => createHmac('sha256', key).update(data).digest(),
};
