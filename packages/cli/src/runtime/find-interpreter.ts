import { join } from 'node:path';
import { UserError } from '../user-error.ts';
import { EXIT_CODE } from '../exit-code.ts';
import { inspectInterpreter, type InterpreterFacts } from './interpreter.ts';

/** An interpreter of the user's own that already has the framework. */
export interface OwnInterpreter extends InterpreterFacts {
  frameworkVersion: string;
  /** The variable that led to it. */
  foundBy: string;
}

/**
 * The interpreter that the user names, else the active environment's when it has the framework; else null.
 * @throws UserError when `TRAINYARD_PYTHON` does not run or lacks the framework: what was asked for is not replaced
 */
export async function findOwnInterpreter(
  distribution: string,
  environment: NodeJS.ProcessEnv,
): Promise<OwnInterpreter | null> {
  const named = environment['TRAINYARD_PYTHON'];
  if (named) {
    const facts = await inspectInterpreter(named, distribution);
    if (facts === null) throw new UserError(`TRAINYARD_PYTHON is ${named}, which does not run as Python.`);
    const { frameworkVersion } = facts;
    if (frameworkVersion === null) {
      throw new UserError(
        `TRAINYARD_PYTHON is ${named}, which has no ${distribution}. Install it there, or unset the variable to get a runtime of Trainyard's own.`,
      );
    }
    return { ...facts, frameworkVersion, foundBy: 'TRAINYARD_PYTHON' };
  }
  for (const foundBy of ['VIRTUAL_ENV', 'CONDA_PREFIX']) {
    const folder = environment[foundBy];
    const facts = folder ? await inspectInterpreter(join(folder, 'bin', 'python'), distribution) : null;
    const version = facts?.frameworkVersion;
    if (facts && version) return { ...facts, frameworkVersion: version, foundBy };
  }
  return null;
}

/** What new environments are made from. @throws UserError when there is no Python 3.10 or newer */
export async function findBasePython(environment: NodeJS.ProcessEnv): Promise<string> {
  for (const candidate of [environment['TRAINYARD_INIT_PYTHON'], 'python3', '/usr/bin/python3']) {
    const facts = candidate ? await inspectInterpreter(candidate, 'pip') : null;
    const [major = 0, minor = 0] = facts?.pythonVersion.split('.').map(Number) ?? [];
    if (facts && (major > 3 || (major === 3 && minor >= 10))) return facts.executable;
  }
  throw new UserError(
    'Python 3.10 or newer is needed to make a runtime and was not found.',
    EXIT_CODE.unavailable,
  );
}
