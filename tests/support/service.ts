import { type ChildProcess, spawn } from 'node:child_process';
import {
  chownSync,
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import type { AwsClient, DescribeTrainingJobResponse, S3Client } from '@trainyard/api';
import { createAwsClient, createS3Client } from '@trainyard/api';
import { until } from './until.ts';

export const ROOT = resolve(import.meta.dirname, '../..');
export const RUNTIMES = process.env['TRAINYARD_RUNTIMES'] ?? join(ROOT, '.trainyard/runtimes');
export const RUNTIME_PYTHON = join(RUNTIMES, 'pytorch/bin/python');
export const BUCKET = 'test-bucket';
export const ROLE = 'arn:aws:iam::000000000000:role/Test';
export const IMAGE = '763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training:2.3.0-cpu-py311';

export interface TestService {
  readonly dataDir: string;
  readonly url: string;
  readonly pid: number;
  readonly credentials: { accessKeyId: string; secretAccessKey: string };
  readonly aws: AwsClient;
  readonly s3: S3Client;
  /** Variables that point AWS clients here. */
  readonly environment: Record<string, string>;
  describe(name: string): Promise<DescribeTrainingJobResponse>;
  /** Trainyard's own API, signed. */
  log(): string;
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Starts again on the same data directory. */
  start(): Promise<void>;
  /** Starts only if it is dead. */
  ensureRunning(): Promise<void>;
  /** Ends the service, every host it started, and removes the directory. */
  dispose(): Promise<void>;
}

/** A real service of the build in a directory of its own. */
export async function startService(
  options: {
    hosts?: number;
    environment?: Record<string, string>;
    flags?: string[];
    /** Where the data directory is made, such as on a disk of its own. @default the system's temporary directory */
    parent?: string;
    /** File for what the service prints. @default one beside the data directory */
    logFile?: string;
    /** Runs as this user, who then owns the data directory; needs root. */
    uid?: number;
  } = {},
): Promise<TestService> {
  const dataDir = mkdtempSync(join(options.parent ?? tmpdir(), 'trainyard-test-'));
  const { uid } = options;
  if (uid !== undefined) chownSync(dataDir, uid, uid);
  let child: ChildProcess | null = null;
  let url = '';
  let aws: AwsClient;
  let s3: S3Client;
  let credentials = { accessKeyId: '', secretAccessKey: '' };
  // Not inside, where the service's own files are.
  const logFile = options.logFile ?? join(tmpdir(), `${basename(dataDir)}.log`);

  const start = async (): Promise<void> => {
    const output = openSync(logFile, 'a');
    child = spawn(
      process.execPath,
      [
        join(ROOT, 'packages/service/dist/trainyard-service.mjs'),
        '--data',
        dataDir,
        '--port',
        '0',
        ...(options.hosts ? ['--hosts', String(options.hosts)] : []),
        ...(options.flags ?? []),
      ],
      {
        env: { ...clean(process.env), TRAINYARD_RUNTIMES: RUNTIMES, ...options.environment },
        stdio: ['ignore', output, output],
        ...(uid === undefined ? {} : { uid, gid: uid, cwd: dataDir }),
      },
    );
    closeSync(output);
    const { pid } = child;
    const file = await until(
      'the service to listen',
      () => {
        if (child?.exitCode !== null) throw new Error(`the service ended: ${readFileSync(logFile, 'utf8')}`);
        const found = JSON.parse(readFileSync(join(dataDir, 'service.json'), 'utf8')) as {
          url: string;
          pid: number;
        };
        return found.pid === pid ? found : null;
      },
      { deadlineMs: 30_000 },
    );
    url = file.url;
    credentials = JSON.parse(readFileSync(join(dataDir, 'credentials.json'), 'utf8')) as typeof credentials;
    const connection = { region: 'us-west-2', credentials };
    aws = createAwsClient({ endpoint: url, ...connection });
    s3 = createS3Client({ endpoint: url, ...connection });
  };

  const kill = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<void> => {
    const current = child;
    if (!current || current.exitCode !== null || current.signalCode !== null) return;
    const gone = new Promise((done) => current.once('exit', done));
    current.kill(signal);
    await gone;
  };

  try {
    await start();
    await s3!.createBucket({ bucket: BUCKET });
  } catch (error) {
    await kill();
    rmSync(dataDir, { recursive: true, force: true });
    throw error;
  }
  return {
    dataDir,
    get url() {
      return url;
    },
    get pid() {
      return child!.pid!;
    },
    get credentials() {
      return credentials;
    },
    get aws() {
      return aws;
    },
    get s3() {
      return s3;
    },
    get environment() {
      return {
        AWS_ENDPOINT_URL: url,
        AWS_ACCESS_KEY_ID: credentials.accessKeyId,
        AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
        AWS_REGION: 'us-west-2',
        AWS_DEFAULT_REGION: 'us-west-2',
        AWS_EC2_METADATA_DISABLED: 'true',
      };
    },
    describe: (name) => aws.sagemaker.call('DescribeTrainingJob', { TrainingJobName: name }),
    log: () => readFileSync(logFile, 'utf8'),
    kill,
    start,
    ensureRunning: async () => {
      if (child!.exitCode !== null || child!.signalCode !== null) await start();
    },
    dispose: async () => {
      await kill('SIGTERM');
      await endProcessesOf(dataDir);
      rmSync(dataDir, { recursive: true, force: true });
      rmSync(logFile, { force: true });
    },
  };
}

/** Variables of the developer's own set-up must not reach a test. */
function clean(environment: NodeJS.ProcessEnv): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).filter(
      (entry): entry is [string, string] =>
        entry[1] !== undefined && !/^(AWS_(?!CA_BUNDLE)|TRAINYARD_|SM_|SAGEMAKER_)/.test(entry[0]),
    ),
  );
}

