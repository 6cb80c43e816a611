import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { ServiceUnavailable } from '../errors.ts';
import { SERVICE_LOG } from './data-directory.ts';

export interface SpawnedService {
  /** Null while it runs. */
  exit: () => string | null;
  /** What it wrote since it was started, at most its last 20 lines. */
  logTail: () => string[];
}

/** Starts a data directory's service as a process of its own that outlives this one. It says by `service.json` when it listens. */
export function spawnService(dataDirectory: string): SpawnedService {
  const program = findProgram();
  const logPath = join(dataDirectory, SERVICE_LOG);
  const log = openSync(logPath, 'a', 0o600);
  const logStart = statSync(logPath).size;
  // Sources of this repository run unbuilt under the condition that their packages declare.
  const nodeOptions = program.endsWith('.ts') ? ['--conditions=@trainyard/source'] : [];
  const child = spawn(
    process.execPath,
    [...nodeOptions, program, '--data', dataDirectory, '--port', '0', '--embedded'],
    { detached: true, stdio: ['ignore', log, log], cwd: dataDirectory, env: serviceEnvironment() },
  );
  closeSync(log);
  child.unref();
  let exit: string | null = null;
  child.once('error', (error) => {
    exit = error.message;
  });
  child.once('exit', (code, signal) => {
    exit = signal === null ? `exit status ${code}` : `signal ${signal}`;
  });
  const logTail = (): string[] =>
    readFileSync(logPath).subarray(logStart).toString().trimEnd().split('\n').slice(-20);
  return { exit: () => exit, logTail };
}

function findProgram(): string {
  const named = process.env['TRAINYARD_SERVICE'];
  const program = named ? resolve(named) : join(serviceRoot(), 'dist', 'trainyard-service.mjs');
  if (existsSync(program)) return program;
  throw new ServiceUnavailable(
    program,
    named
      ? `TRAINYARD_SERVICE is ${named}, but there is no such file.`
      : `The service's program ${program} is missing. Build it (npm run build), or name another in TRAINYARD_SERVICE.`,
  );
}

function serviceRoot(): string {
  try {
    return dirname(createRequire(import.meta.url).resolve('@trainyard/service/package.json'));
  } catch (cause) {
    throw new ServiceUnavailable(
      '@trainyard/service',
      'No service can be started here: package @trainyard/service is not installed. Install it, or set AWS_ENDPOINT_URL to a running service.',
      { cause },
    );
  }
}

/** The service serves every later client too, so it must not keep what only this one was given. */
function serviceEnvironment(): NodeJS.ProcessEnv {
  const isPrivate = (name: string): boolean => name.startsWith('AWS_') || name === 'NODE_OPTIONS';
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !isPrivate(name)));
}
