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

export interface ImageRule {
  /** Compared with the image, its part after the registry, and its repository name; `*` stands for any text. */
  pattern: string;
  runtime: string;
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

export type ResolvedImage = { runtime: Runtime; refusal: null } | { runtime: null; refusal: string };

/** Image repositories whose training environment is PyTorch itself. Others need the operator's word. */
const BUILT_IN_RULES: readonly ImageRule[] = [
  'pytorch-training',
  'pytorch',
  'sagemaker-pytorch',
  'sagemaker-pytorch-training',
  'huggingface-pytorch-training',
].map((pattern) => ({ pattern, runtime: 'pytorch' }));

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

/**
 * Finds the runtime for a training image: the operator's rules in their order, then the built-in ones. An image
 * without a rule, or whose runtime is missing, is refused with the line to add; it never runs somewhere else.
 */
export function resolveImage(image: string, table: RuntimeTable): ResolvedImage {
  let rules: ImageRule[];
  try {
    rules = [...readImageRules(table.configPath), ...BUILT_IN_RULES];
  } catch (error) {
    return { runtime: null, refusal: (error as Error).message };
  }
  const { runtimes, problems } = readRuntimes(table);
  const known = [...runtimes.keys()];
  const rule = rules.find(({ pattern }) => matchesImage(pattern, image));
  if (rule === undefined) {
    const line = JSON.stringify({ pattern: repositoryOf(image), runtime: known[0] ?? 'NAME' });
    return refuse(
      `AlgorithmSpecification.TrainingImage is ${image}, for which this machine has no runtime. ` +
        `To name one, add ${line} to "images" in ${table.configPath}; ` +
        (known.length > 0 ? `runtimes here: ${known.join(', ')}.` : `make one first with: trainyard setup`),
    );
  }
  const runtime = runtimes.get(rule.runtime);
  if (runtime !== undefined) return { runtime, refusal: null };
  return refuse(
    `AlgorithmSpecification.TrainingImage is ${image}, which runs in the runtime "${rule.runtime}", and ${table.directory} ` +
      `has none of that name (${known.length > 0 ? `it has ${known.join(', ')}` : 'it has no runtime'}). ` +
      `Make it with: trainyard setup --runtime ${rule.runtime}` +
      (problems.length > 0 ? `. ${problems.join(' ')}` : ''),
  );
}

/** @throws Error naming the file and the entry when `images` is not a list of `{ pattern, runtime }`. */
export function readImageRules(configPath: string): ImageRule[] {
  let text: string;
  try {
    text = readFileSync(configPath, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw new Error(`${configPath} cannot be read: ${(error as Error).message}`, { cause: error });
  }
  const images: unknown = parseJson(configPath, text)['images'] ?? [];
  if (!Array.isArray(images))
    throw new Error(`${configPath}: "images" must be a list of {"pattern", "runtime"}`);
  return images.map((rule: unknown, index) => {
    const { pattern, runtime } = (rule ?? {}) as Partial<ImageRule>;
    if (typeof pattern === 'string' && pattern !== '' && typeof runtime === 'string' && runtime !== '') {
      return { pattern, runtime };
    }
    throw new Error(
      `${configPath}: images[${index}] is ${JSON.stringify(rule)}; it needs "pattern" and "runtime", both non-empty text`,
    );
  });
}

/** True when the pattern covers the whole image, the image without its registry, or its repository's last name. */
export function matchesImage(pattern: string, image: string): boolean {
  const glob = new RegExp(`^${pattern.split('*').map(escapeRegExp).join('.*')}$`, 's');
  const withoutRegistry = image.slice(image.lastIndexOf('/') + 1);
  return [image, withoutRegistry, repositoryOf(image)].some((text) => glob.test(text));
}

/** `763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.3.0-cpu` → `pytorch-training`. */
function repositoryOf(image: string): string {
  return image.slice(image.lastIndexOf('/') + 1).replace(/[:@].*$/s, '');
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

function parseJson(path: string, text: string): Record<string, unknown> {
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

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

function refuse(refusal: string): ResolvedImage {
  return { runtime: null, refusal };
}
