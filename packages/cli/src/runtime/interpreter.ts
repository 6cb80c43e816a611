import { existsSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { runTool } from './run-tool.ts';

export interface InterpreterFacts {
  /** e.g. `3.11.7`. */
  pythonVersion: string;
  /** The interpreter's own path, with links kept: a virtual environment is found by them. */
  executable: string;
  /** Versions of the distributions asked for, by name, of those that are installed. */
  versions: Readonly<Record<string, string>>;
}

// The versions are read from metadata: importing torch would take a second and a half.
const ASK = `
import importlib.metadata, json, platform, sys
versions = {}
for name in sys.argv[1:]:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps({"pythonVersion": platform.python_version(), "executable": sys.executable, "versions": versions}))
`;

/** Null when the interpreter does not run. */
export async function inspectInterpreter(
  python: string,
  distributions: readonly string[],
): Promise<InterpreterFacts | null> {
  const { ok, output } = await runTool(python, ['-c', ASK, ...distributions]);
  const line = output.split('\n').findLast((text) => text.startsWith('{'));
  return ok && line !== undefined ? (JSON.parse(line) as InterpreterFacts) : null;
}

/** The version of the first distribution that is installed; null when none is. */
export function firstVersion(
  { versions }: InterpreterFacts,
  distributions: readonly string[],
): string | null {
  return distributions.map((name) => versions[name]).find((version) => version !== undefined) ?? null;
}

/** The MPI whose mpirun comes first for a job of this interpreter: beside it, else on PATH. */
export async function inspectMpi(
  python: string,
): Promise<{ name: string; version: string; binDir: string } | null> {
  const folders = [dirname(python), ...(process.env['PATH'] ?? '').split(delimiter)];
  const binDir = folders.find((folder) => folder !== '' && existsSync(join(folder, 'mpirun')));
  if (binDir === undefined) return null;
  const { output } = await runTool(join(binDir, 'mpirun'), ['--version']);
  const version = /\(Open MPI\) (\d+\.\d+\.\d+)/.exec(output)?.[1];
  return version === undefined ? null : { name: 'openmpi', version, binDir };
}
