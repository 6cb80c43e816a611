// Holds the direction of dependencies: the ladder of packages, the order of the service's folders, and what may
// be imported from outside. Reads import statements only; types count as much as values, because a type that
// points the wrong way drags its owner's meaning along.
import { globSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { dirname, join, posix, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Package → packages it may import by name. */
const LADDER = {
  api: [],
  sdk: ['api'],
  launch: ['api'],
  service: ['api'],
  console: ['api'],
  cli: ['sdk', 'api', 'service'],
};

/** Packages whose shipped code uses nothing but `node:` modules (api not even those) and packages above. */
const WITHOUT_OUTSIDE_DEPENDENCIES = new Set(['api', 'launch']);
const WITHOUT_NODE = new Set(['api']);

/** Folder of `packages/service/src` → sibling folders it may import. `main.ts` sees all; see ARCHITECTURE.md. */
const SERVICE_FOLDERS = {
  gateway: ['jobs', 'store', 'objects', 'logs'],
  jobs: ['store', 'placement'],
  store: [],
  placement: [],
  reconcile: ['jobs', 'store', 'placement', 'executors', 'logs', 'objects'],
  executors: [],
  objects: ['store'],
  logs: ['store'],
};
/** Files of `packages/service/src` that every folder may import: tables and interfaces without behaviour or imports upward. */
const SERVICE_SHARED_FILES = new Set([
  'config.ts',
  'jobs/lifecycle.ts',
  'jobs/spec.ts',
  'executors/executor.ts',
]);
const WITHOUT_HTTP = new Set(['executors', 'placement', 'objects', 'logs', 'store', 'jobs']);
const HTTP_MODULES = new Set(['node:http', 'node:https', 'node:http2']);

/** May be imported by tests beside the code without being a dependency of the package. */
const TEST_TOOLS = new Set(['vitest', 'fast-check']);

/**
 * @param {Map<string, string>} files repository path (POSIX) → source
 * @param {Map<string, Set<string>>} dependencies package folder → names in its `dependencies`
 * @returns {string[]} one sentence per violation, in file order
 */
export function checkLayers(files, dependencies) {
  return [...files].flatMap(([file, source]) =>
    importsOf(source).flatMap(({ specifier, line }) => {
      const reason = reasonAgainst(file, specifier, dependencies);
      return reason ? [`${file}:${line} imports '${specifier}': ${reason}`] : [];
    }),
  );
}

/** Import and re-export statements and literal dynamic imports, with their line. */
export function importsOf(source) {
  const code = blankComments(source);
  const statement =
    /^[ \t]*(?:import|export)\b[^'"`;()]*?\bfrom\s*(['"])([^'"\n]+)\1|^[ \t]*import\s*(['"])([^'"\n]+)\3|\bimport\s*\(\s*(['"])([^'"\n]+)\5\s*[,)]/gm;
  return [...code.matchAll(statement)].map((match) => {
    const specifier = match[2] ?? match[4] ?? match[6];
    const at = match.index + match[0].lastIndexOf(specifier);
    return { specifier, line: code.slice(0, at).split('\n').length };
  });
}

/** Replaces comments by blanks of the same length; strings stay, so a `//` in a URL survives. */
function blankComments(source) {
  const token = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\[\s\S]|[^`\\])*`/g;
  return source.replace(token, (text) => {
    if (text.startsWith('/')) return text.replace(/[^\n]/g, ' ');
    // What a template holds is text, not code; an `import` at the start of its lines means nothing.
    if (text.startsWith('`')) return text.replace(/[^\n`]/g, ' ');
    return text;
  });
}

function reasonAgainst(file, specifier, dependencies) {
  const owner = /^packages\/([^/]+)\//.exec(file)?.[1];
  if (specifier.startsWith('.')) return reasonAgainstRelative(file, specifier, owner);
  if (specifier.startsWith('@trainyard/')) return reasonAgainstPackage(specifier, owner);
  if (owner === undefined) return null;
  return reasonAgainstOutside(file, specifier, owner, dependencies);
}

function reasonAgainstRelative(file, specifier, owner) {
  const target = posix.normalize(posix.join(posix.dirname(file), specifier));
  const targetOwner = /^packages\/([^/]+)\//.exec(target)?.[1];
  // A contract suite lies beside its interface and is run by process tests: that is what it is for.
  if (owner === undefined && file.startsWith('tests/') && target.endsWith('.contract.ts')) return null;
  if (targetOwner !== undefined && targetOwner !== owner) {
    return target.startsWith(`packages/${targetOwner}/src/`)
      ? `${owner ? `package ${owner}` : 'code outside packages/'} must not reach into packages/${targetOwner}/src; import '@trainyard/${targetOwner}' by name`
      : null;
  }
  if (owner === undefined) return null;
  if (!target.startsWith(`packages/${owner}/`))
    return `package ${owner} must not reach outside its folder (${target})`;
  return owner === 'service' ? reasonAgainstFolder(file, target) : null;
}

function reasonAgainstFolder(file, target) {
  const from = serviceFolder(file);
  const to = serviceFolder(target);
  const name = target.slice('packages/service/src/'.length);
  if (from === null || from === to || SERVICE_SHARED_FILES.has(name)) return null;
  if (to === null) return `only files beside it may import ${name}; main.ts wires the folders together`;
  const allowed = SERVICE_FOLDERS[from];
  if (allowed === undefined)
    return `folder ${from} is not in the table of tools/check-layers.mjs; add it with what it may import`;
  if (allowed.includes(to)) return null;
  return `${from} may import ${allowed.length > 0 ? allowed.join(', ') : 'no other folder'}, not ${to}; declare the interface it needs and let main.ts pass it in`;
}

/** First folder below `packages/service/src`, or null for a file directly in it. */
function serviceFolder(file) {
  return /^packages\/service\/src\/([^/]+)\//.exec(file)?.[1] ?? null;
}

function reasonAgainstPackage(specifier, owner) {
  const [, name, deep] = /^@trainyard\/([^/]+)(\/.+)?$/.exec(specifier) ?? [];
  if (name === undefined) return `this is not a package of the repository`;
  if (deep !== undefined && deep !== '/package.json')
    return `only the package's entry is public; import '@trainyard/${name}'`;
  if (owner === undefined || name === owner) {
    return name === owner ? `a package does not import itself by name; use a relative path` : null;
  }
  const allowed = LADDER[owner];
  if (allowed === undefined)
    return `package ${owner} is not in the table of tools/check-layers.mjs; add it with what it may import`;
  if (allowed.includes(name)) return null;
  return `package ${owner} may import ${allowed.length > 0 ? allowed.join(', ') : 'no other package'}, not ${name}`;
}

function reasonAgainstOutside(file, specifier, owner, dependencies) {
  const isTest = /\.(test|contract|test-d)\.ts$|\/test-[^/]+\.ts$/.test(file);
  const name = specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
  if (specifier.startsWith('node:')) {
    if (isTest) return null;
    if (WITHOUT_NODE.has(owner))
      return `package ${owner} also runs in browsers and may not use node: modules`;
    const folder = owner === 'service' ? serviceFolder(file) : null;
    if (HTTP_MODULES.has(specifier) && WITHOUT_HTTP.has(folder ?? ''))
      return `${folder} knows nothing of HTTP; that is the gateway's`;
    return null;
  }
  if (builtinModules.includes(name)) return `write 'node:${specifier}'`;
  if (isTest) return null;
  if (TEST_TOOLS.has(name)) return `${name} belongs in tests (x.test.ts)`;
  if (WITHOUT_OUTSIDE_DEPENDENCIES.has(owner)) return `package ${owner} has no outside dependency`;
  if (dependencies.get(owner)?.has(name)) return null;
  return `${name} is not among the dependencies of packages/${owner}/package.json`;
}

function readRepository(root) {
  const patterns = [
    'packages/*/src/**/*.ts',
    'packages/*/src/**/*.tsx',
    'tests/**/*.ts',
    'examples/**/*.ts',
    'benchmarks/**/*.ts',
  ];
  const exclude = (path) => /(^|\/)(node_modules|dist|generated)(\/|$)/.test(path);
  const paths = globSync(patterns, { cwd: root, exclude }).filter((path) => !exclude(path));
  const files = new Map(paths.sort().map((path) => [path, readFileSync(join(root, path), 'utf8')]));
  const dependencies = new Map(
    globSync('packages/*/package.json', { cwd: root }).map((path) => {
      const manifest = JSON.parse(readFileSync(join(root, path), 'utf8'));
      return [path.split('/')[1], new Set(Object.keys(manifest.dependencies ?? {}))];
    }),
  );
  return { files, dependencies };
}

if (import.meta.main) {
  const { files, dependencies } = readRepository(resolve(dirname(fileURLToPath(import.meta.url)), '..'));
  const violations = checkLayers(files, dependencies);
  for (const violation of violations) console.error(violation);
  if (violations.length > 0) {
    console.error(`${violations.length} imports go against the layers (tools/check-layers.mjs).`);
    process.exitCode = 1;
  } else {
    console.log(`layers: ${files.size} files, every import points the right way`);
  }
}
