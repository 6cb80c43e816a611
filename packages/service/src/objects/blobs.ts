import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import {
  copyFile,
  type FileHandle,
  link,
  mkdir,
  open,
  opendir,
  readdir,
  rename,
  unlink,
} from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';

/** Chunks of a body are gathered to this size before they are written. */
const WRITE_BYTES = 1 << 20;
const READ_BYTES = 1 << 19;

export interface Blob {
  /** 32 hexadecimal digits, random: nothing that a client sends becomes part of a path. */
  name: string;
  sizeBytes: number;
}

/** A stretch of a blob. */
export interface BlobSlice {
  name: string;
  start: number;
  /** Exclusive. */
  end: number;
}

/**
 * Immutable byte sequences as files. A blob exists once `write` or `link` has returned, and then survives a
 * power cut; what a crash leaves half-written in `incoming/` is removed by the next `sweep`.
 */
export class BlobDirectory {
  readonly #incoming: string;
  readonly #blobs: string;
  /** Subdirectories by the first two digits of a name, made when first needed. */
  readonly #shards: Set<string>;
  readonly #pins = new Map<string, number>();
  readonly #doomed = new Set<string>();

  private constructor(incoming: string, blobs: string, shards: readonly string[]) {
    this.#incoming = incoming;
    this.#blobs = blobs;
    this.#shards = new Set(shards);
  }

  static async open(directory: string): Promise<BlobDirectory> {
    const incoming = join(directory, 'incoming');
    const blobs = join(directory, 'blobs');
    await mkdir(incoming, { recursive: true, mode: 0o700 });
    await mkdir(blobs, { recursive: true, mode: 0o700 });
    await syncDirectory(directory);
    return new BlobDirectory(incoming, blobs, await readdir(blobs));
  }

