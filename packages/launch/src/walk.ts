import { lstat, readdir, realpath, stat } from 'node:fs/promises';
import { join, sep } from 'node:path';

export interface FoundFile {
  /** Relative POSIX path. */
  path: string;
  sizeBytes: number;
  mtimeMs: number;
}

/**
 * The regular files below a directory, in order of path. A link counts as the file that it points to when that lies
 * below the directory as well; links that lead out, and links to directories, are left out, so that a script cannot
 * have files of the host packed. Files that vanish meanwhile are left out too.
 */
export async function walkFiles(root: string): Promise<FoundFile[]> {
  const real = await realpath(root).catch(() => null);
  if (real === null) return [];
  const found: FoundFile[] = [];
  await walk(real, '', found);
  return found.sort((a, b) => (a.path < b.path ? -1 : 1));

  async function walk(directory: string, prefix: string, files: FoundFile[]): Promise<void> {
    const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      const path = join(directory, entry.name);
      const relative = prefix + entry.name;
      if (entry.isDirectory()) await walk(path, `${relative}/`, files);
      else if (entry.isFile()) add(relative, await lstat(path).catch(() => null));
      else if (entry.isSymbolicLink() && (await isInside(path)))
        add(relative, await stat(path).catch(() => null));
    }
  }

  function add(path: string, status: { isFile(): boolean; size: number; mtimeMs: number } | null): void {
    if (status?.isFile()) found.push({ path, sizeBytes: status.size, mtimeMs: status.mtimeMs });
  }

  async function isInside(link: string): Promise<boolean> {
    const target = await realpath(link).catch(() => null);
    return target?.startsWith(real + sep) ?? false;
  }
}
