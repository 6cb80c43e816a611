import type { QueryPair } from './canonical.ts';
import { SignatureRejection } from './raw-request.ts';

/** How the signature covers the body. `sha256` was compared already when the request carried its body. */
export type PayloadRule =
  | { kind: 'sha256'; hex: string }
  | { kind: 'unsigned' }
  /** aws-chunked without signatures, ending in a checksum trailer. */
  | { kind: 'unsigned-trailer' }
  /** aws-chunked, every chunk signed: see {@link ChunkChain}. */
  | { kind: 'signed-chunks'; trailer: boolean };

/** Forms that leave the body outside the signature of the headers; S3 alone takes them. */
const STREAMED: Readonly<Record<string, PayloadRule>> = {
  'UNSIGNED-PAYLOAD': { kind: 'unsigned' },
  'STREAMING-UNSIGNED-PAYLOAD-TRAILER': { kind: 'unsigned-trailer' },
  'STREAMING-AWS4-HMAC-SHA256-PAYLOAD': { kind: 'signed-chunks', trailer: false },
  'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER': { kind: 'signed-chunks', trailer: true },
};

/**
 * The last line of the canonical request and what it demands of the body.
 *
 * @param bodyHash null when the body is streamed.
 */
export function payloadRule(
  { method, scope: { service } }: { method: 'header' | 'query'; scope: { service: string } },
  headers: ReadonlyMap<string, readonly string[]>,
  query: readonly QueryPair[],
  bodyHash: string | null,
): { payloadHash: string; rule: PayloadRule } {
  const inQuery = method === 'query' ? query.filter(([name]) => name === 'X-Amz-Content-Sha256') : [];
  if (inQuery.length > 1)
    throw new SignatureRejection('malformed', 'X-Amz-Content-Sha256 is in the query twice');
  const unspecified = service === 's3' && method === 'query' ? 'UNSIGNED-PAYLOAD' : bodyHash;
  const payloadHash = inQuery[0]?.[1] ?? headers.get('x-amz-content-sha256')?.[0] ?? unspecified;
  if (payloadHash === null) {
    throw new SignatureRejection(
      'malformed',
      'x-amz-content-sha256 is missing; send it with the hash of the body',
    );
  }
  if (/^[0-9a-f]{64}$/.test(payloadHash)) return { payloadHash, rule: { kind: 'sha256', hex: payloadHash } };
  const rule = Object.hasOwn(STREAMED, payloadHash) ? STREAMED[payloadHash] : undefined;
  if (service === 's3' && rule) return { payloadHash, rule };
  if (/ECDSA/.test(payloadHash)) {
    throw new SignatureRejection(
      'unsupported',
      `x-amz-content-sha256 '${payloadHash}' belongs to SigV4a; use SigV4`,
    );
  }
  const forms =
    service === 's3'
      ? `64 lower-case hexadecimal digits or ${Object.keys(STREAMED).join(', ')}`
      : '64 lower-case hexadecimal digits';
  throw new SignatureRejection(
    'malformed',
    `x-amz-content-sha256 is '${payloadHash}'; for ${service} it must be ${forms}`,
  );
}
