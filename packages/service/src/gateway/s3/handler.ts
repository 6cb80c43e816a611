import { parseAddress } from './address.ts';
import { type S3Deps, S3Context } from './context.ts';
import { asS3Error, S3Error } from './errors.ts';
import type { AuthenticatedS3Request } from './request.ts';
import { findRoute } from './routes.ts';
import { writeXml } from './xml-writer.ts';

/**
 * Answers S3 requests whose sender the gateway knows. Refusals are answered here in S3's XML; what is thrown is a
 * fault of ours or a connection that ended, and then no complete answer has been sent.
 */
export function createS3Handler(deps: S3Deps): (request: AuthenticatedS3Request) => Promise<void> {
  return async (request) => {
    try {
      await answer(deps, request);
    } catch (error) {
      const refusal = asS3Error(error);
      if (!refusal || request.res.headersSent || request.res.destroyed) throw error;
      sendRefusal(request, refusal);
    }
  };
}

async function answer(deps: S3Deps, request: AuthenticatedS3Request): Promise<void> {
  const { req, rawTarget, principal } = request;
  const address = parseAddress(rawTarget, req.headers.host ?? '', deps.baseDomains ?? ['localhost']);
  const route = findRoute(req.method ?? '', address, req.headers['x-amz-copy-source'] !== undefined);
  const { bucket, key, query } = address;
  const context = new S3Context(request, deps, { bucket: bucket ?? '', key: key ?? '', query });
  const owner = context.header('x-amz-expected-bucket-owner');
  if (owner !== undefined && owner !== principal.accountId) {
    throw new S3Error('AccessDenied', `The bucket belongs to ${principal.accountId}, not to ${owner}.`);
  }
  if (route.action !== null) {
    context.assertAllowed({
      action: route.action,
      bucket,
      key: route.action === 'list' ? (query.get('prefix') ?? '') : key,
    });
  }
  await route.run(context);
}

/** A refusal in XML; without a body where HTTP allows none. What is left of the request is read and dropped. */
function sendRefusal(
  { req, res, requestId, rawTarget, expectsContinue }: AuthenticatedS3Request,
  refusal: S3Error,
): void {
  // A client that never got its 100 Continue may or may not send the body now: only a new connection is clean.
  if (expectsContinue) res.shouldKeepAlive = false;
  const { code, message, data, status } = refusal;
  if (req.method === 'HEAD' || status === 304) {
    res.writeHead(status, refusal.headers).end();
  } else {
    const content = {
      Code: code,
      Message: message,
      ...(data as Record<string, string | number>),
      Resource: rawTarget.replace(/\?.*/s, ''),
      RequestId: requestId,
      HostId: String(res.getHeader('x-amz-id-2') ?? requestId),
    };
    const body = Buffer.from(writeXml('Error', content, null));
    const headers = {
      ...refusal.headers,
      'content-type': 'application/xml',
      'content-length': String(body.length),
    };
    res.writeHead(status, headers).end(body);
  }
  req.resume();
}
