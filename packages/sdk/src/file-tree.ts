import type { Stats } from 'node:fs';
import { lstat, readdir, realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';

export interface TreeEntry {
  /** `name` of the root, and below it with `/`. */
  name: string;
  path: string;
  stats: Stats;
}

/** A path that cannot be followed; the caller knows which option it came from. */
export class UnreadableTree extends Error {
  override readonly name = 'UnreadableTree';
  readonly path: string;

  constructor(path: string, problem: string) {
    super(problem);
    this.path = path;
  }
}

/**
 * Files and directories at and below a path, in no order, links followed; children with an ignored name are left out. Sockets, pipes and devices are left out.
 * @throws UnreadableTree for a missing path, a link that leads nowhere and one that leads to a directory above it.
 */
export async function* fileTree(
  root: string,
  name: string,
  isIgnored: (name: string) => boolean = () => false,
): AsyncGenerator<TreeEntry> {
  const pending = [{ name, path: root, above: new Set<string>() }];
  for (let next = pending.pop(); next; next = pending.pop()) {
    const { path, above } = next;
    const stats = await stat(path).catch(() => null);
    if (stats === null) {
      const isLink = await lstat(path).then(
        () => true,
        () => false,
      );
      throw new UnreadableTree(
        path,
        isLink ? `The link ${path} leads nowhere.` : 'There is no such file or directory.',
      );
    }
    if (stats.isFile() || stats.isDirectory()) yield { name: next.name, path, stats };
    if (!stats.isDirectory()) continue;
    const real = await realpath(path);
    if (above.has(real))
      throw new UnreadableTree(path, `The link ${path} leads to a directory that holds it.`);
    for (const child of await readdir(path)) {
      if (isIgnored(child)) continue;
      const childName = next.name === '' ? child : `${next.name}/${child}`;
      pending.push({ name: childName, path: join(path, child), above: new Set([...above, real]) });
    }
  }
}

/** Whether a name matches one of the patterns: `*` for any text, `?` for one character. */
export function nameMatcher(patterns: readonly string[]): (name: string) => boolean {
  const texts = patterns.map((pattern) =>
    pattern
      .replace(/[.+^${}()|[\]\\]/g, '\\$&')
      .replaceAll('*', '.*')
      .replaceAll('?', '.'),
  );
  const expression = new RegExp(`^(?:${texts.join('|')})$`, 's');
  return (name) => patterns.length > 0 && expression.test(name);
}
