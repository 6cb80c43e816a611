import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { S3Client } from '@trainyard/api';
import { parseS3Uri, ServiceError } from '@trainyard/api';
import type { AgentLog } from './agent-log.ts';
import { replaceFile } from './atomic-file.ts';
import { listAll } from './channels.ts';
import { formatBytes, formatSeconds, plural } from './clock.ts';
import { downloadFiles, isFinal, isRefusal } from './download.ts';
import { HostFailure } from './host-failure.ts';
import { filesOf } from './object-paths.ts';
import { mapPool } from './pool.ts';
import { retryForever } from './retry.ts';
import { readJson } from './state.ts';
import { uploadFile } from './upload.ts';
import type { FoundFile } from './walk.ts';
import { walkFiles } from './walk.ts';

/** A file as this host last saw it in step with the store. */
interface SyncedFile {
  sizeBytes: number;
  mtimeMs: number;
  /** Of the object that this host put in this attempt; null for a file that was restored. */
  etag: string | null;
}

type SyncedFiles = Record<string, SyncedFile>;

export interface CheckpointDeps {
  s3Uri: string;
  directory: string;
  /** On the same file system as `directory`. */
  partialDirectory: string;
  statePath: string;
  s3: Pick<
    S3Client,
    'listObjects' | 'getObject' | 'headObject' | 'putObject' | 'uploadMultipart' | 'deleteObject'
  >;
  log: AgentLog;
}

const SCAN_MS = 1000;
const CONCURRENCY = 4;

/**
 * Keeps the job's checkpoints in the store: restored before the start, then every file that is complete goes up
 * while the script runs. All hosts share one prefix. So a host deletes only an object that it put itself in this
 * attempt, whose file it saw go away, and that nobody has replaced since.
 */
export class Checkpoints {
  readonly #deps: CheckpointDeps;
  readonly #bucket: string;
  readonly #prefix: string;
  readonly #synced: SyncedFiles;
  /** Of the scan before; a file that looks the same twice is complete. */
  #seen = new Map<string, FoundFile>();

  constructor(deps: CheckpointDeps) {
    this.#deps = deps;
    const { bucket, key } = parseS3Uri(deps.s3Uri);
    this.#bucket = bucket;
    this.#prefix = key === '' || key.endsWith('/') ? key : `${key}/`;
    this.#synced = readJson<SyncedFiles>(deps.statePath) ?? {};
  }

  /** Brings what earlier attempts or jobs left. @throws HostFailure */
  async restore(signal: AbortSignal): Promise<void> {
    const { s3, s3Uri, directory, partialDirectory, log } = this.#deps;
    const started = performance.now();
    try {
      const list = (): ReturnType<typeof listAll> => listAll({ s3, signal }, this.#bucket, this.#prefix);
      const objects = await retryForever(list, { signal, isFinal });
      const files = filesOf(objects, (key) => key.slice(this.#prefix.length), 'Checkpoints');
      const result = await downloadFiles(files, {
        s3,
        bucket: this.#bucket,
        directory,
        partialDirectory,
        signal,
      });
      for (const { path } of files) {
        const { size, mtimeMs } = await stat(join(directory, path));
        this.#synced[path] ??= { sizeBytes: size, mtimeMs, etag: null };
      }
      await this.#save();
      if (files.length === 0) return;
      const took = formatSeconds(performance.now() - started);
      log.say(
        `Restored checkpoints: ${plural(result.files, 'file')}, ${formatBytes(result.sizeBytes)} in ${took}`,
      );
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      throw new HostFailure(
        'ClientError',
        `Failed to restore checkpoints from ${s3Uri}: ${error.code}: ${error.message}`,
        error,
      );
    }
  }

  /** Syncs until aborted. Trouble with the store is said once and tried again at the next scan. */
  async run(signal: AbortSignal): Promise<void> {
    let troubled = false;
    while (!signal.aborted) {
      await sleep(SCAN_MS, undefined, { signal }).catch(() => {});
      if (signal.aborted) return;
      try {
        await this.#scan(false);
        troubled = false;
      } catch (error) {
        if (!troubled) this.#deps.log.say(`Checkpoints cannot be saved now: ${String(error)}; trying again`);
        troubled = true;
      }
    }
  }

  /** The script has ended: every file is complete. Tried until it works. @throws HostFailure when the store refuses */
  async finish(): Promise<void> {
    const started = performance.now();
    try {
      const count = await retryForever(() => this.#scan(true), { isFinal });
      if (count === 0) return;
      this.#deps.log.say(
        `Saved ${plural(count, 'checkpoint file')} in ${formatSeconds(performance.now() - started)}`,
      );
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      throw new HostFailure(
        'ClientError',
        `Failed to save checkpoints to ${this.#deps.s3Uri}: ${text}`,
        error,
      );
    }
  }

  /** @returns number of files uploaded */
  async #scan(isLast: boolean): Promise<number> {
    const found = await walkFiles(this.#deps.directory);
    const before = this.#seen;
    this.#seen = new Map(found.map((file) => [file.path, file]));
    const changed = found.filter((file) => !sameAs(this.#synced[file.path], file));
    const complete = changed.filter((file) => isLast || sameAs(before.get(file.path), file));
    const uploaded = await mapPool(complete, CONCURRENCY, (file) => this.#upload(file));
    const gone = Object.entries(this.#synced).filter(([path]) => !this.#seen.has(path));
    // What the script removed while it ran is meant to go; what is missing afterwards may be a broken disk.
    if (!isLast) await mapPool(gone, CONCURRENCY, ([path, file]) => this.#remove(path, file));
    return uploaded.filter((done) => done).length;
  }

  async #upload(file: FoundFile): Promise<boolean> {
    const path = join(this.#deps.directory, file.path);
    const target = { bucket: this.#bucket, key: this.#prefix + file.path };
    let etag: string;
    try {
      etag = await uploadFile(this.#deps.s3, target, path);
    } catch (error) {
      // A rotating script may have removed it, or written on; the next scan sees.
      const now = await stat(path).catch(() => null);
      if (!now || now.size !== file.sizeBytes || now.mtimeMs !== file.mtimeMs) return false;
      throw error;
    }
    this.#synced[file.path] = { sizeBytes: file.sizeBytes, mtimeMs: file.mtimeMs, etag };
    await this.#save();
    return true;
  }

  async #remove(path: string, file: SyncedFile): Promise<void> {
    const target = { bucket: this.#bucket, key: this.#prefix + path };
    if (file.etag !== null) {
      const current = await this.#deps.s3.headObject(target).catch((error: unknown) => {
        if (isRefusal(error)) return null;
        throw error;
      });
      // Another host may have put the same key since: then it is that host's.
      if (current?.etag === file.etag) await this.#deps.s3.deleteObject(target);
    }
    delete this.#synced[path];
    await this.#save();
  }

  async #save(): Promise<void> {
    try {
      await replaceFile(this.#deps.statePath, JSON.stringify(this.#synced));
    } catch (error) {
      // With a full disk checkpoints still go up; an agent after this one would send them again.
      console.error(`cannot keep the record of checkpoints: ${String(error)}`);
    }
  }
}

const sameAs = (a: { sizeBytes: number; mtimeMs: number } | undefined, b: FoundFile): boolean =>
  a?.sizeBytes === b.sizeBytes && a.mtimeMs === b.mtimeMs;
