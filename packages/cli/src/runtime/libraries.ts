import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EXIT_CODE } from '../exit-code.ts';
import { printDone, printStep } from '../render/step-lines.ts';
import { UserError } from '../user-error.ts';
import type { Installer } from './installer.ts';
import { inspectInterpreter } from './interpreter.ts';
import { runTool } from './run-tool.ts';

/** The libraries in training of this clone, the one that needs no compiler first. */
const LIBRARIES = [
  { folder: 'parallel', distribution: 'trainyard-parallel' },
  { folder: 'collective', distribution: 'trainyard-collective' },
] as const;

/** What a build must not depend on, though it lies in the library's folder. */
const LEFT_OUT = new Set(['build', 'tests', 'script', '__pycache__', '.pytest_cache', '.ruff_cache']);

/** PEP 517's hook, called in the interpreter that the wheel is for: it finds that interpreter's torch. */
const BUILD = 'import build_backend, sys; print(build_backend.build_wheel(sys.argv[1]))';

/**
 * Builds `libs/parallel` and `libs/collective` of this clone for an interpreter and installs them there. A wheel is kept by its sources,
 * its interpreter and its torch, so a second time costs nothing.
 *
 * @param wheels folder of the kept wheels
 * @throws UserError without a clone, without a C++ compiler, and when a build fails, with the reason
 */
export async function installLibraries(python: string, wheels: string, installer: Installer): Promise<void> {
  const libs = findLibraries(fileURLToPath(import.meta.url));
  if (libs === null) {
    throw new UserError(
      'The libraries are built from the folder libs/ of a clone of Trainyard, and this command does not run from one. Install their wheels with pip instead.',
      EXIT_CODE.unavailable,
    );
  }
  for (const { folder, distribution } of LIBRARIES) {
    const facts = await inspectInterpreter(python, ['torch', distribution]);
    if (facts === null) throw new UserError(`${python} does not run.`, EXIT_CODE.unavailable);
    const key = buildKey(
      join(libs, folder),
      `${facts.pythonVersion} ${facts.versions['torch']} ${process.arch}`,
    );
    const cache = join(wheels, `${folder}-${key}`);
    const isInstalled =
      facts.versions[distribution] !== undefined && installedKey(python, distribution) === key;
    if (isInstalled) {
      printDone(process.stdout, distribution, `${facts.versions[distribution]} is installed`);
      continue;
    }
    const wheel =
      wheelIn(cache) ??
      (await printStep(process.stdout, `building ${distribution}`, () =>
        build(python, join(libs, folder), cache),
      ));
    await printStep(process.stdout, distribution, async () => {
      const { ok, output } = await installer.install(python, [wheel], { reinstall: true });
      if (!ok) throw new UserError(`Installing ${wheel} failed:\n  ${output.trimEnd()}`, EXIT_CODE.failed);
      writeFileSync(keyFile(python, distribution), key);
    });
    removeOthers(wheels, folder, key);
  }
}

/** The folder `libs` of the clone that a file belongs to; null outside a clone. */
export function findLibraries(file: string): string | null {
  for (let folder = dirname(file); folder !== dirname(folder); folder = dirname(folder)) {
    if (existsSync(join(folder, 'libs', 'collective', 'pyproject.toml'))) return join(folder, 'libs');
  }
  return null;
}

/** Changes with every source file of a library and with what it is built for. */
export function buildKey(library: string, builtFor: string): string {
  const hash = createHash('sha256').update(builtFor);
  for (const path of filesBelow(library).sort()) {
    hash.update(`\0${relative(library, path)}\0`).update(readFileSync(path));
  }
  return hash.digest('hex').slice(0, 16);
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (LEFT_OUT.has(entry.name)) return [];
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesBelow(path) : /\.(so|pyc|md)$/.test(entry.name) ? [] : [path];
  });
}

async function build(python: string, library: string, cache: string): Promise<string> {
  const draft = `${cache}.${process.pid}.tmp`;
  const wheelFolder = join(draft, 'wheel');
  const objects = join(dirname(cache), 'objects');
  rmSync(draft, { recursive: true, force: true });
  for (const folder of [wheelFolder, join(draft, 'build'), objects]) mkdirSync(folder, { recursive: true });
  // Two builds at once share the objects, which are files by content, and nothing else.
  symlinkSync(objects, join(draft, 'build', 'objects'));
  try {
    const { ok, output } = await runTool(python, ['-c', BUILD, wheelFolder], {
      TRAINYARD_COLLECTIVE_BUILD_DIR: join(draft, 'build'),
      PYTHONDONTWRITEBYTECODE: '1',
      PYTHONPATH: library,
    });
    if (!ok) {
      throw new UserError(
        `Building ${library} failed: ${reasonOf(output)}\nThen run again: trainyard setup --libraries`,
        EXIT_CODE.unavailable,
      );
    }
    rmSync(cache, { recursive: true, force: true });
    renameSync(wheelFolder, cache);
    return wheelIn(cache)!;
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

/** The message of the build's own error; of anything else the last lines. */
export function reasonOf(output: string): string {
  const own = /^build_backend\.BuildError: ([\s\S]+)$/m.exec(output)?.[1];
  return (own ?? output).trimEnd().split('\n').slice(-15).join('\n  ');
}

function wheelIn(folder: string): string | null {
  const names = existsSync(folder) ? readdirSync(folder) : [];
  const name = names.find((each) => each.endsWith('.whl'));
  return name === undefined ? null : join(folder, name);
}

/** Wheels of earlier sources are of no use to anyone. */
function removeOthers(wheels: string, folder: string, key: string): void {
  const isWheelFolder = new RegExp(`^${folder}-[0-9a-f]{16}$`);
  for (const name of readdirSync(wheels)) {
    if (isWheelFolder.test(name) && name !== `${folder}-${key}`)
      rmSync(join(wheels, name), { recursive: true, force: true });
  }
}

/** Beside the environment's interpreter: goes with it. */
function keyFile(python: string, distribution: string): string {
  return join(dirname(dirname(python)), `.${distribution}.key`);
}

function installedKey(python: string, distribution: string): string | null {
  try {
    return readFileSync(keyFile(python, distribution), 'utf8');
  } catch {
    return null;
  }
}
