import type { Crc32 } from '../crc32.ts';
import { formatCrc32 } from '../crc32.ts';
import { isServiceError } from '../errors.ts';
import { type ConnectionOptions, createSignedFetch } from '../signed-fetch.ts';
import { objectUrl, type QueryItem } from './address.ts';
import { errorFrom, notUnderstood, readBuckets, readHead, readListPage } from './answers.ts';
import { resumableBody } from './body.ts';
import { uploadParts } from './multipart.ts';

export interface S3ClientOptions extends ConnectionOptions {
  /** Base URL; buckets are addressed path-style below it. */
  endpoint: string;
  /**
   * Node's `zlib.crc32`. With it a Blob is sent with `x-amz-checksum-crc32`, so that the store can verify bytes
   * that the signature does not cover; each Blob is then read twice.
   */
  crc32?: Crc32;
}

export interface BucketInfo {
  name: string;
  createdAt: Date | null;
}

export interface ObjectInfo {
  key: string;
  sizeBytes: number;
  /** With its quotes. */
  etag: string;
  lastModified: Date;
}

export type ListEntry = ({ kind: 'object' } & ObjectInfo) | { kind: 'prefix'; prefix: string };

export interface ObjectHead {
  /** Of the whole object, also when a range was asked for. */
  sizeBytes: number;
  etag: string;
  lastModified: Date;
  contentType: string | null;
  /** `x-amz-meta-*` without the prefix. */
  metadata: Record<string, string>;
}

export interface ObjectBody extends ObjectHead {
  /** Bytes of the range, or of all; resumes by Range when the connection breaks and fails when the object changed. */
  body: ReadableStream<Uint8Array>;
  /** How many bytes `body` gives. */
  bodyBytes: number;
}

export interface ObjectAddress {
  bucket: string;
  key: string;
}

export interface ByteRange {
  /** First byte, from 0. */
  start: number;
  /** Last byte, included; open when absent. */
  end?: number;
}

export interface PutObjectInput extends ObjectAddress {
  /** A Blob is streamed and not covered by the signature; the others are. */
  body: Blob | Uint8Array | string;
  headers?: Readonly<Record<string, string>>;
  signal?: AbortSignal | undefined;
}

export interface UploadMultipartInput extends ObjectAddress {
  /**
   * Each becomes one part: at least 5 MiB except the last (S3's limit), at most 10 000. Asked for one at a time, and not to be
   * changed afterwards: `concurrency` of them are held until sent.
   */
  parts: AsyncIterable<Uint8Array | Blob>;
  /** Parts sent at a time. @default 4 */
  concurrency?: number;
  headers?: Readonly<Record<string, string>>;
  signal?: AbortSignal | undefined;
}

/** Errors are ServiceError with S3's codes; a HEAD answer has no body, so its 404 is `NoSuchKey` or `NoSuchBucket`. */
export interface S3Client {
  listBuckets(): Promise<BucketInfo[]>;
  /** @returns false when the bucket does not exist; throws `AccessDenied` when it is another's. */
  headBucket(input: { bucket: string }): Promise<boolean>;
  /** Succeeds when the caller owns the bucket already. */
  createBucket(input: { bucket: string }): Promise<void>;
  /** Objects in key order, over all pages. Common prefixes only with a delimiter. */
  listObjects(input: {
    bucket: string;
    prefix?: string;
    delimiter?: string;
    startAfter?: string;
    /** Keys per page, at most 1000. @default 1000 */
    pageSize?: number;
    signal?: AbortSignal | undefined;
  }): AsyncIterable<ListEntry>;
  headObject(input: ObjectAddress & { signal?: AbortSignal | undefined }): Promise<ObjectHead>;
  getObject(
    input: ObjectAddress & { range?: ByteRange; signal?: AbortSignal | undefined },
  ): Promise<ObjectBody>;
  putObject(input: PutObjectInput): Promise<{ etag: string }>;
  /** Retries each part; aborts the upload on failure so that no parts stay behind. */
  uploadMultipart(input: UploadMultipartInput): Promise<{ etag: string; sizeBytes: number }>;
  deleteObject(input: ObjectAddress & { signal?: AbortSignal | undefined }): Promise<void>;
}

