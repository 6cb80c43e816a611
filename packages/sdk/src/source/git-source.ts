import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { InvalidOption } from '../errors.ts';
import type { GitConfig } from './git-config.ts';
import { addressOf, gitCredentials } from './git-config.ts';
import type { SourceSelection } from './source-files.ts';

const run = promisify(execFile);
const CLONE_TIMEOUT_MS = 10 * 60_000;

/**
 * Clones the repository, calls `action` with the paths inside the clone, and removes it.
 * @throws InvalidOption (`E-GIT`) with what git said when the repository, branch or commit cannot be had
 */
export async function withGitSource<Result>(
  config: GitConfig,
  selection: SourceSelection,
  action: (selection: SourceSelection) => Promise<Result>,
): Promise<Result> {
  const directory = await mkdtemp(join(tmpdir(), 'trainyard-git-'));
  try {
    await clone(config, directory);
    return await action(insideClone(selection, directory));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function insideClone(
  { entryPoint, sourceDir, dependencies }: SourceSelection,
  directory: string,
): SourceSelection {
  return {
    entryPoint: sourceDir === null ? join(directory, entryPoint) : entryPoint,
    sourceDir: sourceDir === null ? null : join(directory, sourceDir),
    dependencies: dependencies.map((path) => join(directory, path)),
  };
}

async function clone(config: GitConfig, directory: string): Promise<void> {
  const { branch, commit } = config;
  const repo = addressOf(config);
  const branchOption = branch === undefined ? [] : ['--branch', branch];
  const depth = commit === undefined ? ['--depth', '1'] : [];
  await git(config, 'repo', ['clone', '--quiet', ...depth, ...branchOption, '--', repo, directory]);
  if (commit !== undefined)
    await git(config, 'commit', ['-C', directory, 'checkout', '--quiet', commit, '--']);
  // The history is no code, and may be large.
  await rm(join(directory, '.git'), { recursive: true, force: true });
}

async function git(config: GitConfig, field: keyof GitConfig, args: string[]): Promise<void> {
  try {
    await run('git', args, { env: environment(config), timeout: CLONE_TIMEOUT_MS });
  } catch (error) {
    const { stderr = '', code } = error as { stderr?: string; code?: unknown };
    const isMissing = code === 'ENOENT';
    const said = withoutSecrets(stderr.trim().split('\n').at(-1) ?? '', config);
    throw new InvalidOption([
      {
        id: 'E-GIT',
        field: `gitConfig.${field}`,
        value: field === 'repo' ? addressOf(config) : config[field],
        rule: isMissing ? 'Cloning needs git, and this machine has none.' : `git could not get it: ${said}`,
        nextStep: isMissing
          ? 'Install git, or clone the repository and use sourceDir.'
          : 'Correct the name, or the credentials; `git clone` in a shell tells more.',
      },
    ]);
  }
}

/** Credentials go through the environment: neither command lines nor the clone's configuration show them. */
function environment(config: GitConfig): NodeJS.ProcessEnv {
  const credentials = gitCredentials(config);
  const base: NodeJS.ProcessEnv = {
    ...process.env,
    GIT_TERMINAL_PROMPT: '0',
    LC_ALL: 'C',
    GIT_SSH_COMMAND: process.env['GIT_SSH_COMMAND'] ?? 'ssh -oBatchMode=yes',
  };
  if (!credentials) return base;
  const basic = Buffer.from(`${credentials.user}:${credentials.secret}`).toString('base64');
  // The user may have settings there already.
  const count = Number(process.env['GIT_CONFIG_COUNT'] ?? 0);
  return {
    ...base,
    GIT_CONFIG_COUNT: String(count + 1),
    [`GIT_CONFIG_KEY_${count}`]: `http.${new URL(addressOf(config)).origin}/.extraHeader`,
    [`GIT_CONFIG_VALUE_${count}`]: `Authorization: Basic ${basic}`,
  };
}

function withoutSecrets(text: string, config: GitConfig): string {
  const { secret } = gitCredentials(config) ?? {};
  return secret ? text.replaceAll(secret, '…') : text;
}
