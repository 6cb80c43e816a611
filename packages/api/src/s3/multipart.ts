import type { ServiceError } from '../errors.ts';
import { escapeXml, xmlText } from '../xml.ts';
import { readXml } from './answers.ts';
import type { ObjectAddress, UploadMultipartInput } from './client.ts';

/** The requests that {@link uploadParts} needs of the client. */
export interface MultipartRequests {
  send: (input: {
    method: string;
    address: ObjectAddress;
    query: readonly (readonly [string, string])[];
    headers?: Readonly<Record<string, string>>;
    body?: Uint8Array | Blob | string;
    signal?: AbortSignal | undefined;
  }) => Promise<Response>;
  put(body: Uint8Array | Blob): Promise<{ etag: string }>;
}

/** S3's limit of parts per upload. */
const MAX_PARTS = 10_000;

const sizeOf = (part: Uint8Array | Blob) => (part instanceof Blob ? part.size : part.byteLength);

/** Sends up to `concurrency` parts at a time. A single part becomes a plain PutObject: one request instead of three. */
export async function uploadParts(
  input: UploadMultipartInput,
  requests: MultipartRequests,
): Promise<{ etag: string; sizeBytes: number }> {
  const { parts, concurrency = 4 } = input;
  const iterator = parts[Symbol.asyncIterator]();
  try {
    const first = await iterator.next();
    const second = first.done ? first : await iterator.next();
    if (second.done) {
      const only = first.done ? new Uint8Array() : first.value;
      return { ...(await requests.put(only)), sizeBytes: sizeOf(only) };
    }
    const queue = [first.value!, second.value];
    return await sendParts(
      input,
      requests,
      async () => queue.shift() ?? (await nextOf(iterator)),
      concurrency,
    );
  } catch (error) {
    await iterator.return?.();
    throw error;
  }
}

const nextOf = async <T>(iterator: AsyncIterator<T>): Promise<T | undefined> => {
  const next = await iterator.next();
  return next.done ? undefined : next.value;
};

async function sendParts(
  input: UploadMultipartInput,
  { send }: MultipartRequests,
  nextPart: () => Promise<Uint8Array | Blob | undefined>,
  concurrency: number,
): Promise<{ etag: string; sizeBytes: number }> {
  const { bucket, key, headers = {} } = input;
  const address = { bucket, key };
  const started = await send({
    method: 'POST',
    address,
    query: [['uploads', '']],
    headers,
    signal: input.signal,
  });
  const uploadId = xmlText(readXml(await started.text(), 'InitiateMultipartUploadResult'), 'UploadId') ?? '';
  // A part that fails stops the others, whose parts would be thrown away anyway.
  const failed = new AbortController();
  const signal = input.signal ? AbortSignal.any([input.signal, failed.signal]) : failed.signal;
  const etags: string[] = [];
  let sizeBytes = 0;
  let reading: Promise<unknown> = Promise.resolve();

  /** Numbers are given in the order of the iterator, which is never asked twice at a time. */
  const take = () => {
    const taken = reading.then(async () => {
      signal.throwIfAborted();
      const part = await nextPart();
      if (!part) return undefined;
      if (etags.length === MAX_PARTS)
        throw new RangeError(`an upload has at most ${MAX_PARTS} parts; make parts larger`);
      etags.push('');
      sizeBytes += sizeOf(part);
      return { part, number: etags.length };
    });
    reading = taken.catch(() => {});
    return taken;
  };
  const worker = async () => {
    for (let taken = await take(); taken; taken = await take()) {
      const query = [
        ['partNumber', String(taken.number)],
        ['uploadId', uploadId],
      ] as const;
      const answer = await send({ method: 'PUT', address, query, body: taken.part, signal });
      await answer.body?.cancel();
      etags[taken.number - 1] = answer.headers.get('etag') ?? '';
    }
  };
  try {
    const workers = Array.from({ length: concurrency }, () =>
      worker().catch((error) => {
        failed.abort(error);
        throw error;
      }),
    );
    const outcomes = await Promise.allSettled(workers);
    if (outcomes.some(({ status }) => status === 'rejected')) throw failed.signal.reason as Error;
    const completed = await send({
      method: 'POST',
      address,
      query: [['uploadId', uploadId]],
      body: completion(etags),
      signal: input.signal,
    });
    const etag = xmlText(readXml(await completed.text(), 'CompleteMultipartUploadResult'), 'ETag') ?? '';
    return { etag, sizeBytes };
  } catch (error) {
    await send({ method: 'DELETE', address, query: [['uploadId', uploadId]] }).catch(
      (abortError: ServiceError) => {
        // The first error is what the caller needs; parts left behind cost space only.
        if (error instanceof Error && error.cause === undefined) error.cause = abortError;
      },
    );
    throw error;
  }
}

const completion = (etags: readonly string[]) =>
  `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${etags
    .map((etag, at) => `<Part><PartNumber>${at + 1}</PartNumber><ETag>${escapeXml(etag)}</ETag></Part>`)
    .join('')}</CompleteMultipartUpload>`;
