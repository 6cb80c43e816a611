import type { Hasher } from '../hasher.ts';
import { webCryptoHasher } from '../webcrypto-hasher.ts';
import { equalsConstantTime, fromBinary } from './bytes.ts';
import { canonicalRequest, type QueryPair, splitQuery, splitTarget } from './canonical.ts';
import {
  ALGORITHM,
  deriveSigningKey,
  formatAmzDate,
  formatScope,
  hmacHex,
  parseAmzDate,
  type Scope,
  stringToSign,
} from './keys.ts';
import { type PayloadRule, payloadRule } from './payload.ts';
import {
  type AccessKey,
  collectHeaders,
  findKey,
  type KeyLookup,
  type RawRequest,
  refuseRepeatedHeaders,
  rejectionAsValue,
  type SignatureFailure,
  SignatureRejection,
} from './raw-request.ts';
import { MAX_PRESIGNED_SECONDS, sha256Hex } from './sign.ts';

export interface VerifyOptions {
  /** Epoch milliseconds. */
  now: number;
  /** @default webCryptoHasher */
  hasher?: Hasher;
  /** Signing names that the scope may carry; decided by the route of the request. */
  services: readonly string[];
  /** Regions that the scope may carry. @default any */
  regions?: readonly string[];
  /** Milliseconds. @default 15 minutes for s3, 5 minutes for every other service */
  maxSkewMs?: number;
}

export interface VerifiedRequest<K extends AccessKey = AccessKey> {
  ok: true;
  key: K;
  accessKeyId: string;
  /** Where the signature was. */
  method: 'header' | 'query';
  region: string;
  service: string;
  signedHeaders: readonly string[];
  payload: PayloadRule;
  /** With the next three the seed of a {@link ChunkChain}. */
  signingKey: Uint8Array;
  amzDate: string;
  scope: string;
  signature: string;
  /** The query as the signature understood it: the only form to act on. */
  query: readonly (readonly [name: string, value: string])[];
}

/** What a request claims, before anything is checked against a key. */
interface Claim {
  method: 'header' | 'query';
  accessKeyId: string;
  scope: Scope;
  signedHeaders: string[];
  signature: string;
  amzDate: string;
  signedAt: number;
  token: string | undefined;
  expiresInSeconds: number | null;
}

type Headers = ReadonlyMap<string, readonly string[]>;

const malformed = (message: string, data: SignatureFailure['data'] = {}) =>
  new SignatureRejection('malformed', message, data);

/**
 * Verifies SigV4 in the `Authorization` header or the query.
 *
 * @param lookup answers undefined for an unknown access key id; called at most once.
 * @returns a failure as a value; throws only what `lookup` and the hasher throw.
 */
export function verifySignature<K extends AccessKey>(
  request: RawRequest,
  lookup: KeyLookup<K>,
  options: VerifyOptions,
): Promise<VerifiedRequest<K> | SignatureFailure> {
  return rejectionAsValue(async () => {
    const { hasher = webCryptoHasher, now } = options;
    const { path, rawQuery } = splitTarget(request.target);
    if (!path.startsWith('/')) throw malformed(`Request target '${request.target}' does not start with '/'`);
    const query = splitQuery(rawQuery);
    const headers = collectHeaders(request.rawHeaders);
    refuseRepeatedHeaders(headers);

    const claim = readClaim(headers, query);
    checkScope(claim, options);
    checkTime(claim, options);
    checkCoverage(claim, headers);
    const key = await findKey(claim.accessKeyId, claim.token, lookup, now, equalsConstantTime);

    const { service } = claim.scope;
    const bodyHash = request.body === null ? null : await sha256Hex(request.body, hasher);
    const { payloadHash, rule } = payloadRule(claim, headers, query, bodyHash);
    const canonical = canonicalRequest({
      method: request.method,
      path,
      rawQuery,
      headers: claim.signedHeaders.map((name) => [name, headers.get(name)!]),
      payloadHash,
      service,
    });
    const scope = formatScope(claim.scope);
    const text = await stringToSign(canonical, claim.amzDate, scope, hasher);
    const signingKey = await deriveSigningKey(key.secretAccessKey, claim.scope, hasher);
    if (!equalsConstantTime(await hmacHex(signingKey, text, hasher), claim.signature)) {
      throw new SignatureRejection(
        'bad_signature',
        `The signature does not match the request. Check the secret key of '${claim.accessKeyId}', and that no proxy ` +
          'changes the path, the query or a signed header (Host too).',
        { accessKeyId: claim.accessKeyId, canonicalRequest: canonical, stringToSign: text },
      );
    }
    if (rule.kind === 'sha256' && bodyHash !== null && bodyHash !== rule.hex) {
      throw new SignatureRejection(
        'body_mismatch',
        `x-amz-content-sha256 is ${rule.hex} but the body has the SHA-256 ${bodyHash}`,
        { declared: rule.hex, computed: bodyHash },
      );
    }
    return {
      ok: true,
      key,
      accessKeyId: claim.accessKeyId,
      method: claim.method,
      region: claim.scope.region,
      service,
      signedHeaders: claim.signedHeaders,
      payload: rule,
      signingKey,
      amzDate: claim.amzDate,
      scope,
      signature: claim.signature,
      query: query.map(([name, value]) => [fromBinary(name), fromBinary(value)] as const),
    };
  });
}

