import { existsSync } from 'node:fs';
import { delimiter, dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { EXIT_CODE } from '../exit-code.ts';
import { printDone } from '../render/step-lines.ts';
import { findOwnInterpreter } from '../runtime/find-interpreter.ts';
import { firstVersion, inspectInterpreter, inspectMpi } from '../runtime/interpreter.ts';
import { installLibraries } from '../runtime/libraries.ts';
import { installerFor, installStep, makeRuntime } from '../runtime/make-runtime.ts';
import {
  defaultRuntimesDirectory,
  describeRuntime,
  readManifest,
  writeManifest,
  type RuntimeManifest,
} from '../runtime/manifest.ts';
import { type Extra, RECIPES, type Recipe } from '../runtime/recipe.ts';
import { UserError } from '../user-error.ts';

interface SetupOptions {
  runtime: string;
  runtimes: string;
  with: string[];
  libraries?: boolean;
  force?: boolean;
}

export function addSetup(program: Command): void {
  program
    .command('setup')
    .description('make a runtime: an interpreter with the framework in which jobs run on this machine')
    .option('--runtime <name>', `one of: ${Object.keys(RECIPES).join(', ')}`, 'pytorch')
    .option('--with <extra>', `add packages to it (repeat for more): ${extraNames()}`, collect, [])
    .option('--libraries', "build this clone's smdistributed libraries and install them in it")
    .option('--runtimes <dir>', 'where runtimes are kept (TRAINYARD_RUNTIMES)', defaultRuntimesDirectory())
    .option('--force', 'check and complete a runtime that exists')
    .addHelpText(
      'after',
      `
An interpreter that you name by TRAINYARD_PYTHON (for pytorch), or the active environment when it has the framework,
is taken as it is. Else an environment is made with uv or pip from the package index: the CPU build on a machine
without an NVIDIA device, Open MPI beside it. Nothing needs root, and a complete runtime is left alone. Runtimes stand
side by side; which image gets which is a table (trainyard doctor, docs/operate.md).`,
    )
    .action((options: SetupOptions) => setUp(options));
}

async function setUp(options: SetupOptions): Promise<void> {
  const { runtime: name } = options;
  const recipe = RECIPES[name];
  if (!recipe) throw new UserError(`--runtime is ${name}; known are ${Object.keys(RECIPES).join(', ')}.`);
  const extras = options.with.map((extra) => extraOf(name, recipe, extra));
  if (options.libraries && !recipe.distributions.includes('torch')) {
    throw new UserError(`--libraries is for the runtime pytorch; --runtime is ${name}.`);
  }
  const runtimes = resolve(options.runtimes);
  const folder = join(runtimes, name);
  const manifest = await ensureRuntime(name, recipe, folder, options.force ?? false);
  await addExtras(manifest.python, folder, recipe, extras);
  if (options.libraries) {
    const { installer } = await installerFor(recipe);
    await installLibraries(manifest.python, join(runtimes, '.wheels'), installer);
  }
}

async function ensureRuntime(
  name: string,
  recipe: Recipe,
  folder: string,
  force: boolean,
): Promise<RuntimeManifest> {
  const label = `runtime ${name}`;
  const existing = readManifest(folder);
  const isNamed = name === 'pytorch' && Boolean(process.env['TRAINYARD_PYTHON']);
  if (existing && !force && !isNamed && existsSync(existing.python)) {
    printDone(process.stdout, label, describeRuntime(existing));
    return existing;
  }
  const own = await findOwnInterpreter(name, recipe, process.env);
  // TRAINYARD_PYTHON works by being set, at any time; an active environment is gone tomorrow, so it is recorded.
  const manifest = await describe(name, recipe, own?.executable ?? (await makeRuntime(folder, recipe)));
  if (own?.foundBy !== 'TRAINYARD_PYTHON') writeManifest(folder, manifest);
  printDone(process.stdout, label, `${describeRuntime(manifest)}${own ? `, from ${own.foundBy}` : ''}`);
  return manifest;
}

async function describe(name: string, recipe: Recipe, python: string): Promise<RuntimeManifest> {
  const facts = await inspectInterpreter(python, recipe.distributions);
  const version = facts && firstVersion(facts, recipe.distributions);
  if (!version) throw new UserError(`${python} does not have ${recipe.distributions[0]}.`, EXIT_CODE.failed);
  const mpi = await inspectMpi(python);
  const systemPath = (process.env['PATH'] ?? '').split(delimiter);
  return {
    name,
    framework: recipe.framework,
    version,
    python,
    binDirs: [
      ...new Set([dirname(python), ...(mpi && !systemPath.includes(mpi.binDir) ? [mpi.binDir] : [])]),
    ],
    mpi: mpi && { name: mpi.name, version: mpi.version },
    createdAt: new Date().toISOString(),
  };
}

/** Asks first: what is there costs a tenth of a second. */
async function addExtras(
  python: string,
  folder: string,
  recipe: Recipe,
  extras: readonly Extra[],
): Promise<void> {
  const requirements = extras.flatMap((extra) => extra.requirements);
  if (requirements.length === 0) return;
  const names = requirements.map((requirement) => requirement.replace(/[=<>!~ ].*$/, ''));
  const before = await inspectInterpreter(python, names);
  const missing = requirements.filter((_, index) => before?.versions[names[index]!] === undefined);
  if (missing.length > 0) {
    const { installer } = await installerFor(recipe);
    await installStep(installer, folder, missing, { python });
  }
  const versions = (await inspectInterpreter(python, names))?.versions ?? {};
  printDone(process.stdout, 'extra packages', names.map((name) => `${name} ${versions[name]}`).join(', '));
}

function extraOf(runtime: string, recipe: Recipe, name: string): Extra {
  const extra = recipe.extras[name];
  if (extra) return extra;
  const known = Object.keys(recipe.extras);
  throw new UserError(
    `--with is ${name}; the runtime ${runtime} knows ${known.length > 0 ? known.join(', ') : 'no extra packages'}.`,
  );
}

function extraNames(): string {
  return Object.entries(RECIPES)
    .flatMap(([runtime, { extras }]) =>
      Object.entries(extras).map(([name, { purpose }]) => `${name} (${runtime}: ${purpose})`),
    )
    .join('; ');
}

function collect(value: string, earlier: string[]): string[] {
  return [...earlier, value];
}
