import { createHash } from 'node:crypto';
import type { BlobDirectory } from './blobs.ts';
import { CHECKSUM_ALGORITHMS, type RunningChecksum } from './checksums.ts';
import { ObjectStoreError, withDiskFull } from './errors.ts';
import type { BodyInput } from './object-store.ts';

export interface StoredBody {
  blob: string;
  sizeBytes: number;
  /** Hexadecimal MD5. */
  etag: string;
  /** Base64, when a checksum was asked for. */
  checksum: string | null;
}

/** What a commit made, and the blobs that nothing refers to since. */
export interface Committed<T> {
  result: T;
  removed: readonly string[];
}

/**
 * The order that every write keeps: body into a blob, blob onto the disk, row into the index, old blobs away.
 * A failure at any step leaves the index as it was and removes the blob.
 *
 * @param commit one transaction that makes the index refer to the blob
 * @throws BadDigest when the body is not what its sender promised; InsufficientStorage; what body and commit throw
 */
export async function storeBody<T>(
  blobs: BlobDirectory,
  input: BodyInput,
  commit: (body: StoredBody) => Committed<T>,
): Promise<T> {
  const digest = new BodyDigest(input);
  try {
    const { name, sizeBytes } = await blobs.write(digest.watch(), () => digest.accept());
    const body = { blob: name, sizeBytes, etag: digest.etag, checksum: digest.checksum };
    return await commitBlobs(blobs, [name], () => commit(body));
  } catch (error) {
    throw withDiskFull(error);
  }
}

/**
 * The second half of {@link storeBody}, for blobs that exist already.
 *
 * @param commit one transaction of the index; a refusal undoes it and removes the blobs
 */
export async function commitBlobs<T>(
  blobs: BlobDirectory,
  names: readonly string[],
  commit: () => Committed<T>,
): Promise<T> {
  let committed: Committed<T>;
  try {
    committed = commit();
  } catch (error) {
    // After any other failure of the database it is not known whether the row will be there after a restart:
    // the blob stays, and the sweep of that start decides.
    if (error instanceof ObjectStoreError) await blobs.remove(names);
    throw error;
  }
  await blobs.remove(committed.removed);
  return committed.result;
}

/** Watches a body go by and holds it to what its sender promised. */
class BodyDigest {
  readonly #input: BodyInput;
  readonly #md5 = createHash('md5');
  readonly #checksum: RunningChecksum | null;
  /** Hexadecimal; set by `accept`. */
  etag = '';
  /** Base64, when a checksum was asked for; set by `accept`. */
  checksum: string | null = null;

  constructor(input: BodyInput) {
    this.#input = input;
    this.#checksum = input.checksum ? CHECKSUM_ALGORITHMS[input.checksum.algorithm].start() : null;
  }

  async *watch(): AsyncGenerator<Uint8Array> {
    for await (const chunk of this.#input.body) {
      this.#md5.update(chunk);
      this.#checksum?.update(chunk);
      yield chunk;
    }
  }

  /** Call once, after the last byte. @throws BadDigest */
  accept(): void {
    const md5 = this.#md5.digest();
    this.etag = md5.toString('hex');
    this.checksum = this.#checksum?.digest().toString('base64') ?? null;
    const { contentMd5, checksum } = this.#input;
    if (contentMd5 !== undefined && contentMd5 !== md5.toString('base64')) {
      throw badDigest('Content-MD5', contentMd5, md5.toString('base64'));
    }
    const expected = checksum?.expected?.();
    if (checksum && expected !== undefined && expected !== this.checksum) {
      throw badDigest(checksum.algorithm, expected, this.checksum ?? '');
    }
  }
}

function badDigest(kind: string, expected: string, computed: string): ObjectStoreError {
  return new ObjectStoreError(
    'BadDigest',
    `The ${kind} you specified (${expected}) did not match what we received (${computed}). The body changed on its way; send it again.`,
    { ExpectedDigest: expected, CalculatedDigest: computed },
  );
}
