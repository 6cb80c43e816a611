import { mkdir, readdir, readFile, realpath, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { AgentLog } from './agent-log.ts';
import { formatSeconds } from './clock.ts';
import { HostFailure } from './host-failure.ts';
import type { InitClient } from './init-client.ts';
import type { RuntimePackages } from './runtime-packages.ts';
import { distributions } from './runtime-packages.ts';

/** The job's own packages, on top of the runtime's. */
export interface PackageLayer {
  /** Put before the runtime's packages. */
  site: string;
  bin: string;
  /** False when it replaces packages that the fork server may have imported, or changes how Python starts. */
  preloadable: boolean;
  /** What was installed: normalised name → version. */
  versions: Map<string, string>;
}

export interface RequirementsDeps {
  python: string;
  packages: RuntimePackages;
  codeDirectory: string;
  /** Private to the job; holds the layer. */
  layerDirectory: string;
  /** Where pip's output goes, as `requirements.out` and `.err`. */
  logDirectory: string;
  networkIsolated: boolean;
  /** The script's environment. */
  environment: Record<string, string>;
  init: Pick<InitClient, 'spawn' | 'wait' | 'signal'>;
  log: AgentLog;
  signal: AbortSignal;
}

const SPAWN_ID = 'requirements';

/**
 * Installs `requirements.txt` (and the package of a setup.py) into a layer of the job's own. The layer is a virtual
 * environment whose path ends in the runtime's packages: pip counts those as installed, never touches them, and
 * puts what is missing or newer into the layer. Nothing is ever written to the runtime, which other jobs share.
 *
 * @returns null when everything was there already
 * @throws HostFailure `InstallRequirementsError` or `InstallModuleError` with pip's last lines
 */
export async function installRequirements(
  what: { requirements: boolean; package: boolean },
  deps: RequirementsDeps,
): Promise<PackageLayer | null> {
  if (!deps.packages.versions.has('pip')) {
    throw new HostFailure(
      'ClientError',
      `requirements.txt cannot be installed: the runtime of ${deps.python} has no pip. Add it (${deps.python} -m ensurepip), or install the packages into the runtime.`,
    );
  }
  const layer = await makeLayer(deps);
  const python = join(layer.bin, 'python');
  const argv = [
    python,
    ...'-m pip install --disable-pip-version-check --no-input'.split(' '),
    // Without a way out pip would retry for minutes; wheels that came with the code still work by --find-links.
    ...(deps.networkIsolated ? ['--no-index'] : []),
    ...(what.package ? ['.'] : []),
    ...(what.requirements ? ['-r', 'requirements.txt'] : []),
  ];
  const names = [
    ...(what.package ? ['the package'] : []),
    ...(what.requirements ? ['requirements.txt'] : []),
  ];
  deps.log.say(`Installing ${names.join(' and ')}`);
  const started = performance.now();
  const files = {
    stdout: join(deps.logDirectory, 'requirements.out'),
    stderr: join(deps.logDirectory, 'requirements.err'),
  };
  const env = { ...deps.environment, PYTHONPATH: '', PIP_ROOT_USER_ACTION: 'ignore' };
  deps.signal.throwIfAborted();
  await deps.init.spawn({ id: SPAWN_ID, argv, env, cwd: deps.codeDirectory, ...files });
  const kill = (): void => void deps.init.signal(SPAWN_ID, 'KILL').catch(() => {});
  deps.signal.addEventListener('abort', kill);
  const end = await deps.init.wait(SPAWN_ID);
  deps.signal.removeEventListener('abort', kill);
  deps.signal.throwIfAborted();
  if (end.exitCode !== 0) {
    const output = (await readFile(files.stderr, 'utf8')) || (await readFile(files.stdout, 'utf8'));
    throw installError(what, argv, end.exitCode ?? end.signal, output, deps.networkIsolated);
  }
  const installed = await distributions(layer.site);
  const took = formatSeconds(performance.now() - started);
  deps.log.say(
    installed.size === 0
      ? `All requirements were installed already (${took})`
      : `Installed ${[...installed].map(([name, version]) => `${name} ${version}`).join(', ')} in ${took}`,
  );
  if (installed.size === 0) return null;
  const replaces = [...installed.keys()].some((name) => deps.packages.versions.has(name));
  const startsCode = (await readdir(layer.site)).some(
    (name) => name.endsWith('.pth') && name !== RUNTIME_PTH,
  );
  return { ...layer, preloadable: !replaces && !startsCode, versions: installed };
}

const RUNTIME_PTH = '_trainyard_runtime.pth';

/**
 * An empty layer for a command of the job's own, which may call pip itself, as the drivers of AWS's SDK v3 do: the
 * runtime is not the job's to write to.
 */
export async function writableLayer(
  deps: Pick<RequirementsDeps, 'python' | 'packages' | 'layerDirectory'>,
): Promise<PackageLayer> {
  const layer = await makeLayer(deps);
  for (const name of ['pip', 'pip3']) {
    const path = join(layer.bin, name);
    await writeFile(path, `#!/bin/sh\nexec '${join(layer.bin, 'python')}' -m pip "$@"\n`, { mode: 0o755 });
  }
  return { ...layer, preloadable: true, versions: new Map() };
}

/** A virtual environment by hand: `python -m venv` would take a second. May be repeated. */
async function makeLayer(
  deps: Pick<RequirementsDeps, 'python' | 'packages' | 'layerDirectory'>,
): Promise<{ site: string; bin: string }> {
  const { python, packages, layerDirectory } = deps;
  const bin = join(layerDirectory, 'bin');
  const site = join(layerDirectory, 'lib', packages.pythonName, 'site-packages');
  await Promise.all([mkdir(bin, { recursive: true }), mkdir(site, { recursive: true })]);
  // The layer must stem from the interpreter itself, not from a virtual environment around it.
  const base = await realpath(python);
  const marker = join(layerDirectory, 'pyvenv.cfg');
  // An agent that attaches again must not pull the interpreter away from under a running pip.
  if (await stat(marker).catch(() => null)) return { site, bin };
  const links = ['python', 'python3', packages.pythonName].map(async (name) => {
    await rm(join(bin, name), { force: true });
    await symlink(name === 'python' ? base : 'python', join(bin, name));
  });
  const version = packages.pythonName.replace('python', '');
  await Promise.all([
    ...links,
    // addsitedir, unlike a plain line, also follows the runtime's own .pth files.
    writeFile(
      join(site, RUNTIME_PTH),
      packages.siteDirectories
        .map((path) => `import site; site.addsitedir(${JSON.stringify(path)})\n`)
        .join(''),
    ),
  ]);
  await writeFile(
    marker,
    `home = ${dirname(base)}\ninclude-system-site-packages = false\nversion = ${version}\n`,
  );
  return { site, bin };
}

const LAST_LINES = 6;

export function installError(
  what: { package: boolean },
  argv: readonly string[],
  code: number | string | null,
  output: string,
  networkIsolated: boolean,
): HostFailure {
  const lines = output.split('\n').filter((line) => line.trim() !== '');
  const errors = lines.filter((line) => /^\s*(?:ERROR|error|×|╰─>)/.test(line));
  const shown = (errors.length > 0 ? errors : lines).slice(-LAST_LINES).join('\n');
  const isolation = networkIsolated
    ? '\nThe job has EnableNetworkIsolation, so pip reaches no index: put wheels into the source folder and --find-links into requirements.txt.'
    : '';
  const name = what.package ? 'InstallModuleError' : 'InstallRequirementsError';
  return new HostFailure(
    'ClientError',
    `${name}:\nExitCode ${code}\nErrorMessage "${shown}${isolation}"\nCommand "${argv.join(' ')}"`,
  );
}
