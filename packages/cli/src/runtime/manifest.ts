import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** The file `runtime.json` of a runtime's folder. The service reads it; its existence means the runtime is complete. */
export interface RuntimeManifest {
  name: string;
  framework: string;
  /** e.g. `2.13.0+cpu`. */
  version: string;
  /** Absolute path of the interpreter. */
  python: string;
  /** Directories that ranks get before PATH, in order. */
  binDirs: string[];
  mpi: { name: string; version: string } | null;
  /** ISO 8601. */
  createdAt: string;
}

export function defaultRuntimesDirectory(): string {
  return process.env['TRAINYARD_RUNTIMES'] || join(homedir(), '.local', 'share', 'trainyard', 'runtimes');
}

/** Null when there is none or it cannot be read, which both mean: make it. */
export function readManifest(folder: string): RuntimeManifest | null {
  try {
    return JSON.parse(readFileSync(join(folder, 'runtime.json'), 'utf8')) as RuntimeManifest;
  } catch {
    return null;
  }
}

/** Replaces the file in one step, so a service that reads meanwhile sees the old one or the new one. */
export function writeManifest(folder: string, manifest: RuntimeManifest): void {
  mkdirSync(folder, { recursive: true });
  const draft = join(folder, `runtime.json.${process.pid}.tmp`);
  writeFileSync(draft, `${JSON.stringify(manifest, null, 2)}\n`);
  renameSync(draft, join(folder, 'runtime.json'));
}

export function describeRuntime({ framework, version, mpi }: RuntimeManifest): string {
  const mpiText = mpi ? `Open MPI ${mpi.version}` : 'no MPI (jobs with mpi or pytorchddp cannot run)';
  return `${framework} ${version}, ${mpiText}`;
}
