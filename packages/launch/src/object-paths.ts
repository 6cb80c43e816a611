import { HostFailure } from './host-failure.ts';

export interface ObjectFile {
  key: string;
  sizeBytes: number;
  etag: string;
  /** Relative to the channel's directory; null for a folder marker that needs no file. */
  path: string;
}

const MAX_NAME_BYTES = 255;

/**
 * Where an object of a prefix lies below the channel's directory. A prefix that is a whole folder name is left
 * out: below `s3://b/data/train` the object `data/train/a.csv` becomes `a.csv`. A prefix that cuts a name keeps
 * the name: below `s3://b/data/tr` it becomes `train/a.csv`; and an object that is the prefix becomes its last name.
 */
export function pathOfKey(prefix: string, key: string): string {
  const folder = prefix === '' || prefix.endsWith('/') ? prefix : `${prefix}/`;
  if (key.startsWith(folder)) return key.slice(folder.length);
  return key.slice(prefix.lastIndexOf('/') + 1);
}

/** @throws HostFailure naming the key that cannot be a path below a directory */
export function checkPath(path: string, key: string, where: string): void {
  const segments = path.split('/');
  const problem = path.includes('\0')
    ? 'has a zero byte in its name'
    : segments.some((segment) => segment === '..' || segment === '.')
      ? 'has a "." or ".." in its path'
      : segments.some((segment) => segment === '')
        ? 'has an empty folder name'
        : segments.some((segment) => Buffer.byteLength(segment) > MAX_NAME_BYTES)
          ? `has a name longer than ${MAX_NAME_BYTES} bytes`
          : null;
  if (problem) {
    throw new HostFailure(
      'ClientError',
      `Failed to download data. ${where}: the key ${JSON.stringify(key)} ${problem}, so it cannot become a file. Rename or remove the object.`,
    );
  }
}

/**
 * The files of a list of objects: folder markers (keys that end in `/`) become nothing, every path is checked,
 * and no path is both a file and a folder.
 *
 * @throws HostFailure naming the keys
 */
export function filesOf(
  objects: readonly { key: string; sizeBytes: number; etag: string }[],
  pathOf: (key: string) => string,
  where: string,
): ObjectFile[] {
  const files = objects
    .map((object) => ({ ...object, path: pathOf(object.key) }))
    .filter(({ path }) => path !== '' && !path.endsWith('/'));
  const byPath = new Map<string, ObjectFile>();
  for (const file of files) {
    checkPath(file.path, file.key, where);
    const other = byPath.get(file.path);
    if (other) throw conflict(where, other.key, file.key, `are both the file ${file.path}`);
    byPath.set(file.path, file);
  }
  for (const file of files) {
    for (let end = file.path.lastIndexOf('/'); end > 0; end = file.path.lastIndexOf('/', end - 1)) {
      const other = byPath.get(file.path.slice(0, end));
      if (other) throw conflict(where, other.key, file.key, `need ${other.path} as a file and as a folder`);
    }
  }
  return files;
}

const conflict = (where: string, one: string, other: string, what: string): HostFailure =>
  new HostFailure(
    'ClientError',
    `Failed to download data. ${where}: the objects ${JSON.stringify(one)} and ${JSON.stringify(other)} ${what}. Rename one of them.`,
  );

/** This host's share of a sharded channel: objects in key order, dealt one by one. */
export function shardOf<T>(sorted: readonly T[], hostIndex: number, hostCount: number): T[] {
  return sorted.filter((_, index) => index % hostCount === hostIndex);
}

/**
 * Reads a manifest: a JSON array that starts with `{"prefix": "s3://bucket/x/"}`, then relative keys.
 *
 * @throws HostFailure saying what is wrong with it
 */
export function readManifest(text: string, uri: string): { prefix: string; names: string[] } {
  const wrong = (what: string): HostFailure =>
    new HostFailure(
      'ClientError',
      `Failed to download data. The manifest ${uri} ${what}; it must be a JSON array like [{"prefix": "s3://bucket/folder/"}, "a.csv", "b/c.csv"].`,
    );
  let items: unknown;
  try {
    items = JSON.parse(text);
  } catch {
    throw wrong('is not JSON');
  }
  if (!Array.isArray(items)) throw wrong('is not an array');
  const [first, ...names] = items as unknown[];
  const prefix = (first as { prefix?: unknown } | undefined)?.prefix;
  if (typeof prefix !== 'string' || !prefix.startsWith('s3://')) throw wrong('does not start with a prefix');
  const bad = names.findIndex((name) => typeof name !== 'string' || name === '');
  if (bad >= 0) throw wrong(`has no key at position ${bad + 1}`);
  return { prefix, names: names as string[] };
}
