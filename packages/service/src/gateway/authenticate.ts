import type { AccessKey, PayloadRule, SignatureFailure, VerifiedRequest } from '@trainyard/api';
import { isSigV2Query, signatureError, verifySignature, verifySigV2Query } from '@trainyard/api';
import type { AnswerForm } from './answers.ts';
import { readBody, refuseLargeBody } from './body.ts';
import type { Call } from './call.ts';
import type { GatewayDeps } from './deps.ts';
import { nodeHasher } from './node-hasher.ts';
import type { Principal } from './principal.ts';
import { bucketOfHost } from './s3/address.ts';
import type { S3RequestAuth } from './s3/request.ts';

type AuthenticationDeps = Pick<GatewayDeps, 'allowedRegions' | 'lookupCredentials' | 'now' | 's3BaseDomains'>;

interface PrincipalKey extends AccessKey {
  principal: Principal;
}

export interface AuthenticatedCall {
  principal: Principal;
  /** Of the credential scope. */
  region: string;
  /** Signing name of the credential scope. */
  service: string;
  body: Buffer;
}

export interface BodyRules {
  /** Signing names that the route takes. */
  services: readonly string[];
  form: AnswerForm;
  bodyLimitBytes: number;
}

/**
 * Knows the sender of a call whose body is read as a whole. A body whose hash was announced is read, and
 * `100 Continue` sent, only after the signature was found right. Without that header the signature covers the
 * body itself, so it is read first; a client that waits for `100 Continue` then sends it after its own time-out.
 *
 * @throws ServiceError in the route's form
 */
export async function authenticate(
  call: Call,
  deps: AuthenticationDeps,
  rules: BodyRules,
): Promise<AuthenticatedCall> {
  const { form, bodyLimitBytes } = rules;
  refuseLargeBody(call.request, bodyLimitBytes);
  const isHashAnnounced = call.request.headers['x-amz-content-sha256'] !== undefined;
  const early = isHashAnnounced ? await verify(call, deps, rules, null) : null;
  if (early !== null && call.expectsContinue) call.response.writeContinue();
  const body = await readBody(call.request, bodyLimitBytes);
  const verified = early ?? (await verify(call, deps, rules, body));
  const hash = Buffer.from(await nodeHasher.sha256(body)).toString('hex');
  if (verified.payload.kind !== 'sha256' || verified.payload.hex !== hash) {
    const failure: SignatureFailure = {
      ok: false,
      reason: 'body_mismatch',
      message: `x-amz-content-sha256 does not match the body, whose SHA-256 is ${hash}`,
      data: { computed: hash },
    };
    throw signatureError(failure, form);
  }
  return { principal: verified.key.principal, region: verified.region, service: verified.service, body };
}

/**
 * Knows the sender of an S3 request without touching its body: SigV4 in header or query, or a presigned URL of
 * SigV2, which boto3 and the AWS CLI v1 still make by default.
 *
 * @throws ServiceError in S3's form
 */
export async function authenticateS3(
  call: Call,
  deps: AuthenticationDeps,
): Promise<{ principal: Principal; auth: S3RequestAuth }> {
  if (isSigV2Query(call.target)) {
    // This version does not sign Host: what the host names must be part of the resource, or the same signature
    // would open `bucket/key` in every other bucket.
    const virtualBucket = bucketOfHost(call.request.headers.host ?? '', deps.s3BaseDomains ?? ['localhost']);
    const verified = await verifySigV2Query(rawRequest(call, null), lookupIn(deps), {
      now: deps.now(),
      hasher: nodeHasher,
      ...(virtualBucket === null ? {} : { virtualBucket }),
    });
    if (!verified.ok) throw signatureError(verified, 's3', { inQuery: true });
    return {
      principal: verified.key.principal,
      auth: { payloadHash: 'UNSIGNED-PAYLOAD', chunkSigning: null, presigned: true, anonymous: false },
    };
  }
  const rules = { services: ['s3'], form: 's3' as const };
  const { key, method, payload, signature, amzDate, scope, signingKey } = await verify(
    call,
    deps,
    rules,
    null,
  );
  const isHeader = method === 'header';
  return {
    principal: key.principal,
    auth: {
      payloadHash: payloadHashOf(payload),
      chunkSigning: isHeader ? { seedSignature: signature, amzDate, scope, signingKey } : null,
      presigned: !isHeader,
      anonymous: false,
    },
  };
}

async function verify(
  call: Call,
  deps: AuthenticationDeps,
  { services, form }: Pick<BodyRules, 'services' | 'form'>,
  body: Buffer | null,
): Promise<VerifiedRequest<PrincipalKey>> {
  const result = await verifySignature(rawRequest(call, body), lookupIn(deps), {
    now: deps.now(),
    hasher: nodeHasher,
    services,
    ...(deps.allowedRegions === null ? {} : { regions: deps.allowedRegions }),
  });
  if (result.ok) return result;
  throw signatureError(result, form, { inQuery: /[?&]X-Amz-/.test(call.target) });
}

/** The target as sent: a proxy's prefix was signed too. */
const rawRequest = ({ request, method }: Call, body: Buffer | null) => ({
  method,
  target: request.url ?? '',
  rawHeaders: request.rawHeaders,
  body,
});

const lookupIn =
  (deps: AuthenticationDeps) =>
  (accessKeyId: string): PrincipalKey | undefined => {
    const record = deps.lookupCredentials(accessKeyId);
    if (record === undefined) return undefined;
    const { secretAccessKey, sessionToken, expiresAt, principal } = record;
    return {
      secretAccessKey,
      principal,
      ...(sessionToken === null ? {} : { sessionToken }),
      ...(expiresAt === null ? {} : { expiresAt }),
    };
  };

function payloadHashOf(payload: PayloadRule): string {
  switch (payload.kind) {
    case 'sha256':
      return payload.hex;
    case 'unsigned':
      return 'UNSIGNED-PAYLOAD';
    case 'unsigned-trailer':
      return 'STREAMING-UNSIGNED-PAYLOAD-TRAILER';
    case 'signed-chunks':
      return `STREAMING-AWS4-HMAC-SHA256-PAYLOAD${payload.trailer ? '-TRAILER' : ''}`;
  }
}
