import { existsSync, mkdirSync } from 'node:fs';
import { readFile, rm, rmdir, stat, statfs, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { LogBatch, RuntimePlan } from '@trainyard/api';
import type { ServiceConfig } from './config.ts';
import { DiskReserve, isDiskFull } from './store/disk-reserve.ts';
import { lockExclusively } from './exclusive-lock.ts';
import type { IsolationReport } from './executors/executor.ts';
import { ForkServers } from './executors/local/fork-server.ts';
import { LocalExecutor } from './executors/local/local-executor.ts';
import { resolveImage } from './executors/local/image-table.ts';
import { installedPackages } from './executors/local/installed-packages.ts';
import { readRuntimes, runtimeTable } from './executors/local/runtimes.ts';
import { AgentApi } from './gateway/agent.ts';
import { createS3Authorizer } from './gateway/policy.ts';
import type { CredentialLookup } from './gateway/principal.ts';
import { createGateway } from './gateway/server.ts';
import { createS3Handler } from './gateway/s3/handler.ts';
import { TrainyardApi } from './gateway/trainyard.ts';
import { hostToken, loadIdentity } from './identity.ts';
import { JobCommands } from './jobs/commands.ts';
import { createLogsOperations } from './logs/operations.ts';
import { createLogStore, LogGapError } from './logs/store.ts';
import { DiskObjectStore } from './objects/disk-object-store.ts';
import { Reconciler } from './reconcile/reconciler.ts';
import { readServiceFile, removeServiceFile, writeServiceFile } from './service-file.ts';
import { openDatabase } from './store/database.ts';
import { FileSystemStore } from './store/file-system-store.ts';
import { HostStore } from './store/host-store.ts';
import type { Host } from './store/host-store.ts';
import type { Job } from './store/job-store.ts';
import { JobStore } from './store/job-store.ts';
import { KeyStore } from './store/key-store.ts';
import { VERSION } from './version.ts';

/** How often a full disk is mentioned. */
const FULL_REMINDER_MS = 60_000;
/** Not at once: nothing may delay the first job. */
const HOLD_RESERVE_MS = 2_000;

export class DirectoryInUse extends Error {
  override name = 'DirectoryInUse';
}

export interface RunningService {
  url: string;
  isolation: IsolationReport;
  /** Resolves when the service was asked to end or has been idle. */
  ended: Promise<'shutdown' | 'idle'>;
  /** Stops listening and the fork servers; jobs run on and are adopted at the next start. May be skipped by a crash. */
  close(): Promise<void>;
}

/**
 * Builds and wires everything; the only place that sees all parts. The order is that of a start after a crash:
 * take the directory, open what is stored, listen, then let the loop adopt what runs.
 *
 * @throws DirectoryInUse when another service has the data directory
 */
export async function startService(
  config: ServiceConfig,
  log: (line: string) => void,
): Promise<RunningService> {
  const { dataDir } = config;
  mkdirSync(join(dataDir, 'run'), { recursive: true, mode: 0o700 });
  const lock = lockExclusively(join(dataDir, 'service.lock'));
  if (!lock) {
    throw new DirectoryInUse(
      `The data directory ${dataDir} belongs to a running service${describeOther(dataDir)}. Use it, stop it (trainyard serve --stop --data ${dataDir}), or give another --data.`,
    );
  }
  const now = Date.now;
  const reserve = new DiskReserve(join(dataDir, 'reserve'));
  reserve.checkStart();
  const identity = loadIdentity(dataDir, { accountId: config.accountId, region: config.region });
  const scope = { region: config.region, accountId: config.accountId };
  const db = openDatabase(join(dataDir, 'trainyard.sqlite'));
  let saidFullAt = 0;
  const report = (what: string, error: unknown): void => {
    if (!isDiskFull(error)) return log(`${what}: ${(error as Error).stack ?? String(error)}`);
    // Whatever failed is tried again, then with this space.
    reserve.release();
    if (now() - saidFullAt < FULL_REMINDER_MS) return;
    saidFullAt = now();
    log(
      `the disk of ${dataDir} is full (${what}: ${(error as Error).message}); free space, everything goes on then`,
    );
  };
  const jobs = new JobStore(db);
  jobs.breakLeases();
  const hosts = new HostStore(db);
  const keys = new KeyStore(db);
  const folders = new FileSystemStore(db);
  const fileSystemPath = (id: string): string | null => config.fileSystems[id]?.path ?? folders.path(id);
  const objects = await DiskObjectStore.open({
    directory: join(dataDir, 'objects'),
    database: db,
    region: config.region,
  });
  const logs = createLogStore(db, {
    now,
    metricDefinitionsOf: (name) =>
      (jobs.get(name)?.spec.metricDefinitions ?? []).map(({ name: Name, regex: Regex }) => ({ Name, Regex })),
  });

  const table = runtimeTable(withRuntimesOfClone(process.env, config.initDir), dataDir);
  const runtimePlan = (name: string): RuntimePlan => {
    const runtime = readRuntimes(table).runtimes.get(name);
    if (!runtime)
      throw new Error(
        `the runtime ${name} is gone from ${table.directory}; make it again with: trainyard setup --runtime ${name}`,
      );
    return { name, python: runtime.python, binDirs: runtime.binDirs, preload: config.preload };
  };
  const forkServers = new ForkServers({ runDir: join(dataDir, 'run'), initDir: config.initDir });
  const forkServerSocket = async (name: string): Promise<string | null> =>
    config.preload ? forkServers.ensure(runtimePlan(name)) : null;
  // Importing torch takes longest of all: begin while everything else starts.
  if (config.preload && readRuntimes(table).runtimes.has('pytorch')) {
    void forkServerSocket('pytorch').catch((error: Error) => log(`fork server: ${error.message}`));
  }

  const gatewaySocket = join(dataDir, 'run', 'gateway.sock');
  let tcpUrl = '';
  const executor = new LocalExecutor({
    dataDir,
    gatewaySocket,
    tcpEndpoint: () => tcpUrl,
    nodePath: config.nodePath,
    agentPath: config.agentPath,
    initDir: config.initDir,
    pythonPath: config.initPython,
  });
  const isolation = await executor.probe();

  const watchers = new Map<string, Set<() => void>>();
  const tellWatchers = (job: string): void => {
    for (const tell of watchers.get(job) ?? []) tell();
  };
  let lastActivity = now();
  const active = (): void => {
    lastActivity = now();
  };

  const attemptDirectory = (job: string, attempt: number): string =>
    join(dataDir, 'jobs', job, String(attempt));
  const agentApi = new AgentApi({
    jobs,
    hosts,
    now,
    openLogStream: (host) => logs.openHostStream(originOf(host), now()),
    appendLogs: (host, batch: LogBatch) => {
      try {
        return logs.appendBatch({
          stream: { name: host.logStream ?? logs.openHostStream(originOf(host), now()), ...originOf(host) },
          firstSeq: batch.firstSeq,
          lines: batch.lines,
        });
      } catch (error) {
        // The agent sends again from the number that is missing.
        if (error instanceof LogGapError) return error.expectedSeq;
        throw error;
      }
    },
    partsDirectory: (job, attempt) => join(attemptDirectory(job, attempt), 'parts'),
    reported: (job) => {
      tellWatchers(job);
      reconciler.wake();
    },
  });

  const reconciler: Reconciler = new Reconciler({
    db,
    jobs,
    hosts,
    keys,
    executor,
    ...scope,
    networkInterfaceName: isolation.level === 'processes' ? 'lo' : 'eth0',
    now,
    hostToken: (job, attempt, host) => hostToken(identity, job, attempt, host, jobs.get(job)?.createdAt ?? 0),
    runtimePlan,
    forkServerSocket,
    visiblePaths: (runtime) => [
      dirname(dirname(runtime.python)),
      config.nodePath,
      config.agentPath,
      config.initDir,
    ],
    fileSystemPath,
    removeAttempt: async (job: Job) => {
      if (job.handle) await executor.purge(job.handle);
      const directory = attemptDirectory(job.name, job.attempt);
      await rm(directory, { recursive: true, force: true });
      // The job's own folder goes with its last attempt.
      await rmdir(dirname(directory)).catch(() => {});
    },
    changed: tellWatchers,
    commanded: (job, attempt, host) => agentApi.commanded(job, attempt, host),
    hostLimit: config.hostLimit,
    owner: `${process.pid}-${now()}`,
    onError: (job, error) => report(`job ${job}`, error),
  });

  const commands = new JobCommands({
    jobs,
    hosts,
    hostLimit: config.hostLimit,
    ...scope,
    isolatesNetwork: isolation.level !== 'processes',
    runtimeFor: (image) => {
      const found = resolveImage(image, table);
      return found.runtime ? { runtime: found.runtime } : { problem: found.refusal ?? '' };
    },
    fileSystemPath,
    fileSystemIsReadOnly: (id) => config.fileSystems[id]?.readOnly ?? false,
    folderExists: async (path) => (await stat(path).catch(() => null))?.isDirectory() ?? false,
    objects: {
      bucketExists: (bucket) => objects.bucketExists(bucket),
      anyObject: async (bucket, prefix) =>
        (await objects.bucketExists(bucket)) &&
        (await objects.listObjects({ bucket, prefix, limit: 1 })).objects.length > 0,
    },
    finalMetrics: (job) => logs.metrics.finalValues(job),
    changed: (job) => {
      tellWatchers(job);
      reconciler.wake();
    },
  });

  let end = (_why: 'shutdown' | 'idle'): void => {};
  const ended = new Promise<'shutdown' | 'idle'>((resolve) => {
    end = resolve;
  });
  const trainyardApi = new TrainyardApi({
    version: VERSION,
    dataId: identity.dataId,
    jobs,
    hosts,
    linesAfter: (job, cursor, limit) =>
      logs.readAfter(job, cursor, limit).events.map(({ cursor: place, host, at, source, rank, message }) => ({
        cursor: place,
        host,
        at,
        source,
        rank,
        message,
      })),
    pointsAfter: (job, cursor, limit) =>
      logs.metrics
        .pointsAfter(job, cursor, limit)
        .map(({ id, name, at, value, host, rank }) => ({ cursor: id, name, at, value, host, rank })),
    subscribe: (job, callback) => {
      const callbacks = watchers.get(job) ?? new Set();
      watchers.set(job, callbacks.add(callback));
      const unsubscribe = logs.subscribe(job, callback);
      return () => {
        unsubscribe();
        callbacks.delete(callback);
        if (callbacks.size === 0) watchers.delete(job);
      };
    },
    registerFolder: (path) => folders.register(path),
    doctor: async () => {
      const { runtimes, problems } = readRuntimes(table);
      const disk = await statfs(dataDir);
      return {
        version: VERSION,
        node: process.version,
        pid: process.pid,
        dataDir,
        hostLimit: config.hostLimit,
        isolation,
        runtimes: [...runtimes.values()].map((runtime) => ({
          ...runtime,
          packages: Object.fromEntries(installedPackages(runtime.python) ?? []),
        })),
        runtimeProblems: problems,
        runtimesDirectory: table.directory,
        forkServers: forkServers.status(),
        storage: await objects.usage(),
        diskFreeBytes: disk.bavail * disk.bsize,
      };
    },
    shutdown: () => setImmediate(() => end('shutdown')),
  });

  const lookupCredentials: CredentialLookup = (accessKeyId) => {
    active();
    if (accessKeyId === identity.accessKeyId) {
      return {
        secretAccessKey: identity.secretAccessKey,
        sessionToken: null,
        expiresAt: null,
        principal: { kind: 'operator', accessKeyId, roleName: 'TrainyardOperator' },
      };
    }
    const key = keys.find(accessKeyId);
    if (!key) return undefined;
    return {
      secretAccessKey: key.secretAccessKey,
      sessionToken: key.sessionToken,
      expiresAt: key.expiresAt,
      principal: {
        kind: 'job',
        accessKeyId,
        jobName: key.job,
        attempt: key.attempt,
        roleName: jobs.get(key.job)?.spec.roleArn.split('/').at(-1) ?? 'TrainyardJob',
      },
    };
  };

  const gateway = createGateway({
    account: scope,
    allowedRegions: null,
    pathPrefix: '',
    now,
    lookupCredentials,
    sagemaker: {
      CreateTrainingJob: (_context, input) => commands.createTrainingJob(input),
      DescribeTrainingJob: (_context, input) => commands.describeTrainingJob(input.TrainingJobName),
      ListTrainingJobs: (_context, input) => commands.listTrainingJobs(input),
      StopTrainingJob: (_context, input) => commands.stopTrainingJob(input.TrainingJobName),
      DeleteTrainingJob: async (_context, input) => {
        await commands.deleteTrainingJob(input.TrainingJobName);
        logs.releaseJob(input.TrainingJobName);
      },
      AddTags: (_context, input) => ({ Tags: commands.addTags(input.ResourceArn, input.Tags) }),
      ListTags: (_context, input) => ({ Tags: commands.listTags(input) }),
      DeleteTags: (_context, input) => {
        commands.deleteTags(input);
        return {};
      },
    },
    logs: createLogsOperations(logs, { account: scope, now }),
    s3: createS3Handler({
      store: objects,
      region: config.region,
      authorize: createS3Authorizer(lookupCredentials),
    }),
    agent: agentApi.handle,
    trainyard: trainyardApi.handle,
    health: () => trainyardApi.health(),
    reportInternalError: (error, context) => report(`${context.action} (${context.requestId})`, error),
  });

  await gateway.listenSocket(gatewaySocket);
  const file = join(dataDir, 'service.json');
  const portFile = join(dataDir, 'run', 'port');
  const lastPort = Number(await readFile(portFile, 'utf8').catch(() => '0'));
  // Hosts that still run may know the last address: take it again where nobody asked for another.
  const port =
    config.port !== 0 || lastPort === 0
      ? await gateway.listenTcp(config.host, config.port)
      : await gateway.listenTcp(config.host, lastPort).catch(() => gateway.listenTcp(config.host, 0));
  tcpUrl = `http://${config.host}:${port}`;
  await writeFile(portFile, String(port));
  writeServiceFile(file, {
    url: tcpUrl,
    pid: process.pid,
    startedAt: now(),
    version: VERSION,
    isEmbedded: config.isEmbedded,
  });
  reconciler.start();

  const idle = setInterval(() => {
    if (jobs.open().length > 0 || watchers.size > 0) active();
    if (config.isEmbedded && now() - lastActivity > config.idleMs) end('idle');
  }, 1000);

  const holding = setInterval(() => void reserve.hold(), HOLD_RESERVE_MS);

  return {
    url: tcpUrl,
    isolation,
    ended,
    close: async () => {
      clearInterval(idle);
      clearInterval(holding);
      reserve.release();
      // First: a client must not be sent to a service that no longer answers.
      removeServiceFile(file);
      await gateway.close();
      await reconciler.stop();
      await forkServers.stop();
      db.close();
      lock.release();
    },
  };
}

/** A service that the SDK started in a clone finds the runtimes that script/bootstrap made there. */
function withRuntimesOfClone(environment: NodeJS.ProcessEnv, initDir: string): NodeJS.ProcessEnv {
  const folder = join(initDir, '../../../.trainyard/runtimes');
  return environment['TRAINYARD_RUNTIMES'] || !existsSync(folder)
    ? environment
    : { ...environment, TRAINYARD_RUNTIMES: folder };
}

function originOf(host: Host): { jobName: string; attempt: number; host: string } {
  return { jobName: host.job, attempt: host.attempt, host: host.host };
}

function describeOther(dataDir: string): string {
  const other = readServiceFile(join(dataDir, 'service.json'));
  return other ? ` (${other.url}, process ${other.pid})` : '';
}
