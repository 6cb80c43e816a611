import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { InvalidOption } from '../errors.ts';
import { PyTorch, Session } from '../index.ts';
import { ProblemList } from '../problem.ts';
import { prepareUpload } from '../uploads.ts';
import { checkGitConfig, gitCredentials, withHiddenSecrets } from './git-config.ts';
import type { GitConfig } from './git-config.ts';
import { withGitSource } from './git-source.ts';
import { packSource } from './source-archive.ts';

const NO_KEYS = { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' };
const TOKEN = 'ghp_secret+token';
let directory: string;
let server: Server;
let repo: string;
let firstCommit: string;

function git(...args: string[]): string {
  const identity = ['-c', 'user.name=t', '-c', 'user.email=t@example.org', '-c', 'init.defaultBranch=main'];
  const cwd = join(directory, 'work');
  return execFileSync('git', [...identity, ...args], {
    cwd,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  }).trim();
}

function commit(name: string): string {
  writeFileSync(join(directory, 'work', name), '\n');
  git('add', '.');
  git('commit', '--quiet', '-m', name);
  return git('rev-parse', 'HEAD');
}

/** A server as Git forges run it: git's own CGI program behind basic authentication. */
function serve(request: IncomingMessage, response: ServerResponse): void {
  const [, password = ''] = Buffer.from((request.headers.authorization ?? '').slice(6), 'base64')
    .toString()
    .split(':');
  if (password !== TOKEN) {
    response.writeHead(401, { 'www-authenticate': 'Basic realm="git"' }).end();
    return;
  }
  const url = new URL(request.url ?? '/', 'http://localhost');
  const env = {
    ...process.env,
    GIT_PROJECT_ROOT: directory,
    GIT_HTTP_EXPORT_ALL: '1',
    PATH_INFO: url.pathname,
    QUERY_STRING: url.search.slice(1),
    REQUEST_METHOD: request.method ?? 'GET',
    CONTENT_TYPE: request.headers['content-type'] ?? '',
    GIT_PROTOCOL: String(request.headers['git-protocol'] ?? ''),
    HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '',
  };
  const program = spawn('git', ['http-backend'], { env, stdio: ['pipe', 'pipe', 'ignore'] });
  request.pipe(program.stdin);
  const chunks: Buffer[] = [];
  program.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  program.stdout.on('end', () => {
    const output = Buffer.concat(chunks);
    const end = output.indexOf('\r\n\r\n');
    const head = output.subarray(0, end).toString().split('\r\n');
    for (const line of head) {
      const [name = '', value = ''] = line.split(': ');
      if (name === 'Status') response.statusCode = Number.parseInt(value, 10);
      else response.setHeader(name, value);
    }
    response.end(output.subarray(end + 4));
  });
}

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'trainyard-git-test-'));
  mkdirSync(join(directory, 'work/src'), { recursive: true });
  git('init', '--quiet');
  writeFileSync(join(directory, 'work/src/train.py'), '\n');
  firstCommit = commit('first.txt');
  commit('second.txt');
  git('checkout', '--quiet', '-b', 'feature');
  commit('feature.txt');
  git('checkout', '--quiet', 'main');
  git('clone', '--quiet', '--bare', '.', '../code.git');
  server = createServer(serve);
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  repo = `http://127.0.0.1:${(server.address() as AddressInfo).port}/code.git`;
}, 60_000);
afterAll(async () => {
  await new Promise((closed) => server.close(closed));
  rmSync(directory, { recursive: true, force: true });
});

async function members(config: Partial<GitConfig>, sourceDir: string | null = '.'): Promise<string[]> {
  const selection = {
    entryPoint: sourceDir === null ? 'src/train.py' : 'src/train.py',
    sourceDir,
    dependencies: [],
  };
  return await withGitSource({ repo, token: TOKEN, ...config }, selection, async (found) => {
    return (await packSource(found)).members;
  });
}

test.each<[string, () => Partial<GitConfig>, string[]]>([
  ['the default branch', () => ({}), ['first.txt', 'second.txt', 'src', 'src/train.py']],
  [
    'a branch',
    () => ({ branch: 'feature' }),
    ['feature.txt', 'first.txt', 'second.txt', 'src', 'src/train.py'],
  ],
  ['a commit', () => ({ commit: firstCommit }), ['first.txt', 'src', 'src/train.py']],
  [
    'a commit of a branch',
    () => ({ branch: 'feature', commit: firstCommit }),
    ['first.txt', 'src', 'src/train.py'],
  ],
])('%s is packed without its history', async (_what, config, names) => {
  expect(await members(config())).toEqual(names);
});

test('credentials may stand in the address, and a plan that is printed shows none', async () => {
  const inAddress = repo.replace('http://', `http://user:${encodeURIComponent(TOKEN)}@`);
  expect(await members({ repo: inAddress, token: undefined, commit: firstCommit })).toContain('first.txt');
  const hidden = withHiddenSecrets({ repo: inAddress, commit: firstCommit });
  expect(JSON.stringify(hidden)).toBe(JSON.stringify({ repo, commit: firstCommit }));
  const selection = { entryPoint: 'src/train.py', sourceDir: '.', dependencies: [] };
  expect(await withGitSource(hidden, selection, async () => 'cloned')).toBe('cloned');
});

