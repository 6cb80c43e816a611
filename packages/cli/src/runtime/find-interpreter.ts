import { join } from 'node:path';
import { UserError } from '../user-error.ts';
import { firstVersion, inspectInterpreter, type InterpreterFacts } from './interpreter.ts';
import type { Recipe } from './recipe.ts';

/** An interpreter of the user's own that already has the framework. */
export interface OwnInterpreter extends InterpreterFacts {
  frameworkVersion: string;
  /** The variable that led to it. */
  foundBy: string;
}

/**
 * The interpreter that the user names, else the active environment's when it has the framework; else null.
 * `TRAINYARD_PYTHON` stands for the runtime `pytorch` alone.
 * @throws UserError when `TRAINYARD_PYTHON` does not run or lacks the framework: what was asked for is not replaced
 */
export async function findOwnInterpreter(
  name: string,
  recipe: Recipe,
  environment: NodeJS.ProcessEnv,
): Promise<OwnInterpreter | null> {
  const named = name === 'pytorch' ? environment['TRAINYARD_PYTHON'] : undefined;
  if (named) {
    const facts = await inspectInterpreter(named, recipe.distributions);
    if (facts === null) throw new UserError(`TRAINYARD_PYTHON is ${named}, which does not run as Python.`);
    const frameworkVersion = firstVersion(facts, recipe.distributions);
    if (frameworkVersion === null) {
      throw new UserError(
        `TRAINYARD_PYTHON is ${named}, which has no ${recipe.distributions[0]}. Install it there, or unset the variable to get a runtime of Trainyard's own.`,
      );
    }
    return { ...facts, frameworkVersion, foundBy: 'TRAINYARD_PYTHON' };
  }
  for (const foundBy of ['VIRTUAL_ENV', 'CONDA_PREFIX']) {
    const folder = environment[foundBy];
    const facts = folder
      ? await inspectInterpreter(join(folder, 'bin', 'python'), recipe.distributions)
      : null;
    const version = facts && firstVersion(facts, recipe.distributions);
    if (facts && version && recipe.fits(version)) return { ...facts, frameworkVersion: version, foundBy };
  }
  return null;
}

/**
 * What a runtime's environment is made from: a Python of this machine whose version the framework supports.
 * Null when there is none; uv may then bring one.
 */
export async function findBasePython(
  [oldest, newest]: Recipe['pythonMinors'],
  environment: NodeJS.ProcessEnv,
): Promise<string | null> {
  const numbered = Array.from({ length: newest - oldest + 1 }, (_, index) => `python3.${newest - index}`);
  for (const candidate of [
    environment['TRAINYARD_INIT_PYTHON'],
    'python3',
    '/usr/bin/python3',
    ...numbered,
  ]) {
    const facts = candidate ? await inspectInterpreter(candidate, []) : null;
    const [major = 0, minor = 0] = facts?.pythonVersion.split('.').map(Number) ?? [];
    if (facts && major === 3 && minor >= oldest && minor <= newest) return facts.executable;
  }
  return null;
}
