import { existsSync, mkdirSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { EXIT_CODE } from '../exit-code.ts';
import { printStep } from '../render/step-lines.ts';
import { UserError } from '../user-error.ts';
import { findBasePython } from './find-interpreter.ts';
import { createInstaller, type Installer, pythonOf } from './installer.ts';
import { firstVersion, inspectInterpreter } from './interpreter.ts';
import type { Machine, Recipe } from './recipe.ts';
import type { ToolResult } from './run-tool.ts';

const MEGABYTE = 1024 * 1024;

export function thisMachine(): Machine {
  return { isCuda: existsSync('/dev/nvidia0'), platform: process.platform, arch: process.arch };
}

/** uv, or pip of a Python that the recipe's framework supports. @throws UserError when there is neither */
export async function installerFor(recipe: Recipe): Promise<{ installer: Installer; base: string }> {
  const uv = process.env['TRAINYARD_UV'] || null;
  const python = await findBasePython(recipe.pythonMinors, process.env);
  const [oldest, newest] = recipe.pythonMinors;
  if (python === null && uv === null) {
    throw new UserError(
      `${recipe.distributions[0]} needs Python 3.${oldest} to 3.${newest}, and none was found. Install one (Debian: apt-get install python3-venv), or uv, which brings its own.`,
      EXIT_CODE.unavailable,
    );
  }
  return { installer: await createInstaller(uv, python ?? 'python3'), base: python ?? `3.${newest}` };
}

/**
 * Makes or completes the environment below `folder` and returns its interpreter. What an interrupted run left is
 * completed, not thrown away.
 * @throws UserError with the tool's last lines when a step fails
 */
export async function makeRuntime(folder: string, recipe: Recipe): Promise<string> {
  const out = process.stdout;
  const machine = thisMachine();
  mkdirSync(folder, { recursive: true });
  const python = pythonOf(folder);
  const version = async (): Promise<string | null> => {
    const facts = await inspectInterpreter(python, recipe.distributions);
    return facts && firstVersion(facts, recipe.distributions);
  };
  if ((await version()) === null)
    await requireSpace(folder, recipe.sizeBytes[machine.isCuda ? 'cuda' : 'cpu']);
  const { installer, base } = await installerFor(recipe);
  if (!existsSync(python)) {
    await printStep(out, 'Python environment', async () =>
      orFail('Making the environment', folder, await installer.createEnvironment(folder, base)),
    );
  }
  const isTorch = recipe.framework === 'pytorch';
  const cpuOnly = isTorch && !machine.isCuda && machine.platform === 'linux';
  const framework = [recipe.requirementFor(machine), ...recipe.together];
  await installStep(installer, folder, framework, { cpuOnly });
  const found = await version();
  if (
    cpuOnly &&
    recipe.distributions[0] === 'torch' &&
    machine.arch === 'x64' &&
    found &&
    !found.includes('+cpu')
  ) {
    out.write(
      `    PyTorch's index of CPU builds could not be reached, so this is the CUDA build of the package index: it works,\n` +
        `    takes 4.6 GB and imports more slowly. To get the CPU build, name a folder with its wheel in PIP_FIND_LINKS\n` +
        `    and run: trainyard setup --force\n`,
    );
  }
  await installStep(installer, folder, recipe.requirements);
  const mpi = await printStep(out, recipe.mpiRequirements.join(', '), () =>
    installer.install(python, recipe.mpiRequirements),
  );
  if (!mpi.ok)
    out.write(`    not installed, so jobs with mpi or pytorchddp cannot run here: ${lastLine(mpi.output)}\n`);
  return python;
}

/** Installs requirements as one step of the set-up, with a line of its own. @throws UserError when it fails */
export async function installStep(
  installer: Installer,
  folder: string,
  requirements: readonly string[],
  options: { cpuOnly?: boolean; python?: string } = {},
): Promise<void> {
  const name = requirements.join(', ');
  await printStep(process.stdout, name, async () =>
    orFail(
      `Installing ${name}`,
      folder,
      await installer.install(options.python ?? pythonOf(folder), requirements, options),
    ),
  );
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

export function orFail(what: string, folder: string, { ok, output }: ToolResult): void {
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
