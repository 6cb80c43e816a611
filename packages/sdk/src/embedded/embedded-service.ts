import { statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ServiceUnavailable } from '../errors.ts';
import { checkHealth, isAlive, readServiceCredentials, readServiceRecord } from './data-directory.ts';
import type { ServiceCredentials } from './data-directory.ts';
import type { SpawnedService } from './spawn-service.ts';

const START_TIMEOUT_MS = 60_000;
const SETTLE_TIMEOUT_MS = 5_000;
/** A service that ended at once may have met another one that `serve` started and that does not listen yet. */
const EXIT_GRACE_MS = 1_000;

export interface EmbeddedService {
  url: string;
  pid: number;
  credentials: ServiceCredentials;
  /** The service runs as the user of this process, so both see the same files. */
  isSameUser: boolean;
}

/** @returns null when no service of the data directory answers. */
export async function findService(dataDirectory: string): Promise<EmbeddedService | null> {
  const record = readServiceRecord(dataDirectory);
  const credentials = readServiceCredentials(dataDirectory);
  if (!record || !credentials) return null;
  const health = await checkHealth({ url: record.url, dataId: credentials.dataId });
  if (health === 'absent' || health === 'foreign' || (health === 'silent' && !isAlive(record.pid)))
    return null;
  if (health === 'silent') {
    throw new ServiceUnavailable(
      record.url,
      `The service of ${dataDirectory} (process ${record.pid}) takes connections at ${record.url} and does not answer.`,
    );
  }
  const isSameUser = statSync(dataDirectory).uid === process.getuid?.();
  return { url: record.url, pid: record.pid, credentials, isSameUser };
}

/**
 * Waits while a service that does not listen is still there: it is starting or ending. Bounded, since its process id
 * may belong to another program by now.
 */
export async function settle(dataDirectory: string): Promise<void> {
  const deadline = Date.now() + SETTLE_TIMEOUT_MS;
  while (Date.now() < deadline) {
    const record = readServiceRecord(dataDirectory);
    if (record === null || !isAlive(record.pid) || (await checkHealth(record)) !== 'absent') return;
    await sleep(20);
  }
}

/**
 * The service of a data directory: the running one, or a new one. When two clients come at once, one starts it and
 * both use it.
 * @throws ServiceUnavailable with the end of the service's log when it does not come up.
 */
export async function ensureService(dataDirectory: string): Promise<EmbeddedService> {
  const running = await findService(dataDirectory);
  if (running) return running;
  await settle(dataDirectory);
  // Loaded here because a running service needs neither.
  const [{ StartLock }, { spawnService }] = await Promise.all([
    import('./start-lock.ts'),
    import('./spawn-service.ts'),
  ]);
  const deadline = Date.now() + START_TIMEOUT_MS;
  const lock = await takeLock(() => StartLock.tryTake(dataDirectory), dataDirectory, deadline);
  if ('url' in lock) return lock;
  try {
    const started = await findService(dataDirectory);
    if (started) return started;
    return await waitUntilListening(spawnService(dataDirectory), dataDirectory, deadline);
  } finally {
    lock.release();
  }
}

/** The lock, or the service that its holder started meanwhile. */
async function takeLock<Lock extends object>(
  tryTake: () => Lock | null,
  dataDirectory: string,
  deadline: number,
): Promise<Lock | EmbeddedService> {
  for (;;) {
    const lock = tryTake();
    if (lock) return lock;
    const service = await findService(dataDirectory);
    if (service) return service;
    if (Date.now() > deadline) {
      throw new ServiceUnavailable(
        dataDirectory,
        `Another process has been starting the service of ${dataDirectory} for ${START_TIMEOUT_MS / 1000} s; see its service.log.`,
      );
    }
    await sleep(20);
  }
}

async function waitUntilListening(
  spawned: SpawnedService,
  dataDirectory: string,
  deadline: number,
): Promise<EmbeddedService> {
  let giveUpAt = deadline;
  for (;;) {
    const exit = spawned.exit();
    const service = await findService(dataDirectory);
    if (service) return service;
    if (exit !== null) giveUpAt = Math.min(giveUpAt, Date.now() + EXIT_GRACE_MS);
    if (Date.now() >= giveUpAt) {
      const problem =
        exit === null
          ? `did not begin to listen within ${START_TIMEOUT_MS / 1000} s`
          : `ended with ${exit} before it listened`;
      throw new ServiceUnavailable(dataDirectory, `The service of ${dataDirectory} ${problem}.`, {
        logTail: spawned.logTail(),
      });
    }
    await sleep(10);
  }
}
