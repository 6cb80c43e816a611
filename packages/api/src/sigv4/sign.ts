import type { Credentials } from '../credentials.ts';
import type { Hasher } from '../hasher.ts';
import { webCryptoHasher } from '../webcrypto-hasher.ts';
import { encodeUtf8, hex, percentEncode, toBinary } from './bytes.ts';
import { canonicalRequest } from './canonical.ts';
import {
  ALGORITHM,
  deriveSigningKey,
  formatAmzDate,
  formatScope,
  hmacHex,
  type Scope,
  stringToSign,
} from './keys.ts';

/** Payload hash of a body that is not covered by the signature; only S3 takes it. */
export const UNSIGNED_PAYLOAD = 'UNSIGNED-PAYLOAD';

/** The longest lifetime of a presigned URL: seven days. */
export const MAX_PRESIGNED_SECONDS = 604_800;

export interface SigningContext {
  credentials: Credentials;
  region: string;
  /** Signing name: `sagemaker`, `logs`, `sts`, `s3`, `trainyard`… */
  service: string;
  /** Epoch milliseconds. */
  now: number;
  /** @default webCryptoHasher */
  hasher?: Hasher;
}

export interface SignHeadersInput extends SigningContext {
  method: string;
  /** Absolute. The path is signed as it stands for s3 and encoded once more for all other services. */
  url: string | URL;
  /** All are signed. `host` is taken from the URL and must not be given. Values are Latin-1, as in `fetch`. */
  headers?: Readonly<Record<string, string>>;
  /** Lower-case hexadecimal SHA-256 of the body, or {@link UNSIGNED_PAYLOAD}. */
  payloadHash: string;
}

/**
 * Signs one request in its headers (SigV4).
 *
 * @returns the given headers, names in lower case, plus `x-amz-date`, `x-amz-content-sha256`,
 * `x-amz-security-token` where needed and `authorization`; never `host`, which `fetch` sets itself.
 */
export async function signHeaders(input: SignHeadersInput): Promise<Record<string, string>> {
  const { credentials, now, hasher = webCryptoHasher, payloadHash } = input;
  const amzDate = formatAmzDate(now);
  const headers: Record<string, string> = { ...lowerCaseNames(input.headers) };
  headers['x-amz-date'] = amzDate;
  headers['x-amz-content-sha256'] = payloadHash;
  if (credentials.sessionToken !== undefined) headers['x-amz-security-token'] = credentials.sessionToken;

  const url = new URL(input.url);
  const { signature, signedHeaders, scope } = await sign(input, url, headers, payloadHash, amzDate, hasher);
  headers.authorization =
    `${ALGORITHM} Credential=${credentials.accessKeyId}/${scope}, ` +
    `SignedHeaders=${signedHeaders}, Signature=${signature}`;
  return headers;
}

export interface PresignInput extends SigningContext {
  method: string;
  url: string | URL;
  /** Headers that the user of the URL must send exactly so. */
  headers?: Readonly<Record<string, string>>;
  /** Seconds, 1 to 604 800. */
  expiresInSeconds: number;
  /** @default UNSIGNED_PAYLOAD for s3, the hash of an empty body for every other service */
  payloadHash?: string;
}

/** Signs one request in its query string. @returns the URL to hand out. @throws RangeError for a lifetime outside 1–604 800 s. */
export async function presignUrl(input: PresignInput): Promise<string> {
  const { credentials, expiresInSeconds, now, hasher = webCryptoHasher } = input;
  if (
    !Number.isInteger(expiresInSeconds) ||
    expiresInSeconds < 1 ||
    expiresInSeconds > MAX_PRESIGNED_SECONDS
  ) {
    throw new RangeError(
      `expiresInSeconds is ${expiresInSeconds}; give whole seconds from 1 to ${MAX_PRESIGNED_SECONDS}`,
    );
  }
  const payloadHash =
    input.payloadHash ?? (input.service === 's3' ? UNSIGNED_PAYLOAD : await sha256Hex('', hasher));
  const amzDate = formatAmzDate(now);
  const headers = lowerCaseNames(input.headers);
  const url = new URL(input.url);
  const scope = formatScope(scopeOf(input, amzDate));
  const parameters: Record<string, string> = {
    'X-Amz-Algorithm': ALGORITHM,
    'X-Amz-Credential': `${credentials.accessKeyId}/${scope}`,
    'X-Amz-Date': amzDate,
    'X-Amz-Expires': String(expiresInSeconds),
    'X-Amz-SignedHeaders': Object.keys({ ...headers, host: '' })
      .sort()
      .join(';'),
  };
  if (payloadHash !== UNSIGNED_PAYLOAD) parameters['X-Amz-Content-Sha256'] = payloadHash;
  if (credentials.sessionToken !== undefined) parameters['X-Amz-Security-Token'] = credentials.sessionToken;
  const added = Object.entries(parameters).map(
    ([name, value]) => `${name}=${percentEncode(toBinary(value))}`,
  );
  url.search = [...(url.search.length > 1 ? [url.search.slice(1)] : []), ...added].join('&');
  const { signature } = await sign(input, url, headers, payloadHash, amzDate, hasher);
  url.search += `&X-Amz-Signature=${signature}`;
  return url.href;
}

/** Lower-case hexadecimal SHA-256; text is taken as UTF-8. */
export const sha256Hex = async (
  data: Uint8Array | string,
  hasher: Hasher = webCryptoHasher,
): Promise<string> => hex(await hasher.sha256(typeof data === 'string' ? encodeUtf8(data) : data));

async function sign(
  context: SigningContext & { method: string },
  url: URL,
  headers: Readonly<Record<string, string>>,
  payloadHash: string,
  amzDate: string,
  hasher: Hasher,
): Promise<{ signature: string; signedHeaders: string; scope: string }> {
  const all = { ...headers, host: url.host };
  const names = Object.keys(all).sort() as (keyof typeof all)[];
  const canonical = canonicalRequest({
    method: context.method,
    path: url.pathname,
    rawQuery: url.search.slice(1),
    headers: names.map((name) => [name, [all[name]]]),
    payloadHash,
    service: context.service,
  });
  const parts = scopeOf(context, amzDate);
  const scope = formatScope(parts);
  const key = await deriveSigningKey(context.credentials.secretAccessKey, parts, hasher);
  const signature = await hmacHex(key, await stringToSign(canonical, amzDate, scope, hasher), hasher);
  return { signature, signedHeaders: names.join(';'), scope };
}

const scopeOf = ({ region, service }: SigningContext, amzDate: string): Scope => ({
  date: amzDate.slice(0, 8),
  region,
  service,
});

function lowerCaseNames(headers: Readonly<Record<string, string>> = {}): Record<string, string> {
  const lower: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    const key = name.toLowerCase();
    if (key === 'host' || key === 'authorization' || Object.hasOwn(lower, key)) {
      throw new TypeError(
        `header ${name} must not be given ${Object.hasOwn(lower, key) ? 'twice' : 'to the signer, which sets it'}`,
      );
    }
    lower[key] = value;
  }
  return lower;
}
