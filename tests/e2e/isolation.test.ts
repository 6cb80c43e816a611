import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createJob, finished, logLines, unpacked } from '../support/jobs.ts';
import { expectAgentClosed } from '../support/secrets.ts';
import { BUCKET, ROOT, RUNTIME_PYTHON, startService, type TestService } from '../support/service.ts';

/** A user without privileges and without files, `nobody` on most systems. */
const PLAIN_USER = 65_534;
const isRoot = process.getuid?.() === 0;
const CAP_SYS_ADMIN = 1n << 21n;

interface Seen {
  argv: string[];
  cwd: string;
  environment: Record<string, string>;
  input: string[];
  resourceconfig: Record<string, unknown>;
  hyperparameters: Record<string, string>;
  hostname: string;
  peers: Record<string, { ok: boolean; value?: string }>;
  endpoint: { ok: boolean; value?: number };
  hidden: { ok: boolean; value?: string[] };
  write_etc: { ok: boolean };
  capabilities: string[];
}

/** Interpreters that may serve where the runtime lies in another user's home; the script needs no packages. */
const PYTHONS = [RUNTIME_PYTHON, '/usr/bin/python3', '/usr/local/bin/python3'];

const runsAsPlainUser = (command: string, ...args: string[]): boolean =>
  spawnSync(command, args, { uid: PLAIN_USER, gid: PLAIN_USER, cwd: '/' }).status === 0;
const isOldEnough = 'import sys; sys.exit(sys.version_info < (3, 10))';
const plainPython =
  process.getuid?.() === 0 ? PYTHONS.find((python) => runsAsPlainUser(python, '-c', isOldEnough)) : undefined;

/** Why there can be no service of a plain user here; null when there can. */
function whyNoPlainUser(): string | null {
  if (process.getuid?.() !== 0) return 'only root can start a service as another user';
  if (!runsAsPlainUser(process.execPath, '--version'))
    return `${process.execPath} cannot be run by uid ${PLAIN_USER}`;
  if (!runsAsPlainUser('test', '-r', join(ROOT, 'packages/service/dist/trainyard-service.mjs')))
    return `${ROOT} cannot be read by uid ${PLAIN_USER}`;
  if (plainPython === undefined) return `none of ${PYTHONS.join(', ')} can be run by uid ${PLAIN_USER}`;
  return null;
}

function whyNoUserNamespaces(): string | null {
  const why = whyNoPlainUser();
  if (why !== null) return why;
  const works = runsAsPlainUser('unshare', '--user', '--map-root-user', '--mount', '--net', 'true');
  return works ? null : 'this machine gives plain users no namespaces';
}

/** A runtimes folder for an interpreter that lies elsewhere. */
function runtimesOf(python: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'trainyard-runtimes-'));
  chmodSync(directory, 0o755);
  mkdirSync(join(directory, 'pytorch'));
  const manifest = {
    name: 'pytorch',
    framework: 'pytorch',
    version: null,
    python,
    binDirs: ['/usr/bin'],
    mpi: null,
  };
  writeFileSync(join(directory, 'pytorch/runtime.json'), JSON.stringify(manifest));
  return directory;
}

interface Rung {
  rung: string;
  uid: number | undefined;
  environment: Record<string, string>;
  skip: string | null;
}

const RUNGS: Rung[] = [
  {
    rung: 'namespaces',
    uid: undefined,
    environment: {},
    skip: isRoot ? null : 'namespaces without user namespaces need root',
  },
  { rung: 'user-namespaces', uid: PLAIN_USER, environment: {}, skip: whyNoUserNamespaces() },
  {
    rung: 'processes',
    // Nothing but the user's own rights holds a script back here.
    uid: isRoot ? PLAIN_USER : undefined,
    environment: { TRAINYARD_ISOLATION: 'processes' },
    skip: isRoot ? whyNoPlainUser() : null,
  },
];

const seenOn = new Map<string, Seen[]>();