/** A test that failed may have left a job behind; the clean-up must not depend on the code under test. */
export async function endProcessesOf(dataDir: string): Promise<void> {
  for (const pid of processesOf(dataDir)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended by itself.
    }
  }
  await until('the processes of the test to be gone', () => processesOf(dataDir).length === 0, {
    deadlineMs: 20_000,
  });
}

/** Live processes that have the text in their command line or environment, and all that live in the hosts of those. */
export function processesOf(text: string): number[] {
  const all = readdirSync('/proc').filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid);
  const mine = namespaceOf('self');
  const named = all.filter((pid) => isAlive(pid) && about(pid).includes(text));
  // Ranks know nothing of the data directory, but they share their init's view of the file system.
  const hosts = new Set(
    named.map(namespaceOf).filter((namespace) => namespace !== null && namespace !== mine),
  );
  return all
    .filter((pid) => named.includes(pid) || (hosts.has(namespaceOf(pid)) && isAlive(pid)))
    .map(Number);
}

export interface HostProcess {
  pid: number;
  /** `algo-1`; null for what lives outside the hosts. */
  host: string | null;
  command: string;
}

/** The processes of a job with the host each is in. */
export function hostProcesses(service: TestService, job: string): HostProcess[] {
  return processesOf(`${service.dataDir}/jobs/${job}/`).map((pid) => {
    return { pid, host: hostOf(pid), command: commandOf(pid) };
  });
}

/** By the directory of the machine that it sees as `/run/trainyard`; null outside the hosts, and when it has gone. */
function hostOf(pid: number): string | null {
  try {
    const mounts = readFileSync(`/proc/${pid}/mountinfo`, 'utf8');
    return /\/hosts\/([^/ ]+)\/run \/run\/trainyard /.exec(mounts)?.[1] ?? null;
  } catch {
    return null;
  }
}

function commandOf(pid: number | string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

function about(pid: string): string {
  try {
    return commandOf(pid) + readFileSync(`/proc/${pid}/environ`, 'latin1');
  } catch {
    return '';
  }
}

function isAlive(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.[0] !== 'Z';
  } catch {
    return false;
  }
}

function namespaceOf(pid: string): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`);
  } catch {
    return null;
  }
}
