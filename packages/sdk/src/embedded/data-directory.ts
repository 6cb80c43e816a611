import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fetchFor } from '../http-fetch.ts';

/** A service that wrote `service.json` when it began to listen. */
export interface ServiceRecord {
  /** Base URL on the loopback address. */
  url: string;
  pid: number;
  /** Epoch milliseconds. */
  startedAt: number;
  version: string;
}

/** The root access key of a service, readable only by its user. */
export interface ServiceCredentials {
  accessKeyId: string;
  secretAccessKey: string;
  accountId: string;
  region: string;
  /** Tells one data directory from another. */
  dataId: string;
}

export const SERVICE_LOG = 'service.log';
const HEALTH_TIMEOUT_MS = 10_000;

/** Absolute path of the data directory that is used when none is named. */
export function defaultDataDirectory(env: NodeJS.ProcessEnv = process.env): string {
  const named = env['TRAINYARD_DATA'];
  if (named) return resolve(named);
  return join(homedir(), '.local', 'share', 'trainyard', 'data');
}

/** @returns null while the directory's service never ran, or its file is being written. */
export function readServiceRecord(dataDirectory: string): ServiceRecord | null {
  return readJson<ServiceRecord>(join(dataDirectory, 'service.json'));
}

/** @returns null while the directory's service never ran. */
export function readServiceCredentials(dataDirectory: string): ServiceCredentials | null {
  return readJson<ServiceCredentials>(join(dataDirectory, 'credentials.json'));
}

function readJson<T>(path: string): T | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as T;
  } catch (error) {
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/**
 * `silent`: something took the connection and did not answer in time. `foreign`: it is no Trainyard, or that of
 * another data directory, which may have taken the port of one that died.
 */
export type Health = 'healthy' | 'silent' | 'foreign' | 'absent';

export async function checkHealth(service: { url: string; dataId?: string }): Promise<Health> {
  let response: Response;
  try {
    response = await fetchFor(service.url)(`${service.url}/_trainyard/v1/health`, {
      signal: AbortSignal.timeout(HEALTH_TIMEOUT_MS),
    });
  } catch (error) {
    return (error as Error).name === 'TimeoutError' ? 'silent' : 'absent';
  }
  const body = (await response.json().catch(() => ({}))) as { service?: unknown; dataId?: unknown };
  const isOurs = response.ok && body.service === 'trainyard';
  return isOurs && (service.dataId === undefined || service.dataId === body.dataId) ? 'healthy' : 'foreign';
}

/** Waits until a process is gone. @returns false when it is still there at the deadline. */
export async function waitForExit(pid: number, timeoutMs: number): Promise<boolean> {
  const deadline = Date.now() + timeoutMs;
  while (isAlive(pid)) {
    if (Date.now() > deadline) return false;
    await sleep(20);
  }
  return true;
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
