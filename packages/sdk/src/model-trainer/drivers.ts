import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { PythonValue } from '@trainyard/api';
import { joinS3Uri, parseS3Uri, pythonJson } from '@trainyard/api';
import type { PlannedUpload } from '../job-plan.ts';
import type { DistributedConfig } from './distributed.ts';
import type { SourceCode } from './trainer-options.ts';
import { IGNORED_NAMES } from './trainer-options.ts';

/** The same depth below `src` and `dist`. */
const DRIVERS = join(import.meta.dirname, '../../drivers');
const TRAIN_SCRIPT = 'sm_train.sh';
const NOT_SENT = ['README.md', '__pycache__', TRAIN_SCRIPT];

/** Uploads of the channel that starts the script: our drivers, those of the user, and what this job does. */
export async function driverUploads(
  uri: string,
  sourceCode: SourceCode,
  distributed: DistributedConfig | undefined,
): Promise<PlannedUpload[]> {
  const files = new Map((await filesBelow(DRIVERS)).map((name) => [name, join(DRIVERS, name)]));
  const own = distributed?.driverDir ?? null;
  if (own !== null) {
    for (const name of await filesBelow(own)) files.set(`distributed_drivers/${name}`, join(own, name));
  }
  const at = (name: string): { bucket: string; key: string } => parseS3Uri(joinS3Uri(uri, name));
  const text = (name: string, body: string): PlannedUpload => ({ kind: 'text', ...at(name), body });
  return [
    ...[...files].map(([name, path]): PlannedUpload => ({ kind: 'file', ...at(name), path })),
    text('sourcecode.json', pythonJson(sourceCodeJson(sourceCode))),
    text('distributed.json', pythonJson(distributed?.config() ?? {})),
    text(TRAIN_SCRIPT, await trainScript(sourceCode, distributed)),
  ];
}

async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) =>
      join(entry.parentPath, entry.name)
        .slice(directory.length + 1)
        .replaceAll('\\', '/'),
    )
    .filter((name) => !name.split('/').some((part) => NOT_SENT.includes(part)))
    .sort();
}

/** As Python's SDK writes it, absent members as null. */
export function sourceCodeJson(sourceCode: SourceCode): { [name: string]: PythonValue } {
  return {
    source_dir: sourceCode.sourceDir ?? null,
    requirements: sourceCode.requirements ?? null,
    entry_script: sourceCode.entryScript ?? null,
    command: sourceCode.command ?? null,
    args: sourceCode.args ? [...sourceCode.args] : null,
    ignore_patterns: [...(sourceCode.ignorePatterns ?? IGNORED_NAMES)],
  };
}

/** The common part, which defines the steps, and the steps of this job. */
async function trainScript(
  { sourceDir, requirements, command, args = [] }: SourceCode,
  distributed: DistributedConfig | undefined,
): Promise<string> {
  const common = await readFile(join(DRIVERS, TRAIN_SCRIPT), 'utf8');
  const archive = sourceDir?.endsWith('.tar.gz') ? sourceDir.split('/').at(-1) : undefined;
  const driver = distributed?.driverScript ?? 'basic_script_driver.py';
  const steps = [
    ...(sourceDir === undefined ? [] : [`enter_code ${archive ? quote(archive) : ''}`.trimEnd()]),
    ...(requirements === undefined ? [] : [`install_requirements ${quote(requirements)}`]),
    command === undefined
      ? `run_driver ${quote(driver)}`
      : `run_command ${quote([command, ...args.map(quote)].join(' '))}`,
  ];
  return `${common}${steps.join('\n')}\n`;
}

/** One word for a shell. */
function quote(text: string): string {
  return /^[\w./:=@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}
