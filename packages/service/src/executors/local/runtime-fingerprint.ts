import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const searched = new Map<string, Promise<string[]>>();

/**
 * Changes when packages of an interpreter are installed, removed or replaced, or when our own Python files do: a copy of what was
 * loaded before would then differ from a fresh start.
 *
 * @returns null for an interpreter without PyTorch, which is not preloaded. TensorFlow reads variables when it is imported that scripts set
 * just before (`TF_USE_LEGACY_KERAS`, `TF_CPP_MIN_LOG_LEVEL`), and importing MXNet starts a server where `DMLC_ROLE` asks for one: a copy
 * that has imported them would behave otherwise than a fresh start
 * @throws Error when the interpreter does not run
 */
export async function runtimeFingerprint(python: string, initDir: string): Promise<string | null> {
  const directories = await packageDirectories(python);
  const hash = createHash('sha256').update(python);
  let hasTorch = false;
  for (const directory of directories) {
    const names = (await readdir(directory).catch(() => [])).sort();
    hasTorch ||= names.includes('torch');
    const files = names.flatMap((name) => {
      if (name.endsWith('.dist-info')) return [join(directory, name, 'RECORD')];
      return name.endsWith('.pth') || name.endsWith('.egg-link') ? [join(directory, name)] : [];
    });
    for (const line of await Promise.all(files.map(describe))) hash.update(line);
  }
  if (!hasTorch) return null;
  const ours = (await readdir(initDir)).filter((name) => name.endsWith('.py')).sort();
  for (const line of await Promise.all(ours.map((name) => describe(join(initDir, name))))) hash.update(line);
  return hash.digest('hex').slice(0, 32);
}

async function describe(path: string): Promise<string> {
  const found = await stat(path).catch(() => null);
  return `${path}\0${found?.size}\0${found?.mtimeMs}\n`;
}

/** An interpreter's own answer, asked once. */
async function packageDirectories(python: string): Promise<string[]> {
  let answer = searched.get(python);
  if (answer === undefined) {
    const program = 'import json, site; print(json.dumps(site.getsitepackages()))';
    answer = promisify(execFile)(python, ['-I', '-c', program]).then(
      ({ stdout }) => JSON.parse(stdout) as string[],
    );
    searched.set(python, answer);
    answer.catch(() => searched.delete(python));
  }
  return answer;
}
