import { homedir } from 'node:os';
import { dirname, isAbsolute, join, normalize, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { readFileSync } from 'node:fs';

/** Where the service keeps everything and how it may be reached: no optional member is left. */
export interface ServiceConfig {
  dataDir: string;
  host: string;
  /** 0: the port of the last run if it is free, else any. */
  port: number;
  /** Started by a client for itself: ends when idle. */
  isEmbedded: boolean;
  idleMs: number;
  region: string;
  accountId: string;
  hostLimit: number;
  preload: boolean;
  agentPath: string;
  initDir: string;
  nodePath: string;
  /** Any Python ≥ 3.10 for init. */
  initPython: string;
  /** Folders of this machine under the ids of file systems that requests name. */
  fileSystems: Readonly<Record<string, NamedFolder>>;
}

/** What stands for an FSx for Lustre or EFS file system here. */
export interface NamedFolder {
  /** Absolute. */
  path: string;
  /** Jobs may not ask for it with access mode `rw`. */
  readOnly: boolean;
}

/** `DATA/config.json`, all members optional; flags win. Image rules are read by the runtime table. */
interface ConfigFile {
  region?: string;
  accountId?: string;
  hosts?: number;
  preload?: boolean;
  idleMinutes?: number;
  fileSystems?: unknown;
}

/** A mistake in flags, environment or config.json; the message names it and the next step. */
export class ConfigError extends Error {
  override name = 'ConfigError';
}

export const DEFAULT_HOST_LIMIT = 8;
const DEFAULT_IDLE_MINUTES = 15;

export function readConfig(argv: string[], environment: NodeJS.ProcessEnv): ServiceConfig {
  const flags = parseFlags(argv);
  const dataDir = resolve(
    flags.data ?? environment['TRAINYARD_DATA'] ?? join(homedir(), '.local/share/trainyard/data'),
  );
  const file = readConfigFile(join(dataDir, 'config.json'));
  const fileSystems = readFileSystems(file.fileSystems ?? {});
  const here = dirname(fileURLToPath(import.meta.url));
  const region = file.region ?? environment['AWS_REGION'] ?? environment['AWS_DEFAULT_REGION'] ?? 'us-west-2';
  if (!/^[a-z]{2}(-[a-z]+)+-\d+$/.test(region))
    throw new ConfigError(`region is '${region}'; give a name such as us-west-2.`);
  const accountId = file.accountId ?? '000000000000';
  if (!/^\d{12}$/.test(accountId))
    throw new ConfigError(`accountId in config.json is '${accountId}'; it must have twelve digits.`);
  return {
    dataDir,
    host: flags.host ?? '127.0.0.1',
    port: wholeNumber('--port', flags.port ?? '0', 0, 65_535),
    isEmbedded: flags.embedded ?? false,
    idleMs: (file.idleMinutes ?? DEFAULT_IDLE_MINUTES) * 60_000,
    region,
    accountId,
    hostLimit: wholeNumber('--hosts', flags.hosts ?? String(file.hosts ?? DEFAULT_HOST_LIMIT), 1, 250),
    preload: (file.preload ?? true) && environment['TRAINYARD_PRELOAD'] !== '0',
    agentPath: environment['TRAINYARD_AGENT'] ?? resolve(here, '../../launch/dist/agent.mjs'),
    initDir: environment['TRAINYARD_INIT'] ?? resolve(here, '../../launch/init'),
    nodePath: process.execPath,
    initPython: environment['TRAINYARD_INIT_PYTHON'] ?? 'python3',
    fileSystems,
  };
}

/** `{"fs-0123456789abcdef0": "/data"}`, or `{"path": "/data", "readOnly": true}` for the folder. */
export function readFileSystems(value: unknown): Record<string, NamedFolder> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ConfigError(
      'fileSystems in config.json must map ids to folders: {"fs-0123456789abcdef0": "/data"}.',
    );
  }
  return Object.fromEntries(
    Object.entries(value).map(([id, entry]: [string, unknown]) => {
      const at = `fileSystems in config.json has ${JSON.stringify(id)}: ${JSON.stringify(entry)}`;
      // AWS's clients send no shorter one.
      if (!/^[\w-]{11,}$/.test(id))
        throw new ConfigError(`${at}; an id has at least 11 letters, digits and hyphens.`);
      const folder = typeof entry === 'string' ? { path: entry } : ((entry ?? {}) as Partial<NamedFolder>);
      if (typeof folder.path !== 'string' || !isAbsolute(folder.path)) {
        throw new ConfigError(`${at}; give the absolute path of a folder, or {"path": …, "readOnly": true}.`);
      }
      return [
        id,
        { path: normalize(folder.path).replace(/(.)\/+$/, '$1'), readOnly: folder.readOnly === true },
      ];
    }),
  );
}

function parseFlags(argv: string[]): {
  data?: string;
  host?: string;
  port?: string;
  hosts?: string;
  embedded?: boolean;
} {
  try {
    const { values } = parseArgs({
      args: argv,
      options: {
        data: { type: 'string' },
        host: { type: 'string' },
        port: { type: 'string' },
        hosts: { type: 'string' },
        embedded: { type: 'boolean' },
      },
    });
    return values;
  } catch (error) {
    throw new ConfigError((error as Error).message);
  }
}

function wholeNumber(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new ConfigError(`${name} is '${text}'; give a whole number from ${least} to ${most}.`);
  }
  return value;
}

function readConfigFile(path: string): ConfigFile {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return {};
  }
  try {
    return JSON.parse(text) as ConfigFile;
  } catch (error) {
    throw new ConfigError(`${path} is not JSON: ${(error as Error).message}. Mend or remove it.`);
  }
}
