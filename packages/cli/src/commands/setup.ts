import { existsSync, mkdirSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { delimiter, dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { EXIT_CODE } from '../exit-code.ts';
import { printDone, printStep } from '../render/step-lines.ts';
import { findBasePython, findOwnInterpreter } from '../runtime/find-interpreter.ts';
import { createInstaller, pythonOf } from '../runtime/installer.ts';
import { inspectInterpreter, inspectMpi } from '../runtime/interpreter.ts';
import {
  defaultRuntimesDirectory,
  describeRuntime,
  readManifest,
  writeManifest,
  type RuntimeManifest,
} from '../runtime/manifest.ts';
import { RECIPES, type Recipe } from '../runtime/recipe.ts';
import type { ToolResult } from '../runtime/run-tool.ts';
import { UserError } from '../user-error.ts';

interface SetupOptions {
  runtime: string;
  runtimes: string;
  force?: boolean;
}

const MEGABYTE = 1024 * 1024;
/** PyTorch's CPU build and the rest, with what is unpacked on the way; the CUDA build of the package index. */
const CPU_SIZE_BYTES = 1500 * MEGABYTE;
const CUDA_SIZE_BYTES = 7000 * MEGABYTE;

export function addSetup(program: Command): void {
  program
    .command('setup')
    .description('make a runtime: an interpreter with the framework in which jobs run on this machine')
    .option('--runtime <name>', `one of: ${Object.keys(RECIPES).join(', ')}`, 'pytorch')
    .option('--runtimes <dir>', 'where runtimes are kept (TRAINYARD_RUNTIMES)', defaultRuntimesDirectory())
    .option('--force', 'check and complete a runtime that exists')
    .addHelpText(
      'after',
      `
An interpreter that you name by TRAINYARD_PYTHON, or the active environment when it has the framework, is taken as
it is. Else an environment is made with uv or pip from the package index: the CPU build of PyTorch on a machine
without an NVIDIA device, Open MPI beside it. Nothing needs root, and a complete runtime is left alone.`,
    )
    .action((options: SetupOptions) => setUp(options));
}

async function setUp({ runtime: name, runtimes, force = false }: SetupOptions): Promise<void> {
  const recipe = RECIPES[name];
  if (!recipe) throw new UserError(`--runtime is ${name}; known are ${Object.keys(RECIPES).join(', ')}.`);
  const folder = join(resolve(runtimes), name);
  const label = `runtime ${name}`;
  const existing = readManifest(folder);
  if (existing && !force && !process.env['TRAINYARD_PYTHON'] && existsSync(existing.python)) {
    printDone(process.stdout, label, describeRuntime(existing));
    return;
  }
  const own = await findOwnInterpreter(distributionOf(recipe), process.env);
  // TRAINYARD_PYTHON works by being set, at any time; an active environment is gone tomorrow, so it is recorded.
  const manifest = await describe(name, recipe, own?.executable ?? (await makeEnvironment(folder, recipe)));
  if (own?.foundBy !== 'TRAINYARD_PYTHON') writeManifest(folder, manifest);
  printDone(process.stdout, label, `${describeRuntime(manifest)}${own ? `, from ${own.foundBy}` : ''}`);
}

async function describe(name: string, recipe: Recipe, python: string): Promise<RuntimeManifest> {
  const facts = await inspectInterpreter(python, distributionOf(recipe));
  if (!facts?.frameworkVersion)
    throw new UserError(`${python} does not have ${distributionOf(recipe)}.`, EXIT_CODE.failed);
  const mpi = await inspectMpi(python);
  const systemPath = (process.env['PATH'] ?? '').split(delimiter);
  return {
    name,
    framework: recipe.framework,
    version: facts.frameworkVersion,
    python,
    binDirs: [
      ...new Set([dirname(python), ...(mpi && !systemPath.includes(mpi.binDir) ? [mpi.binDir] : [])]),
    ],
    mpi: mpi && { name: mpi.name, version: mpi.version },
    createdAt: new Date().toISOString(),
  };
}

/** Returns the interpreter. What an interrupted run left is completed, not thrown away. */
async function makeEnvironment(folder: string, recipe: Recipe): Promise<string> {
  const out = process.stdout;
  const isCuda = existsSync('/dev/nvidia0');
  mkdirSync(folder, { recursive: true });
  const python = pythonOf(folder);
  if ((await inspectInterpreter(python, distributionOf(recipe)))?.frameworkVersion == null) {
    await requireSpace(folder, isCuda ? CUDA_SIZE_BYTES : CPU_SIZE_BYTES);
  }
  const basePython = await findBasePython(process.env);
  const installer = await createInstaller(process.env['TRAINYARD_UV'] || null, basePython);
  if (!existsSync(python)) {
    await printStep(out, 'Python environment', async () =>
      orFail('Making the environment', folder, await installer.createEnvironment(folder, basePython)),
    );
  }
  const cpuOnly = !isCuda && process.platform === 'linux';
  await printStep(out, recipe.frameworkRequirement, async () =>
    orFail(
      `Installing ${recipe.frameworkRequirement}`,
      folder,
      await installer.install(python, [recipe.frameworkRequirement], { cpuOnly }),
    ),
  );
  const version = (await inspectInterpreter(python, distributionOf(recipe)))?.frameworkVersion;
  if (cpuOnly && process.arch === 'x64' && version && !version.includes('+cpu')) {
    out.write(
      `    PyTorch's index of CPU builds could not be reached, so this is the CUDA build of the package index: it works,\n` +
        `    takes 4.6 GB and imports more slowly. To get the CPU build, name a folder with its wheel in PIP_FIND_LINKS\n` +
        `    and run: trainyard setup --force\n`,
    );
  }
  await printStep(out, recipe.requirements.join(', '), async () =>
    orFail(
      `Installing ${recipe.requirements.join(', ')}`,
      folder,
      await installer.install(python, recipe.requirements),
    ),
  );
  const mpi = await printStep(out, recipe.mpiRequirements.join(', '), () =>
    installer.install(python, recipe.mpiRequirements),
  );
  if (!mpi.ok) {
    out.write(`    not installed, so jobs with mpi or pytorchddp cannot run here: ${lastLine(mpi.output)}\n`);
  }
  return python;
}

async function requireSpace(folder: string, sizeBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize >= sizeBytes) return;
  const megabytes = (bytes: number): string => `${Math.floor(bytes / MEGABYTE)} MB`;
  throw new UserError(
    `The runtime needs ${megabytes(sizeBytes)} in ${folder}; ${megabytes(bavail * bsize)} are free. Free some, or name another place with --runtimes.`,
    EXIT_CODE.unavailable,
  );
}

function orFail(what: string, folder: string, { ok, output }: ToolResult): void {
  if (ok) return;
  const tail = output.trimEnd().split('\n').slice(-15).join('\n  ');
  throw new UserError(
    `${what} in ${folder} failed:\n  ${tail}\nPut it right (network, disk space, pip's index) and run trainyard setup again.`,
    EXIT_CODE.unavailable,
  );
}

function lastLine(output: string): string {
  return output.trimEnd().split('\n').at(-1) ?? '';
}

function distributionOf({ frameworkRequirement }: Recipe): string {
  return frameworkRequirement.replace(/[=<>!~ ].*$/, '');
}
