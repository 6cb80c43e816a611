import { type FSWatcher, mkdirSync, watch } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LogBatch, LogLine, LogReceipt } from '@trainyard/api';
import type { AgentLine } from './agent-log.ts';
import { replaceFile } from './atomic-file.ts';
import { cutLines } from './lines.ts';
import type { LogFileKind, LogFiles } from './log-files.ts';
import { describeLogFile } from './log-files.ts';
import type { TaggedText } from './mpi-tags.ts';
import { readJson } from './state.ts';

/** A stretch of one file that holds whole lines. */
interface Segment {
  file: string;
  start: number;
  end: number;
}

interface ShipperState {
  /** First byte of each file that is in no batch yet. */
  offsets: Record<string, number>;
  nextSeq: number;
  /** The batch on its way: where its lines stand, not the lines. */
  pending: { firstSeq: number; at: number; segments: Segment[] } | null;
}

export interface LogShipperDeps {
  files: LogFiles;
  /** Keeps {@link ShipperState}. */
  statePath: string;
  send: (batch: LogBatch) => Promise<LogReceipt>;
  /** Ranks and streams in a line of the launcher. */
  splitLauncherLine: (line: string, source: LogLine['source']) => TaggedText[];
  /** Every launcher line as it is read, once per agent. */
  onLauncherLine: (line: string) => void;
}

/** Above the longest line, so that a read always holds a whole one or a cut. */
const READ_BYTES = 320 * 1024;
const MAX_BATCH_BYTES = 512 * 1024;
const MAX_BATCH_LINES = 5000;
/** Lines written within this time share a batch. */
const GATHER_MS = 5;
/** Safety net where the file system gives no change events. */
const RESCAN_MS = 1000;

/**
 * Ships what the ranks, the launcher and the agent write, line by line, exactly once. All of it is in files, so
 * neither a crash of this process nor hours without the service lose a line.
 *
 * Before a batch goes out, the place of its lines in the files is written down together with its sequence number.
 * After a crash the same bytes give the same lines under the same numbers, and the service ignores the numbers
 * that it has.
 */
export class LogShipper {
  readonly #deps: LogShipperDeps;
  readonly #state: ShipperState;
  readonly #drained = new Set<() => void>();
  #changed = true;
  #wake = (): void => {};
  #flush = false;
  #turn = 0;

  constructor(deps: LogShipperDeps) {
    this.#deps = deps;
    this.#state = readJson<ShipperState>(deps.statePath) ?? { offsets: {}, nextSeq: 0, pending: null };
    mkdirSync(deps.files.ranks, { recursive: true });
  }

  /** Ships until aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const watchers = [this.#deps.files.directory, this.#deps.files.ranks].map((path) => this.#watch(path));
    try {
      while (!signal.aborted) await this.#turnOnce(signal);
    } finally {
      for (const watcher of watchers) watcher?.close();
    }
  }

  async #turnOnce(signal: AbortSignal): Promise<void> {
    if (!this.#changed) await this.#change(signal);
    this.#changed = false;
    if (this.#drained.size === 0) await sleep(GATHER_MS);
    const waiting = [...this.#drained];
    if (await this.#shipNext()) {
      this.#changed = true;
      return;
    }
    for (const resolve of waiting) {
      this.#drained.delete(resolve);
      resolve();
    }
  }

  /** No process writes any more: from now on a last line without an end is a line too. */
  endOutput(): void {
    this.#flush = true;
    this.#notify();
  }

  /** Resolves when the service has every line that was written before the call. */
  drain(): Promise<void> {
    return new Promise((resolve) => {
      this.#drained.add(resolve);
      this.#notify();
    });
  }

  #watch(path: string): FSWatcher | null {
    try {
      return watch(path, { persistent: false }, () => this.#notify()).on('error', () => {});
    } catch {
      // No inotify left: the rescan carries on.
      return null;
    }
  }

