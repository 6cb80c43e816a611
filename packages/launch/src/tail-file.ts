import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { RankOutput } from './failure.ts';
import type { LogFiles } from './log-files.ts';

const TAIL_BYTES = 256 * 1024;

/** The last part of a file as text, empty when there is none. */
export async function tailText(path: string, maxBytes = TAIL_BYTES): Promise<string> {
  const status = await stat(path).catch(() => null);
  if (!status) return '';
  const start = Math.max(0, status.size - maxBytes);
  const file = await open(path, 'r');
  try {
    const bytes = Buffer.alloc(status.size - start);
    const { bytesRead } = await file.read(bytes, 0, bytes.length, start);
    return bytes.toString('utf8', 0, bytesRead);
  } finally {
    await file.close();
  }
}

/** First characters of a file, null when there is none. */
export async function headText(path: string, maxCharacters: number): Promise<string | null> {
  const file = await open(path, 'r').catch(() => null);
  if (!file) return null;
  try {
    // A character takes at most four bytes.
    const bytes = Buffer.alloc(maxCharacters * 4);
    const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
    return Array.from(bytes.toString('utf8', 0, bytesRead))
      .slice(0, maxCharacters)
      .join('');
  } finally {
    await file.close();
  }
}

/** What each rank of this host wrote to its error stream at last. */
export async function rankErrors(files: LogFiles): Promise<RankOutput[]> {
  const names = await readdir(files.ranks).catch(() => []);
  const ranks = names.flatMap((name) => {
    const match = /^rank-(\d+)\.err$/.exec(name);
    return match ? [Number(match[1])] : [];
  });
  return Promise.all(
    ranks.map(async (rank) => {
      const path = join(files.ranks, `rank-${rank}.err`);
      const [text, status] = await Promise.all([tailText(path), stat(path)]);
      return { rank, text, writtenAt: Math.round(status.mtimeMs) };
    }),
  );
}