function readClaim(headers: Headers, query: readonly QueryPair[]): Claim {
  const authorization = headers.get('authorization')?.[0];
  const inQuery = query.some(([name]) => name === 'X-Amz-Algorithm' || name === 'X-Amz-Signature');
  const inSigV2Query = query.some(([name]) => name === 'AWSAccessKeyId' || name === 'Signature');
  if (Number(authorization !== undefined) + Number(inQuery) + Number(inSigV2Query) > 1) {
    throw new SignatureRejection(
      'ambiguous',
      'Authentication was sent twice: in the Authorization header and the query, or in two query forms. Send one.',
    );
  }
  if (inQuery) return readQueryClaim(query);
  if (inSigV2Query) {
    throw new SignatureRejection(
      'unsupported',
      'A signature of version 2 is not valid here; sign with version 4',
    );
  }
  if (authorization === undefined) throw new SignatureRejection('missing', 'The request is not signed');
  return readHeaderClaim(authorization, headers);
}

function readHeaderClaim(authorization: string, headers: Headers): Claim {
  const [algorithm = '', ...rest] = authorization.split(' ');
  checkAlgorithm(algorithm);
  const fields = new Map<string, string>();
  for (const part of rest.join(' ').split(',')) {
    const [, name, value] = /^ *(Credential|SignedHeaders|Signature)=([^ ]+) *$/.exec(part) ?? [];
    if (!name || !value || fields.has(name)) {
      throw malformed(
        `Authorization must hold Credential, SignedHeaders and Signature once each, separated by commas; found '${part.trim()}'`,
      );
    }
    fields.set(name, value);
  }
  const amzDateHeader = headers.get('x-amz-date')?.[0];
  const date = headers.get('date')?.[0];
  const signedAt = amzDateHeader !== undefined ? parseAmzDate(amzDateHeader) : parseHttpDate(date);
  if (signedAt === null) {
    throw malformed(
      `x-amz-date is '${amzDateHeader ?? ''}' and Date '${date ?? ''}'; send x-amz-date as yyyymmddThhmmssZ`,
    );
  }
  const claim = {
    method: 'header' as const,
    ...readCredential(fields.get('Credential')),
    signedHeaders: readSignedHeaders(fields.get('SignedHeaders')),
    signature: readSignature(fields.get('Signature')),
    amzDate: formatAmzDate(signedAt),
    signedAt,
    token: headers.get('x-amz-security-token')?.[0],
    expiresInSeconds: null,
  };
  if (amzDateHeader === undefined && !claim.signedHeaders.includes('date')) {
    throw new SignatureRejection(
      'unsigned_header',
      'Date carries the time of the signature but is not signed',
      {
        header: 'date',
      },
    );
  }
  return claim;
}

function readQueryClaim(query: readonly QueryPair[]): Claim {
  const value = (name: string, required = true) => {
    const found = query.filter(([key]) => key === name);
    if (found.length > 1 || (required && found.length === 0)) {
      throw malformed(`Query parameter ${name} must be present once; it is there ${found.length} times`, {
        parameter: name,
      });
    }
    return found[0]?.[1];
  };
  checkAlgorithm(value('X-Amz-Algorithm')!);
  const amzDate = value('X-Amz-Date')!;
  const signedAt = parseAmzDate(amzDate);
  if (signedAt === null) throw malformed(`X-Amz-Date is '${amzDate}'; write yyyymmddThhmmssZ`);
  const expires = value('X-Amz-Expires')!;
  const expiresInSeconds = /^\d{1,6}$/.test(expires) ? Number(expires) : 0;
  if (expiresInSeconds < 1 || expiresInSeconds > MAX_PRESIGNED_SECONDS) {
    throw malformed(`X-Amz-Expires is '${expires}'; it must be from 1 to ${MAX_PRESIGNED_SECONDS} seconds`);
  }
  return {
    method: 'query',
    ...readCredential(value('X-Amz-Credential')),
    signedHeaders: readSignedHeaders(value('X-Amz-SignedHeaders')),
    signature: readSignature(value('X-Amz-Signature')),
    amzDate,
    signedAt,
    token: value('X-Amz-Security-Token', false),
    expiresInSeconds,
  };
}

