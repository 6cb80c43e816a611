import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * Name (lower case, `-` for `_` and `.`) → version of the distributions in an interpreter's own environment, read from its folder: asking the
 * interpreter would take a tenth of a second for each job. Null where that folder does not tell: it is no virtual environment, or one
 * that also sees the system's packages.
 */
export function installedPackages(python: string): Map<string, string> | null {
  const prefix = dirname(dirname(python));
  try {
    const settings = readFileSync(join(prefix, 'pyvenv.cfg'), 'utf8');
    if (/^include-system-site-packages\s*=\s*true/im.test(settings)) return null;
    const versions = readdirSync(join(prefix, 'lib')).filter((name) => /^python3\.\d+$/.test(name));
    const entries = versions.flatMap((name) => readdirSync(join(prefix, 'lib', name, 'site-packages')));
    return new Map(
      entries.flatMap((entry) => {
        const match = /^(.+?)-([^-]+)\.dist-info$/.exec(entry);
        return match ? [[match[1]!.toLowerCase().replace(/[-_.]+/g, '-'), match[2]!] as const] : [];
      }),
    );
  } catch {
    return null;
  }
}
