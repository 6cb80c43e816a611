/**
 * The cryptography that {@link signHeaders} and {@link verifySignature} need, passed in so that this package
 * runs in browsers and in Node, where the service uses the synchronous and faster `node:crypto`.
 */
export interface Hasher {
  sha256(data: Uint8Array): Uint8Array | Promise<Uint8Array>;
  /** HMAC-SHA256. */
  hmac(key: Uint8Array, data: Uint8Array): Uint8Array | Promise<Uint8Array>;
  /** HMAC-SHA1; only {@link verifySigV2Query} needs it. */
  hmacSha1?(key: Uint8Array, data: Uint8Array): Uint8Array | Promise<Uint8Array>;
}