function checkAlgorithm(algorithm: string): void {
  if (algorithm !== ALGORITHM) {
    throw new SignatureRejection(
      'unsupported',
      `Scheme '${algorithm}' is not supported; sign with ${ALGORITHM}`,
    );
  }
}

/** The access key id may itself hold slashes, the scope cannot. */
function readCredential(credential = ''): { accessKeyId: string; scope: Scope } {
  const parts = credential.split('/');
  const [date = '', region = '', service = '', terminator = ''] = parts.slice(-4);
  const accessKeyId = parts.slice(0, -4).join('/');
  if (!accessKeyId || !/^\d{8}$/.test(date) || !region || !service || terminator !== 'aws4_request') {
    throw malformed(
      `Credential is '${credential}'; it must be ACCESS_KEY_ID/yyyymmdd/REGION/SERVICE/aws4_request`,
    );
  }
  return { accessKeyId, scope: { date, region, service } };
}

function readSignedHeaders(text = ''): string[] {
  const names = text.split(';');
  const ascending = names.every((name, at) => name !== '' && (at === 0 || names[at - 1]! < name));
  if (!ascending || text !== text.toLowerCase()) {
    throw malformed(
      `SignedHeaders is '${text}'; names must be lower case, sorted, each once, separated by ';'`,
    );
  }
  return names;
}

function readSignature(text = ''): string {
  if (!/^[0-9a-f]{64}$/.test(text)) throw malformed('Signature must be 64 lower-case hexadecimal digits');
  return text;
}

/** IMF-fixdate only, the one form that HTTP clients may send. */
function parseHttpDate(text = ''): number | null {
  const at = Date.parse(text);
  return Number.isNaN(at) || new Date(at).toUTCString() !== text ? null : at;
}

function checkScope({ scope, amzDate }: Claim, options: VerifyOptions): void {
  if (scope.date !== amzDate.slice(0, 8)) {
    throw malformed(`Date in Credential scope is ${scope.date} but the request was signed at ${amzDate}`);
  }
  if (!options.services.includes(scope.service)) {
    throw new SignatureRejection(
      'wrong_service',
      `Credential should be scoped to correct service: '${options.services.join("' or '")}', not '${scope.service}'.`,
      { service: scope.service, expected: options.services.join(',') },
    );
  }
  if (options.regions && !options.regions.includes(scope.region)) {
    throw new SignatureRejection(
      'wrong_region',
      `Credential should be scoped to a valid region, not '${scope.region}'; use '${options.regions.join("' or '")}'.`,
      { region: scope.region, expected: options.regions[0] ?? '' },
    );
  }
}

function checkTime({ amzDate, signedAt, expiresInSeconds, scope }: Claim, options: VerifyOptions): void {
  const { now, maxSkewMs = (scope.service === 's3' ? 15 : 5) * 60_000 } = options;
  const minutes = maxSkewMs / 60_000;
  const data = { signedAt, now, maxSkewMs };
  if (signedAt > now + maxSkewMs) {
    throw new SignatureRejection(
      'skewed_future',
      `Signature not yet current: ${amzDate} is still later than ${formatAmzDate(now + maxSkewMs)} ` +
        `(${formatAmzDate(now)} + ${minutes} min.)`,
      data,
    );
  }
  if (expiresInSeconds !== null) {
    const expiresAt = signedAt + expiresInSeconds * 1000;
    if (now >= expiresAt) {
      throw new SignatureRejection('expired', 'Request has expired', {
        signedAt,
        expiresInSeconds,
        expiresAt,
        now,
      });
    }
  } else if (signedAt < now - maxSkewMs) {
    throw new SignatureRejection(
      'skewed_past',
      `Signature expired: ${amzDate} is now earlier than ${formatAmzDate(now - maxSkewMs)} ` +
        `(${formatAmzDate(now)} - ${minutes} min.)`,
      data,
    );
  }
}

/** What changes the meaning of a request must be signed, and what is signed must be there. */
function checkCoverage({ signedHeaders }: Claim, headers: Headers): void {
  const signed = new Set(signedHeaders);
  for (const name of ['host', ...headers.keys()]) {
    if ((name === 'host' || name.startsWith('x-amz-')) && !signed.has(name)) {
      throw new SignatureRejection('unsigned_header', `Header ${name} must be among SignedHeaders`, {
        header: name,
      });
    }
  }
  for (const name of signedHeaders) {
    if (!headers.has(name)) {
      throw new SignatureRejection('bad_signature', `Header ${name} is signed but was not sent`, {
        header: name,
      });
    }
  }
}