  /**
   * Stores a body; reading it and writing the file overlap by one buffer, and the body is read no faster than the
   * disk takes it.
   *
   * @param accept is called with the size after the last byte and before the blob exists; if it throws, as when the
   * body or the disk fails, nothing remains.
   */
  async write(
    body: AsyncIterable<Uint8Array>,
    accept: (sizeBytes: number) => void = () => {},
  ): Promise<Blob> {
    const name = randomBytes(16).toString('hex');
    const temporary = join(this.#incoming, name);
    const file = await open(temporary, 'wx', 0o600);
    try {
      let sizeBytes = 0;
      try {
        sizeBytes = await copyInto(file, body);
        accept(sizeBytes);
        await file.sync();
      } finally {
        await file.close();
      }
      await this.#publish(temporary, name);
      return { name, sizeBytes };
    } catch (error) {
      await removeIfPresent(temporary);
      throw error;
    }
  }

  /** A second blob with the same bytes, which share their disk space where the file system can. */
  async link(source: string): Promise<string> {
    const name = randomBytes(16).toString('hex');
    const temporary = join(this.#incoming, name);
    try {
      try {
        await link(this.#path(source), temporary);
      } catch (error) {
        if (!NO_HARD_LINKS.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
        await copyFile(this.#path(source), temporary, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL);
        await syncPath(temporary, 'r+');
      }
      await this.#publish(temporary, name);
      return name;
    } catch (error) {
      await removeIfPresent(temporary);
      throw error;
    }
  }

  /** Keeps blobs readable until the returned function is called, even if they are removed meanwhile. */
  pin(names: readonly string[]): () => Promise<void> {
    for (const name of names) this.#pins.set(name, (this.#pins.get(name) ?? 0) + 1);
    let released = false;
    return async () => {
      if (released) return;
      released = true;
      const free: string[] = [];
      for (const name of names) {
        const count = this.#pins.get(name)! - 1;
        if (count > 0) this.#pins.set(name, count);
        else this.#pins.delete(name);
        if (count === 0 && this.#doomed.delete(name)) free.push(name);
      }
      await this.remove(free);
    };
  }

  /** Removes blobs now, or once their last reader is done. A file that cannot be removed is left to `sweep`. */
  async remove(names: readonly string[]): Promise<void> {
    for (const name of names) {
      if (this.#pins.has(name)) this.#doomed.add(name);
      else await unlink(this.#path(name)).catch(() => {});
    }
  }

  /** The bytes of the slices one after the other. The caller has pinned them and must consume or destroy the stream. */
  async read(slices: readonly BlobSlice[]): Promise<Readable> {
    const [first, ...rest] = slices.filter((slice) => slice.end > slice.start);
    if (first === undefined) return Readable.from([]);
    // Opened here and not by the first read, so that a missing file is an error before an answer has begun.
    const file = await open(this.#path(first.name), 'r');
    const open0 = streamSlice(file, first);
    if (rest.length === 0) return open0;
    const path = (name: string) => this.#path(name);
    return Readable.from(
      (async function* () {
        yield* open0;
        for (const slice of rest) yield* streamSlice(await open(path(slice.name), 'r'), slice);
      })(),
      { objectMode: false, highWaterMark: READ_BYTES },
    ).once('close', () => open0.destroy());
  }

  /**
   * Removes everything that is not referenced: call it before any other use. @returns how many files went.
   * @param referenced the names that begin with two given hexadecimal digits and must stay
   */
  async sweep(referenced: (shard: string) => ReadonlySet<string>): Promise<number> {
    let removed = 0;
    const sweepDirectory = async (directory: string, stays: ReadonlySet<string>) => {
      for await (const entry of await opendir(directory)) {
        if (stays.has(entry.name)) continue;
        await unlink(join(directory, entry.name));
        removed++;
      }
    };
    await sweepDirectory(this.#incoming, new Set());
    for (const shard of this.#shards) await sweepDirectory(join(this.#blobs, shard), referenced(shard));
    return removed;
  }

  async #publish(temporary: string, name: string): Promise<void> {
    const shard = name.slice(0, 2);
    if (!this.#shards.has(shard)) {
      await mkdir(join(this.#blobs, shard), { recursive: true, mode: 0o700 });
      await syncDirectory(this.#blobs);
      this.#shards.add(shard);
    }
    await rename(temporary, this.#path(name));
    await syncDirectory(join(this.#blobs, shard)).catch(async (error) => {
      await removeIfPresent(this.#path(name));
      throw error;
    });
  }

  #path(name: string): string {
    return join(this.#blobs, name.slice(0, 2), name);
  }
}

/** Errors of file systems without hard links, or with too many of one file. */
const NO_HARD_LINKS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EMLINK', 'ENOSYS']);

async function copyInto(file: FileHandle, body: AsyncIterable<Uint8Array>): Promise<number> {
  let written = 0;
  let gathered: Uint8Array[] = [];
  let gatheredBytes = 0;
  let writing: Promise<void> = Promise.resolve();
  const flush = async () => {
    await writing;
    if (gatheredBytes === 0) return;
    writing = writeFully(file, gathered, written);
    writing.catch(() => {}); // awaited by the next flush; must not count as unhandled before
    written += gatheredBytes;
    gathered = [];
    gatheredBytes = 0;
  };
  try {
    for await (const chunk of body) {
      if (chunk.length === 0) continue;
      gathered.push(chunk);
      gatheredBytes += chunk.length;
      if (gatheredBytes >= WRITE_BYTES) await flush();
    }
    await flush();
  } finally {
    await writing; // the file must not be closed under a write
  }
  return written;
}

async function writeFully(file: FileHandle, buffers: Uint8Array[], position: number): Promise<void> {
  let { bytesWritten } = await file.writev(buffers, position);
  for (const buffer of buffers) {
    let offset = Math.min(bytesWritten, buffer.length);
    bytesWritten -= offset;
    position += offset;
    // A short write is rare (a signal, a nearly full disk): finish it buffer by buffer.
    while (offset < buffer.length) {
      const step = await file.write(buffer, offset, buffer.length - offset, position);
      offset += step.bytesWritten;
      position += step.bytesWritten;
    }
  }
}

function streamSlice(file: FileHandle, slice: BlobSlice): Readable {
  return file.createReadStream({ start: slice.start, end: slice.end - 1, highWaterMark: READ_BYTES });
}

async function removeIfPresent(path: string): Promise<void> {
  await unlink(path).catch(() => {});
}

/** Makes the entries of a directory durable. Windows cannot open directories and needs no such step. */
async function syncDirectory(path: string): Promise<void> {
  if (process.platform !== 'win32') await syncPath(path, 'r');
}

async function syncPath(path: string, flags: 'r' | 'r+'): Promise<void> {
  const file = await open(path, flags);
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
