// Bundles the three programs that run from a plain `node FILE`, so that starting one reads a few files instead
// of a node_modules tree. The agent is exactly one file, because it is placed into hosts that have nothing else;
// the command line and the service may keep rarely used code (the AWS credential chain) in chunks loaded on demand.
import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { builtinModules } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');

const programs = [
  { entry: 'packages/cli/src/main.ts', output: 'packages/cli/dist/trainyard.mjs', chunks: true },
  {
    entry: 'packages/service/src/main.ts',
    output: 'packages/service/dist/trainyard-service.mjs',
    chunks: true,
  },
  { entry: 'packages/launch/src/main.ts', output: 'packages/launch/dist/agent.mjs', chunks: false },
];

// All are tried, so that one broken program does not hide the others.
for (const program of programs) {
  if (!existsSync(join(root, program.entry))) {
    console.log(`skipped ${program.output}: there is no ${program.entry}`);
    continue;
  }
  try {
    await bundle(program);
  } catch (error) {
    // esbuild has printed its own errors with their places.
    console.error(error.errors ? `${program.output} was not bundled` : error.message);
    process.exitCode = 1;
  }
}

async function bundle({ entry, output, chunks }) {
  const started = performance.now();
  const outdir = join(root, dirname(output));
  const name = output.slice(output.lastIndexOf('/') + 1, -'.mjs'.length);
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: { [name]: entry },
    outdir,
    outExtension: { '.js': '.mjs' },
    chunkNames: 'chunks/[name]-[hash]',
    bundle: true,
    splitting: chunks,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    // ES modules where a package has both: named exports of CommonJS are lost in a chunk loaded by import().
    conditions: ['@trainyard/source', 'module'],
    mainFields: ['module', 'main'],
    sourcemap: 'linked',
    sourcesContent: false,
    legalComments: 'none',
    metafile: true,
    logLevel: 'warning',
    logOverride: { 'import-is-undefined': 'error' },
    // CommonJS dependencies call require() for node's own modules, which an ES module does not have.
    banner: chunks
      ? {
          js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
        }
      : {},
  });
  for (const [file, { imports }] of Object.entries(metafile.outputs)) {
    const foreign = imports.filter(
      ({ path, external }) => external && !path.startsWith('node:') && !builtinModules.includes(path),
    );
    if (foreign.length > 0) {
      throw new Error(
        `${file} would need ${foreign.map(({ path }) => path).join(', ')} at run time; bundles may import node: modules only`,
      );
    }
  }
  const chunkCount = await removeStaleChunks(join(outdir, 'chunks'), metafile.outputs);
  const sizeBytes = Object.entries(metafile.outputs)
    .filter(([file]) => file.endsWith('.mjs'))
    .reduce((sum, [, { bytes }]) => sum + bytes, 0);
  const took = ((performance.now() - started) / 1000).toFixed(1);
  console.log(
    `bundled ${output} (${(sizeBytes / 1024).toFixed(0)} kB${chunkCount > 0 ? `, ${chunkCount} chunks` : ''}, ${took} s)`,
  );
}

/** Chunk names carry hashes, so an earlier build's chunks stay unless removed. Returns how many are in use. */
async function removeStaleChunks(folder, outputs) {
  const present = await readdir(folder).catch(() => []);
  const used = new Set(Object.keys(outputs).map((file) => join(root, file)));
  for (const file of present) {
    if (!used.has(join(folder, file))) await rm(join(folder, file), { force: true });
  }
  return [...used].filter((file) => dirname(file) === folder && file.endsWith('.mjs')).length;
}
