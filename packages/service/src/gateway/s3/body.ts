import { createHash } from 'node:crypto';
import { chunkChain } from '@trainyard/api';
import { nodeHasher } from '../node-hasher.ts';
import { AwsChunkedDecoder } from './aws-chunked.ts';
import type { S3Context } from './context.ts';
import { S3Error } from './errors.ts';

/** Largest body of PutObject and UploadPart. https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html */
export const MAX_BODY_BYTES = 5 * 1024 ** 3;
const MAX_DOCUMENT_BYTES = 2 * 1024 * 1024;

const STREAMING = 'STREAMING-';
const SIGNED_CHUNKS = 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD';
const TRAILER = '-TRAILER';

/** The content of a request: verified while it streams, and verified only once the stream has ended. */
export interface S3Body {
  /** Content as the client meant it, without any framing; can be read once. */
  bytes: AsyncIterable<Uint8Array>;
  /** Lower-case names that come after the content. */
  trailerNames: readonly string[];
  /** Value of a trailer; undefined before the end of the content. */
  trailer(name: string): string | undefined;
}

/** The body of PutObject or UploadPart. @throws S3Error before a byte is read when its headers do not fit */
export function openBody(context: S3Context, maxBytes = MAX_BODY_BYTES): S3Body {
  const { payloadHash } = context.request.auth;
  if (payloadHash.startsWith(STREAMING)) return openChunked(context, payloadHash, maxBytes);
  if (encodingsOf(context).includes('aws-chunked')) {
    throw new S3Error(
      'InvalidRequest',
      `Content-Encoding is aws-chunked, but x-amz-content-sha256 is ${payloadHash}; it must begin with ${STREAMING}.`,
    );
  }
  const length = context.header('content-length');
  if (length === undefined) throw new S3Error('MissingContentLength');
  assertSize(Number(length), maxBytes);
  const hash = /^[0-9a-f]{64}$/.test(payloadHash) ? payloadHash : null;
  if (hash === null && payloadHash !== 'UNSIGNED-PAYLOAD') {
    throw new S3Error(
      'InvalidArgument',
      `x-amz-content-sha256 is ${JSON.stringify(payloadHash)}, which is no SHA-256.`,
    );
  }
  const wire = readWire(context);
  return {
    bytes: hash === null ? wire : verifySha256(wire, hash),
    trailerNames: [],
    trailer: () => undefined,
  };
}

/** A whole document, at most 2 MiB; empty when there is none. The digests of its headers are the caller's to check. */
export async function readDocument(context: S3Context): Promise<{ document: Buffer; body: S3Body }> {
  const { req } = context.request;
  const hasBody =
    req.headers['content-length'] !== undefined || req.headers['transfer-encoding'] !== undefined;
  if (!hasBody)
    return {
      document: Buffer.alloc(0),
      body: { bytes: empty(), trailerNames: [], trailer: () => undefined },
    };
  const body = openBody(context, MAX_DOCUMENT_BYTES);
  const pieces: Uint8Array[] = [];
  for await (const piece of body.bytes) pieces.push(piece);
  return { document: Buffer.concat(pieces), body };
}

/** Content encodings without `aws-chunked`, which is of the transfer and not of the object. */
export function storedEncoding(context: S3Context): string | undefined {
  const kept = encodingsOf(context).filter((encoding) => encoding !== 'aws-chunked');
  return kept.length > 0 ? kept.join(',') : undefined;
}

function encodingsOf(context: S3Context): string[] {
  return (context.header('content-encoding') ?? '')
    .split(',')
    .map((encoding) => encoding.trim())
    .filter((encoding) => encoding !== '');
}

function openChunked(context: S3Context, payloadHash: string, maxBytes: number): S3Body {
  const hasTrailer = payloadHash.endsWith(TRAILER);
  const form = hasTrailer ? payloadHash.slice(0, -TRAILER.length) : payloadHash;
  const isSigned = form === SIGNED_CHUNKS;
  if (!isSigned && !(form === 'STREAMING-UNSIGNED-PAYLOAD' && hasTrailer)) {
    throw new S3Error(
      'NotImplemented',
      `x-amz-content-sha256 is ${payloadHash}, a form that is not implemented.`,
    );
  }
  const seed = context.request.auth.chunkSigning;
  if (isSigned && seed === null) {
    throw new S3Error('InvalidRequest', 'Signed chunks need a signature in the Authorization header.');
  }
  const length = context.header('x-amz-decoded-content-length');
  if (length === undefined || !/^\d{1,15}$/.test(length)) {
    throw new S3Error(
      'MissingContentLength',
      'You must provide the x-amz-decoded-content-length HTTP header.',
    );
  }
  assertSize(Number(length), maxBytes);
  const trailerNames = namesOf(context.header('x-amz-trailer'));
  if (!hasTrailer && trailerNames.length > 0) {
    throw new S3Error(
      'InvalidRequest',
      `x-amz-trailer was sent, but x-amz-content-sha256 is ${payloadHash}; add ${TRAILER} to it.`,
    );
  }
  const decoder = new AwsChunkedDecoder({
    decodedBytes: Number(length),
    signatures: isSigned && seed ? chunkChain({ ...seed, signature: seed.seedSignature }, nodeHasher) : null,
    trailerNames: hasTrailer ? trailerNames : null,
  });
  return {
    bytes: decoder.decode(readWire(context)),
    trailerNames,
    trailer: (name) => decoder.trailers.get(name),
  };
}

/** What HTTP delivers. The iterator leaves the connection usable when it is abandoned, so that an error can be sent. */
async function* readWire(context: S3Context): AsyncGenerator<Uint8Array> {
  const { req, res, expectsContinue } = context.request;
  if (expectsContinue) {
    context.request.expectsContinue = false;
    res.writeContinue();
  }
  yield* req.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>;
}

async function* verifySha256(
  source: AsyncIterable<Uint8Array>,
  expected: string,
): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha256');
  for await (const chunk of source) {
    hash.update(chunk);
    yield chunk;
  }
  const computed = hash.digest('hex');
  if (computed === expected) return;
  throw new S3Error('XAmzContentSHA256Mismatch', undefined, {
    ClientComputedContentSHA256: expected,
    S3ComputedContentSHA256: computed,
  });
}

function assertSize(sizeBytes: number, maxBytes: number): void {
  if (sizeBytes <= maxBytes) return;
  const code = maxBytes === MAX_BODY_BYTES ? 'EntityTooLarge' : 'MaxMessageLengthExceeded';
  throw new S3Error(code, `The body has ${sizeBytes} bytes; at most ${maxBytes} are allowed.`, {
    ProposedSize: sizeBytes,
    MaxSizeAllowed: maxBytes,
  });
}

function namesOf(header: string | undefined): string[] {
  return (header ?? '')
    .split(',')
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '');
}

async function* empty(): AsyncGenerator<Uint8Array> {}
