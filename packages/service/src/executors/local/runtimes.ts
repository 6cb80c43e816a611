import { readdirSync, readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';

/** An interpreter with its packages in which ranks run: what takes the place of an image on this machine. */
export interface Runtime {
  name: string;
  framework: string;
  /** Version of the framework's package, e.g. `2.13.0+cpu`; null when nobody asked the interpreter yet. */
  version: string | null;
  /** Absolute path of the interpreter. */
  python: string;
  /** Directories put before PATH, in order. */
  binDirs: string[];
  /** The MPI found beside the interpreter; null when it has none of its own. */
  mpi: { name: string; version: string } | null;
  /** Where this description comes from: a `runtime.json` or the variable that named the interpreter. */
  source: string;
}

/** Everything that decides which runtime an image gets; read anew on each use, so `trainyard setup` needs no restart. */
export interface RuntimeTable {
  /** Holds one folder with a `runtime.json` per runtime; made by `trainyard setup`. */
  directory: string;
  /** The interpreter that `TRAINYARD_PYTHON` names, which then is the runtime `pytorch`; null when unset. */
  python: string | null;
  /** The operator's file whose `images` come before the built-in rules; it need not exist. */
  configPath: string;
}

/** Where `trainyard setup` puts runtimes when `TRAINYARD_RUNTIMES` is unset. */
export function defaultRuntimesDirectory(): string {
  return join(homedir(), '.local', 'share', 'trainyard', 'runtimes');
}

export function runtimeTable(environment: NodeJS.ProcessEnv, dataDirectory: string): RuntimeTable {
  return {
    directory: environment['TRAINYARD_RUNTIMES'] || defaultRuntimesDirectory(),
    python: environment['TRAINYARD_PYTHON'] || null,
    configPath: join(dataDirectory, 'config.json'),
  };
}

/**
 * The runtimes that can be used now, by name, and one sentence for each that cannot. Never throws.
 */
export function readRuntimes(table: RuntimeTable): { runtimes: Map<string, Runtime>; problems: string[] } {
  const runtimes = new Map<string, Runtime>();
  const problems: string[] = [];
  for (const name of listFolders(table.directory)) {
    try {
      runtimes.set(name, readRuntime(name, join(table.directory, name, 'runtime.json')));
    } catch (error) {
      problems.push((error as Error).message);
    }
  }
  if (table.python !== null) {
    const problem = problemWithInterpreter(table.python);
    if (problem === null) runtimes.set('pytorch', namedInterpreter(table.python));
    else problems.push(`TRAINYARD_PYTHON is ${table.python}: ${problem}`);
  }
  return { runtimes, problems };
}

function readRuntime(name: string, path: string): Runtime {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new Error(`${path} cannot be read; finish the runtime with: trainyard setup --runtime ${name}`, {
      cause: error,
    });
  }
  const { framework, version, python, binDirs, mpi } = parseJson(path, text);
  if (typeof python !== 'string' || typeof framework !== 'string') {
    throw new Error(
      `${path} needs "python" and "framework"; make it again with: trainyard setup --runtime ${name}`,
    );
  }
  const problem = problemWithInterpreter(python);
  if (problem !== null) throw new Error(`${path}: "python" is ${python}: ${problem}`);
  return {
    name,
    framework,
    version: typeof version === 'string' ? version : null,
    python,
    binDirs: Array.isArray(binDirs)
      ? binDirs.filter((folder) => typeof folder === 'string')
      : [dirname(python)],
    mpi: isMpi(mpi) ? mpi : null,
    source: path,
  };
}

function namedInterpreter(python: string): Runtime {
  return {
    name: 'pytorch',
    framework: 'pytorch',
    version: null,
    python,
    binDirs: [dirname(python)],
    mpi: null,
    source: 'TRAINYARD_PYTHON',
  };
}

function problemWithInterpreter(python: string): string | null {
  if (!isAbsolute(python)) return 'it must be an absolute path';
  try {
    const status = statSync(python);
    return status.isFile() && (status.mode & 0o111) !== 0 ? null : 'it is not an executable file';
  } catch {
    return 'there is no such file';
  }
}

function listFolders(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => (entry.isDirectory() || entry.isSymbolicLink()) && !entry.name.startsWith('.'))
      .map((entry) => entry.name)
      .sort();
  } catch {
    return [];
  }
}

/** @throws Error naming the file when it does not hold a JSON object */
export function parseJson(path: string, text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>;
  } catch (error) {
    throw new Error(`${path} is not JSON: ${(error as Error).message}`, { cause: error });
  }
  throw new Error(`${path} must hold a JSON object`);
}

function isMpi(value: unknown): value is { name: string; version: string } {
  const mpi = value as { name?: unknown; version?: unknown } | null;
  return typeof mpi === 'object' && typeof mpi?.name === 'string' && typeof mpi.version === 'string';
}
