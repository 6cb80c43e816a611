import type { Hasher } from './hasher.ts';

/** {@link Hasher} on `globalThis.crypto.subtle`: browsers (secure contexts), Node, workers. */
export const webCryptoHasher: Hasher = {
  sha256: async (data) => new Uint8Array(await crypto.subtle.digest('SHA-256', data as BufferSource)),
  hmac: (key, data) => hmac('SHA-256', key, data),
  hmacSha1: (key, data) => hmac('SHA-1', key, data),
};

async function hmac(hash: string, key: Uint8Array, data: Uint8Array): Promise<Uint8Array> {
  const imported = await crypto.subtle.importKey('raw', key as BufferSource, { name: 'HMAC', hash }, false, [
    'sign',
  ]);
  return new Uint8Array(await crypto.subtle.sign('HMAC', imported, data as BufferSource));
}