/** Holds no connection of its own, so there is nothing to close. */
export function createS3Client(options: S3ClientOptions): S3Client {
  const { endpoint, region, maxAttempts = 3 } = options;
  const signedFetch = createSignedFetch(options);

  /** @throws ServiceError for every answer that is not 2xx. */
  async function send(input: {
    method: string;
    address?: { bucket: string; key?: string };
    query?: readonly QueryItem[];
    headers?: Readonly<Record<string, string>> | undefined;
    body?: Uint8Array | Blob | string;
    signal?: AbortSignal | undefined;
  }): Promise<Response> {
    const { method, address, query = [], body, signal } = input;
    const checksum = body instanceof Blob && options.crc32 ? await checksumOf(body, options.crc32) : {};
    const answer = await signedFetch({
      service: 's3',
      method,
      url: address ? objectUrl(endpoint, address.bucket, address.key, query) : endpoint,
      headers: { ...input.headers, ...checksum },
      ...(body === undefined ? {} : { body }),
      signal,
      isThrottled: async (copy) =>
        copy.status === 400 && (await errorFrom(copy, {})).code === 'RequestTimeout',
    });
    if (!answer.ok) throw await errorFrom(answer, address ?? {});
    return answer;
  }

  async function finish(answer: Response): Promise<Headers> {
    await answer.body?.cancel();
    return answer.headers;
  }

  /** Opens an object raw: `fetch` would decompress what is stored with a Content-Encoding, so S3 is told to hide it. */
  async function open(
    address: ObjectAddress,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    const answer = await send({ method: 'GET', address, headers, signal });
    if (!isCompressed(answer)) return answer;
    await answer.body?.cancel();
    const query = [['response-content-encoding', 'identity']] as const;
    const raw = await send({ method: 'GET', address, headers, query, signal });
    if (!isCompressed(raw)) return raw;
    await raw.body?.cancel();
    throw new TypeError(
      `s3://${address.bucket}/${address.key} is stored with Content-Encoding and the store does not serve it raw ` +
        '(response-content-encoding=identity); store it without Content-Encoding',
    );
  }

  return {
    listBuckets: async () => readBuckets(await (await send({ method: 'GET' })).text()),
    headBucket: async ({ bucket }) => {
      try {
        await finish(await send({ method: 'HEAD', address: { bucket } }));
        return true;
      } catch (error) {
        if (isServiceError(error, 'NoSuchBucket')) return false;
        throw error;
      }
    },
    createBucket: async ({ bucket }) => {
      const place = `<LocationConstraint>${region}</LocationConstraint>`;
      const body = `<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${place}</CreateBucketConfiguration>`;
      try {
        // us-east-1 is what S3 takes without a body, and the one region it refuses in it.
        const given = region === 'us-east-1' ? {} : { body };
        await finish(await send({ method: 'PUT', address: { bucket }, ...given }));
      } catch (error) {
        // OperationAborted: another call makes the same bucket at this moment.
        if (!isServiceError(error, 'BucketAlreadyOwnedByYou', 'OperationAborted')) throw error;
      }
    },
    async *listObjects({ bucket, prefix = '', delimiter = '', startAfter = '', pageSize = 1000, signal }) {
      let token: string | null = null;
      do {
        const query = [
          ['list-type', '2'],
          ['encoding-type', 'url'],
          ['max-keys', String(pageSize)],
          ['prefix', prefix],
          ['delimiter', delimiter],
          ['start-after', startAfter],
          ['continuation-token', token ?? ''],
        ].filter(([, value]) => value !== '') as [string, string][];
        const answer = await send({ method: 'GET', address: { bucket }, query, signal });
        const page = readListPage(await answer.text());
        yield* page.entries;
        token = page.nextToken;
      } while (token !== null);
    },
    headObject: async ({ bucket, key, signal }) =>
      readHead(await finish(await send({ method: 'HEAD', address: { bucket, key }, signal }))),
    getObject: async ({ bucket, key, range, signal }) => {
      const address = { bucket, key };
      const answer = await open(
        address,
        range ? { range: `bytes=${range.start}-${range.end ?? ''}` } : {},
        signal,
      );
      const head = readHead(answer.headers);
      const start = answer.status === 206 ? (range?.start ?? 0) : 0;
      const bodyBytes = Number(answer.headers.get('content-length') ?? Number.NaN);
      if (Number.isNaN(bodyBytes)) throw notUnderstood('an object came without Content-Length');
      const rest = async (offset: number) => {
        const headers = { range: `bytes=${start + offset}-${start + bodyBytes - 1}`, 'if-match': head.etag };
        const answer = await open(address, headers, signal);
        if (answer.status !== 206) throw notUnderstood(`Range was answered with status ${answer.status}`);
        return answer.body;
      };
      const where = `s3://${bucket}/${key}`;
      return {
        ...head,
        bodyBytes,
        body: resumableBody(answer.body, bodyBytes, rest, maxAttempts, where, signal),
      };
    },
    putObject: async (input) => {
      const { bucket, key, body, headers, signal } = input;
      const answer = await send({ method: 'PUT', address: { bucket, key }, headers, body, signal });
      return { etag: (await finish(answer)).get('etag') ?? '' };
    },
    uploadMultipart: (input) =>
      uploadParts(input, {
        send,
        put: async (body) => {
          const { bucket, key, headers, signal } = input;
          const answer = await send({ method: 'PUT', address: { bucket, key }, headers, body, signal });
          return { etag: (await finish(answer)).get('etag') ?? '' };
        },
      }),
    deleteObject: async ({ bucket, key, signal }) => {
      await finish(await send({ method: 'DELETE', address: { bucket, key }, signal }));
    },
  };
}

const isCompressed = (answer: Response) => {
  const encoding = answer.headers.get('content-encoding') ?? '';
  return !['', 'identity', 'aws-chunked'].includes(encoding.trim());
};

async function checksumOf(body: Blob, crc32: Crc32): Promise<Record<string, string>> {
  let sum = 0;
  for await (const chunk of body.stream()) sum = crc32(chunk, sum);
  return { 'x-amz-checksum-crc32': formatCrc32(sum), 'x-amz-sdk-checksum-algorithm': 'CRC32' };
}
