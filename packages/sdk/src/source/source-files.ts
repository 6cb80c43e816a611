import { readdir, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { InvalidOption } from '../errors.ts';
import type { TreeEntry } from '../file-tree.ts';
import { fileTree, UnreadableTree } from '../file-tree.ts';

/** What to pack, all paths local. */
export interface SourceSelection {
  /** Script as the user wrote it: relative to `sourceDir` when there is one. */
  entryPoint: string;
  sourceDir: string | null;
  /** Files and directories put beside the script under their own name. */
  dependencies: readonly string[];
}

/**
 * The members of `sourcedir.tar.gz`, sorted by name: every file of the source directory (hidden ones too), or the
 * script alone, and the dependencies.
 * @throws InvalidOption (`E-SRC`) when something that the user named is not there, or two members have one name.
 */
export async function listSourceFiles(selection: SourceSelection): Promise<TreeEntry[]> {
  const found = new Map<string, TreeEntry>();
  const add = async (name: string, path: string, field: string): Promise<void> => {
    try {
      for await (const entry of fileTree(path, name)) found.set(entry.name, entry);
    } catch (error) {
      if (!(error instanceof UnreadableTree)) throw error;
      throw invalid(field, path, error.message, `Looked at ${resolve(error.path)}.`);
    }
  };
  if (selection.sourceDir === null) {
    await add(basename(selection.entryPoint), selection.entryPoint, 'entryPoint');
  } else {
    await checkEntryPoint(selection.sourceDir, selection.entryPoint);
    for (const child of await readdir(selection.sourceDir)) {
      await add(child, join(selection.sourceDir, child), 'sourceDir');
    }
  }
  for (const [index, dependency] of selection.dependencies.entries()) {
    const name = basename(resolve(dependency));
    const other = found.get(name);
    if (other) {
      const rule = `${other.path} has the same name in the archive.`;
      throw invalid(`dependencies[${index}]`, dependency, rule, 'Rename one of them.');
    }
    await add(name, dependency, `dependencies[${index}]`);
  }
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

async function checkEntryPoint(sourceDir: string, entryPoint: string): Promise<void> {
  const directory = await stat(sourceDir).catch(() => null);
  if (!directory?.isDirectory()) {
    throw invalid('sourceDir', sourceDir, 'There is no such directory.', `Looked at ${resolve(sourceDir)}.`);
  }
  const script = await stat(join(sourceDir, entryPoint)).catch(() => null);
  const isInside = !/^\/|(^|\/)\.\.(\/|$)/.test(entryPoint);
  if (script?.isFile() && isInside) return;
  const nextStep = `Give its path relative to ${resolve(sourceDir)}.`;
  throw invalid('entryPoint', entryPoint, `There is no such file in sourceDir ${sourceDir}.`, nextStep);
}

function invalid(field: string, value: string, rule: string, nextStep: string): InvalidOption {
  return new InvalidOption([{ id: 'E-SRC', field, value, rule, nextStep }]);
}
