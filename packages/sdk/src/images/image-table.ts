import type { Registry } from './registries.ts';

/** One training image of AWS: the version it has, and where it lies. */
export interface ImageVersion {
  version: string;
  /** Python versions of which one is chosen; the repository may depend on it, in another row. */
  pythons: readonly [string, ...string[]];
  repository: string;
  registry: Registry;
  /** Last part of the tag. */
  container?: string;
}

/** The images that one estimator chooses from. */
export interface ImageTable {
  /** As the user knows it: `PyTorch`. */
  title: string;
  /** Option by which the version was given. */
  field: string;
  /** Oldest first. */
  images: readonly ImageVersion[];
  processors: readonly Processor[];
  /** Short versions that do not stand for their newest patch. */
  aliases?: Readonly<Record<string, string>>;
}

/** Third part of a tag. */
export type Processor = 'cpu' | 'gpu' | 'neuron';

/** Rows of one repository that differ in their version only. */
export function imageRows(
  base: Omit<ImageVersion, 'version' | 'pythons'>,
  pythons: string,
  versions: string,
): ImageVersion[] {
  const [first = '', ...others] = pythons.split(' ');
  return versions.split(' ').map((version) => ({ ...base, version, pythons: [first, ...others] }));
}

/** The rows that a version names: its own, those of the newest patch of `x.y`, or of the nearest image of that `x.y`. */
export function findImages(table: ImageTable, version: string): ImageVersion[] {
  const of = (wanted: string): ImageVersion[] => table.images.filter((image) => image.version === wanted);
  const exact = of(table.aliases?.[version] ?? version);
  if (exact.length > 0) return exact;
  const minor = /^\d+\.\d+(?=$|\.)/.exec(version)?.[0];
  const nearest =
    minor === undefined ? undefined : table.images.findLast((image) => image.version.startsWith(`${minor}.`));
  return nearest ? of(nearest.version) : [];
}

/** Negative when `a` is older; missing parts count as 0. */
export function compareVersions(a: string, b: string): number {
  const left = a.split('.').map(Number);
  const right = b.split('.').map(Number);
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