  #notify(): void {
    this.#changed = true;
    this.#wake();
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(done, RESCAN_MS);
      function done(): void {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      }
      signal.addEventListener('abort', done);
      this.#wake = done;
    });
  }

  /** @returns whether there was anything */
  async #shipNext(): Promise<boolean> {
    const state = this.#state;
    const batch = state.pending ? await this.#rebuild(state.pending) : await this.#gather();
    if (!batch) return false;
    state.nextSeq = await this.#deliver(batch);
    state.pending = null;
    return true;
  }

  /** @returns the number of the next line */
  async #deliver(batch: LogBatch): Promise<number> {
    let { firstSeq, lines } = batch;
    while (lines.length > 0) {
      const { nextSeq } = await this.#deps.send({ firstSeq, lines });
      // A service whose store was put back to an earlier time expects a lower number: then ours are renumbered.
      lines = lines.slice(Math.max(0, nextSeq - firstSeq));
      if (nextSeq === firstSeq && lines.length > 0) await sleep(RESCAN_MS);
      firstSeq = nextSeq;
    }
    return firstSeq;
  }

  async #gather(): Promise<LogBatch | null> {
    const { files, statePath } = this.#deps;
    const state = this.#state;
    const at = Date.now();
    const segments: Segment[] = [];
    const lines: LogLine[] = [];
    let bytes = 0;
    const names = await files.list();
    // Each turn begins with another file, so that one that never stops does not keep the others back.
    const turn = (this.#turn += 1) % Math.max(1, names.length);
    for (const file of [...names.slice(turn), ...names.slice(0, turn)]) {
      if (bytes >= MAX_BATCH_BYTES || lines.length >= MAX_BATCH_LINES) break;
      const start = state.offsets[file] ?? 0;
      const found = await this.#read(file, start, READ_BYTES);
      if (found.length === 0) continue;
      const atEnd = found.length < READ_BYTES;
      const cut = cutLines(found, { flush: this.#flush && atEnd, maxLines: MAX_BATCH_LINES - lines.length });
      if (cut.consumed === 0) continue;
      segments.push({ file, start, end: start + cut.consumed });
      state.offsets[file] = start + cut.consumed;
      bytes += cut.consumed;
      lines.push(...this.#decode(file, cut.lines, at, true));
    }
    if (segments.length === 0) return null;
    state.pending = { firstSeq: state.nextSeq, at, segments };
    await replaceFile(statePath, JSON.stringify(state)).catch((error: unknown) => {
      // With a full disk lines still go out; only a crash now could send them twice.
      console.error(`cannot keep the place in the logs: ${String(error)}`);
    });
    return { firstSeq: state.nextSeq, lines };
  }

  async #rebuild(pending: NonNullable<ShipperState['pending']>): Promise<LogBatch> {
    const lines: LogLine[] = [];
    for (const { file, start, end } of pending.segments) {
      const bytes = await this.#read(file, start, end - start);
      const cut = cutLines(bytes, { flush: true, maxLines: MAX_BATCH_LINES });
      lines.push(...this.#decode(file, cut.lines, pending.at, false));
    }
    return { firstSeq: pending.firstSeq, lines };
  }

  #decode(file: string, lines: readonly string[], at: number, isNew: boolean): LogLine[] {
    const kind = describeLogFile(file) as LogFileKind;
    if (kind.form === 'json') {
      return lines.map((line): LogLine => {
        const { at: said, message } = readAgentLine(line, at);
        return { at: said, source: 'agent', rank: null, message };
      });
    }
    if (kind.form === 'plain')
      return lines.map((message) => ({ at, source: kind.source, rank: kind.rank, message }));
    return lines.flatMap((line) => {
      if (isNew) this.#deps.onLauncherLine(line);
      return this.#deps
        .splitLauncherLine(line, kind.source)
        .map(({ rank, source, message }) => ({ at, source, rank, message }));
    });
  }

  async #read(file: string, start: number, length: number): Promise<Buffer> {
    const path = join(this.#deps.files.directory, file);
    const { size } = await stat(path);
    const wanted = Math.min(length, size - start);
    if (wanted <= 0) return Buffer.alloc(0);
    const handle = await open(path, 'r');
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(wanted), 0, wanted, start);
      return buffer.subarray(0, bytesRead);
    } finally {
      await handle.close();
    }
  }
}

/** A full disk may have left a part of a line. */
function readAgentLine(line: string, at: number): AgentLine {
  try {
    return JSON.parse(line) as AgentLine;
  } catch {
    return { at, message: line };
  }
}
