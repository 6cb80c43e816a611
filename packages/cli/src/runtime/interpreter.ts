import { existsSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { runTool } from './run-tool.ts';

export interface InterpreterFacts {
  /** e.g. `3.11.7`. */
  pythonVersion: string;
  /** The interpreter's own path, with links kept: a virtual environment is found by them. */
  executable: string;
  /** Of the distribution asked for; null when it is not installed. */
  frameworkVersion: string | null;
}

// The distribution's version is read from its metadata: importing torch would take a second and a half.
const ASK = `
import importlib.metadata, json, platform, sys
try:
    version = importlib.metadata.version(sys.argv[1])
except importlib.metadata.PackageNotFoundError:
    version = None
print(json.dumps({"pythonVersion": platform.python_version(), "executable": sys.executable, "frameworkVersion": version}))
`;

/** Null when the interpreter does not run. */
export async function inspectInterpreter(
  python: string,
  distribution: string,
): Promise<InterpreterFacts | null> {
  const { ok, output } = await runTool(python, ['-c', ASK, distribution]);
  const line = output.split('\n').findLast((text) => text.startsWith('{'));
  return ok && line !== undefined ? (JSON.parse(line) as InterpreterFacts) : null;
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
