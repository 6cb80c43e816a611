import { readdir, readFile, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** The packages of an interpreter, read from its file tree: importing one just to know its version takes a second. */
export interface RuntimePackages {
  /** `python3.11`. */
  pythonName: string;
  siteDirectories: string[];
  /** Normalised name (`[-_.]+` → `-`, lower case) → version. */
  versions: Map<string, string>;
  /** `torch.__version__` with its local part, e.g. `2.13.0+cpu`; null without torch. */
  torchVersion: string | null;
}

export async function readRuntimePackages(python: string): Promise<RuntimePackages> {
  const prefix = dirname(dirname(python));
  const likely = [join(prefix, 'lib'), join(prefix, 'local', 'lib'), join(prefix, 'lib64')];
  // lib64 is often a link to lib.
  const roots = [...new Set(await Promise.all(likely.map((path) => realpath(path).catch(() => path))))];
  const names = await Promise.all(
    roots.map(async (root) => (await list(root)).filter((name) => name.startsWith('python3'))),
  );
  const candidates = roots.flatMap((root, index) =>
    names[index]!.flatMap((name) => [join(root, name, 'site-packages'), join(root, name, 'dist-packages')]),
  );
  const found = await Promise.all(
    candidates.map(async (path) => ({ path, versions: await distributions(path) })),
  );
  const sites = found.filter((site) => site.versions.size > 0);
  const torchTexts = await Promise.all(
    sites.map(({ path }) => readFile(join(path, 'torch', 'version.py'), 'utf8').catch(() => '')),
  );
  return {
    pythonName: names.flat().find((name) => /^python3\.\d+$/.test(name)) ?? 'python3',
    siteDirectories: sites.map((site) => site.path),
    versions: new Map(sites.toReversed().flatMap((site) => [...site.versions])),
    torchVersion: torchTexts.map(torchVersionOf).find((version) => version !== null) ?? null,
  };
}

export function torchVersionOf(versionFile: string): string | null {
  return /^__version__(?:\s*:\s*\w+)?\s*=\s*'([^']+)'/m.exec(versionFile)?.[1] ?? null;
}

/** Name → version of the `*.dist-info` and `*.egg-info` entries of a site directory. */
export async function distributions(site: string): Promise<Map<string, string>> {
  const versions = new Map<string, string>();
  for (const entry of await list(site)) {
    const match = /^(.+?)-([^-]+?)(?:-py[\d.]+)?\.(?:dist|egg)-info$/.exec(entry);
    if (match) versions.set(normaliseName(match[1]!), match[2]!);
  }
  return versions;
}

/** One spelling per project name, as PEP 503 has it. */
export const normaliseName = (name: string): string => name.toLowerCase().replace(/[-_.]+/g, '-');

const list = (path: string): Promise<string[]> => readdir(path).catch(() => []);