test('an estimator with gitConfig sends the code of the repository', async () => {
  const session = new Session({
    on: 'aws',
    region: 'us-west-2',
    accountId: '123456789012',
    credentials: NO_KEYS,
  });
  const estimator = new PyTorch({
    entryPoint: 'train.py',
    sourceDir: 'src',
    gitConfig: { repo, token: TOKEN, branch: 'feature' },
    role: 'arn:aws:iam::123456789012:role/x',
    instanceType: 'ml.g5.xlarge',
    frameworkVersion: '2.8.0',
    pyVersion: 'py312',
    session,
  });
  const { request, uploads } = await estimator.render();
  expect(request.HyperParameters?.['sagemaker_program']).toBe('"train.py"');
  expect(JSON.stringify(uploads)).not.toContain(TOKEN);
  const archives: Blob[] = [];
  const s3 = { putObject: ({ body }: { body: Blob }) => Promise.resolve(archives.push(body)) };
  for (const upload of uploads) await (await prepareUpload(upload, () => {})).send(s3 as never, {});
  const archive = join(directory, 'sent.tar.gz');
  writeFileSync(archive, Buffer.from(await (archives[0] as Blob).arrayBuffer()));
  expect(execFileSync('tar', ['-tzf', archive], { encoding: 'utf8' })).toBe('train.py\n');
});

test('without a source directory the script alone is packed', async () => {
  expect(await members({}, null)).toEqual(['train.py']);
});

test.each<[string, Partial<GitConfig>, string, RegExp]>([
  ['another token', { token: 'ghp_wrong' }, 'gitConfig.repo', /could not get it/],
  ['no token', { token: undefined }, 'gitConfig.repo', /could not read Username/],
  ['an unknown branch', { branch: 'absent' }, 'gitConfig.repo', /Remote branch absent not found/],
  ['an unknown commit', { commit: '0123456' }, 'gitConfig.commit', /could not get it/],
])('with %s the failure says what git said, and no secret', async (_what, config, field, rule) => {
  const error = await members(config).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(InvalidOption);
  expect(error).toMatchObject({ id: 'E-GIT', field, rule: expect.stringMatching(rule) });
  const text = JSON.stringify(error) + String(error) + (error as Error).stack;
  expect(text).not.toContain(TOKEN);
  expect(text).not.toContain('ghp_wrong');
  expect(text).not.toContain(Buffer.from(`x-access-token:${TOKEN}`).toString('base64'));
});

const github = 'https://github.com/team/code.git';

// As AWS's SDK chooses them.
test.each<[GitConfig, ReturnType<typeof gitCredentials>, string[]]>([
  [{ repo: github, token: 't' }, { user: 'x-access-token', secret: 't' }, []],
  [
    { repo: github, token: 't', username: 'u', password: 'p' },
    { user: 'x-access-token', secret: 't' },
    ['gitConfig.username, gitConfig.password'],
  ],
  [{ repo: github, username: 'u', password: 'p' }, { user: 'u', secret: 'p' }, []],
  [
    { repo: github, twoFactorEnabled: true, username: 'u', password: 'p' },
    null,
    ['gitConfig.username, gitConfig.password'],
  ],
  [{ repo: github, username: 'u' }, null, ['gitConfig.username']],
  [{ repo: 'git@github.com:team/code.git', token: 't' }, null, ['gitConfig.token']],
  [
    {
      repo: 'https://git-codecommit.us-west-2.amazonaws.com/v1/repos/code',
      token: 't',
      username: 'u',
      password: 'p',
    },
    { user: 'u', secret: 'p' },
    ['gitConfig.token'],
  ],
])('%j authenticates by %j', (config, credentials, unused) => {
  const problems = new ProblemList({ onAws: false, strict: false });
  checkGitConfig(config, problems);
  expect(gitCredentials(config)).toEqual(credentials);
  expect(problems.errors).toEqual([]);
  expect(problems.warnings.map(({ field }) => field)).toEqual(unused);
});

test.each<[object, string]>([
  [{}, 'gitConfig.repo'],
  [{ repo: '' }, 'gitConfig.repo'],
  [{ repo: 'ftp://example.org/code.git' }, 'gitConfig.repo'],
  [{ repo: '--upload-pack=touch' }, 'gitConfig.repo'],
  [{ repo: 'https://a@b@example.org/code.git' }, 'gitConfig.repo'],
  [{ repo: 'https://exa%40mple.org/code.git' }, 'gitConfig.repo'],
  [{ repo: github, branch: 3 }, 'gitConfig.branch'],
  [{ repo: github, commit: '--force' }, 'gitConfig.commit'],
  [{ repo: github, twoFactorEnabled: 'yes' }, 'gitConfig.twoFactorEnabled'],
])('%j is refused', (config, field) => {
  const problems = new ProblemList({ onAws: false, strict: false });
  checkGitConfig(config as GitConfig, problems);
  expect(problems.errors.map((problem) => `${problem.id} ${problem.field}`)).toEqual([`E-GIT ${field}`]);
});
