import { Readable } from 'node:stream';
import { createGzip } from 'node:zlib';
import type { TreeEntry } from '../file-tree.ts';
import type { Problem } from '../problem.ts';
import { listSourceFiles } from './source-files.ts';
import type { SourceSelection } from './source-files.ts';
import { tarArchive } from './tar.ts';

/** Above this a source directory probably holds data or an environment by mistake. */
const LARGE_SOURCE_BYTES = 100 * 2 ** 20;

export interface SourceArchive {
  /** `sourcedir.tar.gz`. */
  body: Blob;
  /** Names of all members, directories included, sorted. */
  members: string[];
  warnings: Problem[];
}

/** Packs the user's code as AWS's SDK does. @throws InvalidOption (`E-SRC`) when something is missing. */
export async function packSource(selection: SourceSelection): Promise<SourceArchive> {
  const files = await listSourceFiles(selection);
  const parts: BlobPart[] = [];
  for await (const chunk of Readable.from(tarArchive(files)).pipe(createGzip()))
    parts.push(chunk as Buffer<ArrayBuffer>);
  return {
    body: new Blob(parts),
    members: files.map((file) => file.name),
    warnings: largeSourceWarnings(selection, files),
  };
}

/** One warning, with the largest part, when much more than code is packed. */
export function largeSourceWarnings(
  selection: Pick<SourceSelection, 'sourceDir'>,
  files: readonly Pick<TreeEntry, 'name' | 'stats'>[],
): Problem[] {
  const sizes = new Map<string, number>();
  let total = 0;
  for (const file of files) {
    if (!file.stats.isFile()) continue;
    const top = file.name.split('/', 1)[0] ?? file.name;
    sizes.set(top, (sizes.get(top) ?? 0) + file.stats.size);
    total += file.stats.size;
  }
  if (total <= LARGE_SOURCE_BYTES) return [];
  const [largest = ['', 0]] = [...sizes].sort((a, b) => b[1] - a[1]);
  return [
    {
      id: 'W-SRC-LARGE',
      field: 'sourceDir',
      value: selection.sourceDir,
      rule: `It holds ${megabytes(total)} (${largest[0]}: ${megabytes(largest[1])}), all of which goes to every host.`,
      nextStep: 'Keep data and environments outside, and pass data as an input channel.',
    },
  ];
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}