describe.each(RUNGS)('on the rung $rung', ({ rung, uid, environment, skip }) => {
  let service: TestService;
  let seen: Seen[];
  let lines: string[];
  let runtimes: string | null = null;

  beforeAll(async () => {
    if (skip !== null) return;
    if (uid !== undefined && plainPython !== undefined && plainPython !== RUNTIME_PYTHON) {
      runtimes = runtimesOf(plainPython);
    }
    service = await startService({
      environment: {
        ...environment,
        ...(runtimes === null ? {} : { TRAINYARD_RUNTIMES: runtimes }),
        ...(uid === undefined ? {} : { TRAINYARD_INIT_PYTHON: plainPython! }),
      },
      ...(uid === undefined ? {} : { uid }),
    });
    await service.s3.putObject({ bucket: BUCKET, key: 'train/a.csv', body: '1' });
    await service.s3.putObject({ bucket: BUCKET, key: 'train/deep/b.csv', body: '2' });
    const S3DataSource = { S3DataType: 'S3Prefix' as const, S3Uri: `s3://${BUCKET}/train` };
    const name = await createJob(service, {
      name: 'shown',
      script: 'show_host.py',
      distribution: 'none',
      hyperParameters: { lr: '0.1', words: '"a b"' },
      change: {
        Environment: { HIDDEN_DIR: service.dataDir, MINE: 'yes' },
        InputDataConfig: [{ ChannelName: 'train', DataSource: { S3DataSource } }],
      },
    });
    const job = await finished(service, name);
    const model = await unpacked(service, job.ModelArtifacts.S3ModelArtifacts!);
    seen = ['algo-1', 'algo-2'].map(
      (host) => JSON.parse(readFileSync(join(model.directory, `${host}.json`), 'utf8')) as Seen,
    );
    model.dispose();
    lines = await logLines(service, name);
    seenOn.set(rung, seen);
  });
  afterAll(async () => {
    await service?.dispose();
    if (runtimes !== null) rmSync(runtimes, { recursive: true });
  });

  it.skipIf(skip !== null)(`the service says so${skip === null ? '' : ` (skipped: ${skip})`}`, () => {
    expect(service.log()).toContain(`isolation: ${rung}`);
    expect(lines).toEqual(expect.arrayContaining(['algo-1: to stdout', 'algo-2: to stderr']));
  });

  it.skipIf(skip !== null)('a script finds what the contract promises on every rung', () => {
    seen.forEach((host, index) => {
      const root = host.environment['SM_MODEL_DIR']!.replace(/\/model$/, '');
      expect(host.argv.slice(1)).toEqual(['--lr', '0.1', '--words', 'a b']);
      expect(host.cwd).toBe(`${root}/code`);
      expect(host.hyperparameters).toMatchObject({ lr: '0.1', words: '"a b"' });
      expect(host.input).toEqual(expect.arrayContaining(['data/train/a.csv', 'data/train/deep/b.csv']));
      expect(host.resourceconfig).toMatchObject({
        current_host: `algo-${index + 1}`,
        hosts: ['algo-1', 'algo-2'],
        current_instance_type: 'ml.m5.xlarge',
      });
      expect(host.environment).toMatchObject({
        SM_CHANNEL_TRAIN: `${root}/input/data/train`,
        SM_CURRENT_HOST: `algo-${index + 1}`,
        SM_HOSTS: '["algo-1","algo-2"]',
        SM_OUTPUT_DATA_DIR: `${root}/output/data`,
        MINE: 'yes',
        AWS_REGION: 'us-west-2',
      });
      expect(host.endpoint).toEqual({ ok: true, value: 200 });
      const keys = JSON.stringify(host.environment);
      expect(keys).not.toContain(service.credentials.secretAccessKey);
      expect(keys).not.toContain(service.credentials.accessKeyId);
    });
  });

  // Plain processes promise none of this.
  if (rung === 'processes') return;
  it.skipIf(skip !== null)('a host is a place of its own', () => {
    seen.forEach((host, index) => {
      expect(host.environment['SM_MODEL_DIR']).toBe('/opt/ml/model');
      expect(host.hostname).toBe(`algo-${index + 1}`);
      const peers = Object.values(host.peers).map(({ value }) => value);
      expect(new Set(peers).size).toBe(2);
      expect(peers.every((address) => address !== undefined && !address.startsWith('127.'))).toBe(true);
      // The data directory of the service, the machine's files, the machine itself.
      expect(host.hidden.ok ? host.hidden.value : []).toEqual([]);
      expect(host.write_etc.ok).toBe(false);
      const effective = host.capabilities.find((line) => line.startsWith('CapEff'))!;
      expect(BigInt(`0x${effective.split(/\s+/)[1]}`) & CAP_SYS_ADMIN).toBe(0n);
    });
    expect(existsSync('/etc/trainyard-was-here')).toBe(false);
  });

  it.skipIf(skip !== null)('token, keys and memory of the agent are closed to a script', () =>
    expectAgentClosed(service, 'none', ['algo-1'], false),
  );
});

describe('all rungs', () => {
  it('give a script the same variables and files, but for paths, addresses and the network interface', (context) => {
    const differs =
      /^(AWS_|TRAINYARD_|PATH$|PYTHONPATH$|HOME$|USER$|LD_|HOSTNAME$|S3_|MASTER_|HIDDEN_DIR$|GLOO_SOCKET_IFNAME$|SM_DLC_TORCH_VERSION$|.*_PROXY$|.*_proxy$)/;
    const comparable = ([host]: Seen[]): unknown => {
      const root = host!.environment['SM_MODEL_DIR']!.replace(/\/model$/, '');
      const own = String(host!.resourceconfig['network_interface_name']);
      const plain = (text: string): string =>
        text
          .replaceAll(root, '/opt/ml')
          .replaceAll(`"${own}"`, '"eth0"')
          .replace(new RegExp(`^${own}$`), 'eth0');
      const environment = Object.entries(host!.environment)
        .filter(([name]) => !differs.test(name))
        .map(([name, value]) => [name, plain(value)]);
      return {
        environment: Object.fromEntries(environment.sort()),
        input: host!.input,
        hyperparameters: host!.hyperparameters,
      };
    };
    const [first, ...others] = [...seenOn.values()].map(comparable);
    if (others.length === 0) return context.skip('only one rung runs on this machine');
    for (const other of others) expect(other).toEqual(first);
  });
});
