import { randomFillSync } from 'node:crypto';
import { rmSync, statfsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Enough for the rows that end every running job. */
const RESERVE_BYTES = 8 << 20;
/** Free space that there must be before some of it is held back. */
const NEEDED_BYTES = 4 * RESERVE_BYTES;
const SQLITE_FULL = 13;
/** With less nothing can be started: a probe of the isolation would fail for want of space and look like a verdict. */
const LEAST_BYTES = 2 << 20;

/** Whether a file system or SQLite said so. */
export function isDiskFull(error: unknown): boolean {
  const { code, errcode } = (error ?? {}) as { code?: unknown; errcode?: unknown };
  return code === 'ENOSPC' || code === 'EDQUOT' || errcode === SQLITE_FULL;
}

/**
 * Space on the disk of the data directory that is held back. A job that fills the disk frees it by its end, but only
 * when that end can be written down: the reserve is given to the database then, and taken again when there is room.
 */
export class DiskReserve {
  readonly #path: string;
  #state: 'absent' | 'writing' | 'held' = 'absent';

  constructor(path: string) {
    this.#path = path;
    this.release();
  }

  /** @throws Error with code ENOSPC when there is too little to begin with, even without the reserve */
  checkStart(): void {
    const free = this.#freeBytes();
    if (free >= LEAST_BYTES) return;
    const message = `the disk of ${dirname(this.#path)} is full: ${free} bytes free, ${LEAST_BYTES} needed`;
    throw Object.assign(new Error(message), { code: 'ENOSPC' });
  }

  release(): void {
    if (this.#state === 'writing') return;
    rmSync(this.#path, { force: true });
    this.#state = 'absent';
  }

  /** Takes it where there is room. Never throws: without a reserve everything works but the worst case. */
  async hold(): Promise<void> {
    if (this.#state !== 'absent' || this.#freeBytes() < NEEDED_BYTES) return;
    this.#state = 'writing';
    try {
      // Random: file systems that compress would keep nothing back for zeros.
      await writeFile(this.#path, randomFillSync(Buffer.allocUnsafe(RESERVE_BYTES)), { mode: 0o600 });
      this.#state = 'held';
    } catch {
      this.#state = 'absent';
      this.release();
    }
  }

  #freeBytes(): number {
    try {
      const { bavail, bsize } = statfsSync(dirname(this.#path));
      return bavail * bsize;
    } catch {
      return 0;
    }
  }
}
