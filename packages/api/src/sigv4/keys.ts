import type { Hasher } from '../hasher.ts';
import { binaryBytes, encodeUtf8, hex } from './bytes.ts';

export const ALGORITHM = 'AWS4-HMAC-SHA256';

/** The credential scope: what a signing key is good for. */
export interface Scope {
  /** `yyyymmdd` */
  date: string;
  region: string;
  service: string;
}

export const formatScope = ({ date, region, service }: Scope): string =>
  `${date}/${region}/${service}/aws4_request`;

/** `yyyymmddThhmmssZ` of epoch milliseconds. */
export const formatAmzDate = (at: number): string => new Date(at).toISOString().replace(/[-:]|\.\d{3}/g, '');

/** Epoch milliseconds; null for any text that {@link formatAmzDate} would not write. */
export function parseAmzDate(text: string): number | null {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text);
  if (!match) return null;
  const [year, month, day, hour, minute, second] = match.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const at = Date.UTC(year, month - 1, day, hour, minute, second);
  return formatAmzDate(at) === text ? at : null;
}

export async function deriveSigningKey(
  secretAccessKey: string,
  scope: Scope,
  hasher: Hasher,
): Promise<Uint8Array> {
  let key: Uint8Array = encodeUtf8(`AWS4${secretAccessKey}`);
  for (const part of [scope.date, scope.region, scope.service, 'aws4_request']) {
    key = await hasher.hmac(key, encodeUtf8(part));
  }
  return key;
}

export async function stringToSign(
  canonical: string,
  amzDate: string,
  scope: string,
  hasher: Hasher,
): Promise<string> {
  return [ALGORITHM, amzDate, scope, hex(await hasher.sha256(binaryBytes(canonical)))].join('\n');
}

export const hmacHex = async (key: Uint8Array, text: string, hasher: Hasher): Promise<string> =>
  hex(await hasher.hmac(key, encodeUtf8(text)));
