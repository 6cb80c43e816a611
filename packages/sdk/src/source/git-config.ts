import type { ProblemList } from '../problem.ts';

/** A git repository that holds the code. It is cloned with `git` of this machine when the job is sent. */
export interface GitConfig {
  /** `https://…`, `ssh://…` or `git@host:path`. */
  repo: string;
  /** @default the repository's own */
  branch?: string;
  /** @default the newest of the branch */
  commit?: string;
  /** Python's `2FA_enabled`: then only a token can authenticate. */
  twoFactorEnabled?: boolean;
  username?: string;
  password?: string;
  /** Wins over `username` and `password`; GitHub and the like only, not CodeCommit. */
  token?: string;
}

const TEXTS = ['repo', 'branch', 'commit', 'username', 'password', 'token'] as const;

/**
 * Types, form of the address, and credentials that will not be used. Secrets never stand in a problem.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/git_utils.py
 */
export function checkGitConfig(config: GitConfig, problems: ProblemList): void {
  for (const name of TEXTS) {
    const value: unknown = config[name];
    if ((value === undefined && name !== 'repo') || (typeof value === 'string' && value !== '')) continue;
    refuse(name, typeof value, 'It must be text that is not empty.', 'Correct the value.', problems);
  }
  const { twoFactorEnabled } = config;
  if (twoFactorEnabled !== undefined && typeof twoFactorEnabled !== 'boolean')
    refuse('twoFactorEnabled', twoFactorEnabled, 'It must be true or false.', 'Correct the value.', problems);
  if (typeof config.repo === 'string' && config.repo !== '') checkAddress(config.repo, problems);
  for (const name of ['branch', 'commit'] as const) {
    if (typeof config[name] === 'string' && config[name].startsWith('-'))
      refuse(name, config[name], 'A name does not begin with a hyphen.', 'Correct the name.', problems);
  }
  warnOfUnused(config, problems);
}

function checkAddress(repo: string, problems: ProblemList): void {
  const isWeb = /^https?:\/\//.test(repo);
  const shown = addressOf({ repo });
  if (!isWeb && !/^(ssh:\/\/|git@)/.test(repo)) {
    refuse(
      'repo',
      shown,
      'It begins with https://, http://, ssh:// or git@.',
      'Correct the address.',
      problems,
    );
    return;
  }
  const host = isWeb ? (/^https?:\/\/(?:[^@/]*@)?([^/:]*)/.exec(repo)?.[1] ?? '') : null;
  const isPlain = !/[<>[\]{}\\^`|\s]/.test(repo) && (host === null || /^[a-zA-Z0-9.-]+$/.test(host));
  const atSigns = repo.split('@').length - 1;
  if (!isPlain || atSigns > 1 || (repo.startsWith('git@') && atSigns !== 1))
    refuse(
      'repo',
      shown,
      'It holds characters that an address of a repository does not have.',
      'Correct it.',
      problems,
    );
}

/** A copy whose secrets are there to be read, but neither printed nor serialised: plans are shown to people. */
export function withHiddenSecrets(config: GitConfig): GitConfig {
  const copy = { ...config, repo: addressOf(config) };
  for (const name of ['username', 'password', 'token'] as const) delete copy[name];
  const { user, secret } = gitCredentials(config) ?? {};
  const hidden = { enumerable: false };
  return Object.defineProperties(copy, {
    username: { ...hidden, value: user },
    password: { ...hidden, value: secret },
    // It was taken into account above, and must not forbid the password.
    twoFactorEnabled: { ...hidden, value: undefined },
  });
}

/** Which credentials go to the server; null for none, or for those of this machine's own git. */
export function gitCredentials(config: GitConfig): { user: string; secret: string } | null {
  const { token, username, password, repo } = config;
  if (!/^https?:\/\//.test(repo)) return null;
  const isCodeCommit = repo.startsWith('https://git-codecommit');
  // Servers that take a token as password take any user name with it.
  if (token !== undefined && !isCodeCommit) return { user: 'x-access-token', secret: token };
  const [, user, secret] = /^https?:\/\/([^@/:]*)(?::([^@/]*))?@/.exec(repo) ?? [];
  if (user !== undefined)
    return secret === undefined
      ? { user: 'x-access-token', secret: decodeURIComponent(user) }
      : { user: decodeURIComponent(user), secret: decodeURIComponent(secret) };
  if (config.twoFactorEnabled && !isCodeCommit) return null;
  return username !== undefined && password !== undefined ? { user: username, secret: password } : null;
}

/** The address without credentials: those go another way. */
export function addressOf({ repo }: GitConfig): string {
  return repo.replace(/^(https?:\/\/)[^@/]*@/, '$1');
}

function warnOfUnused(config: GitConfig, problems: ProblemList): void {
  const given = (['username', 'password', 'token'] as const).filter((name) => config[name] !== undefined);
  const used = gitCredentials(config);
  const unused = given.filter((name) => used?.secret !== config[name] && used?.user !== config[name]);
  if (unused.length === 0) return;
  problems.warn({
    id: 'W-GIT-CREDENTIALS',
    field: unused.map((name) => `gitConfig.${name}`).join(', '),
    value: '…',
    rule: 'It is not used: https takes a token, or user name and password together; ssh takes keys; two-factor accounts take a token; CodeCommit takes none.',
    nextStep: 'Remove it, or give what is missing.',
  });
}

function refuse(
  name: keyof GitConfig,
  value: unknown,
  rule: string,
  nextStep: string,
  problems: ProblemList,
): void {
  problems.refuse({ id: 'E-GIT', field: `gitConfig.${name}`, value, rule, nextStep });
}
