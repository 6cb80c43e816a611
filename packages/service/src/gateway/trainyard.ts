import { stat } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { isAbsolute, normalize } from 'node:path';
import { jsonError, trainingJobNotFound } from '@trainyard/api';
import { isTerminal } from '../jobs/lifecycle.ts';
import type { HostStore, Notice } from '../store/host-store.ts';
import type { Job, JobStore } from '../store/job-store.ts';
import { sendOwnJson } from './answers.ts';
import type { TrainyardHandler, TrainyardRequest } from './deps.ts';

const HEARTBEAT_MS = 15_000;
const BATCH = 500;

export interface FeedLine {
  /** Place in the job's feed; reading goes on after it. */
  cursor: string;
  host: string;
  at: number;
  source: string;
  rank: number | null;
  message: string;
}

export interface FeedPoint {
  cursor: number;
  name: string;
  at: number;
  value: number;
  host: string;
  rank: number | null;
}

export interface TrainyardApiDeps {
  version: string;
  dataId: string;
  jobs: JobStore;
  hosts: HostStore;
  /** Lines of a job in the order they were stored, after a cursor ('' for the first). */
  linesAfter: (job: string, cursor: string, limit: number) => FeedLine[];
  pointsAfter: (job: string, cursor: number, limit: number) => FeedPoint[];
  /** Calls back whenever anything of the job may be new; returns the way to stop it. */
  subscribe: (job: string, callback: () => void) => () => void;
  registerFolder: (path: string) => string;
  doctor: () => Promise<Record<string, unknown>>;
  /** Ends the embedded service; the jobs' hosts run on. */
  shutdown: () => void;
}

/** Trainyard's own API below `/_trainyard/v1/`: what AWS's API has no place for. */
export class TrainyardApi {
  readonly #deps: TrainyardApiDeps;

  constructor(deps: TrainyardApiDeps) {
    this.#deps = deps;
  }

  /** The only call without a signature: says who we are, nothing else. */
  health(): Record<string, unknown> {
    return { service: 'trainyard', version: this.#deps.version, dataId: this.#deps.dataId };
  }

  readonly handle: TrainyardHandler = async (request, response) => {
    if (request.principal.kind !== 'operator') {
      throw jsonError('AccessDeniedException', { message: 'Only the operator may use /_trainyard/v1/.' });
    }
    const parts = request.path.split('/').map(decodeURIComponent);
    const route = `${request.method} ${parts[0]}`;
    switch (route) {
      case 'GET health':
        return sendOwnJson(response, this.health());
      case 'POST shutdown':
        sendOwnJson(response, { stopping: true });
        return this.#deps.shutdown();
      case 'GET doctor':
        return sendOwnJson(response, await this.#deps.doctor());
      case 'POST file-systems':
        return sendOwnJson(response, await this.#registerFolder(request));
      case 'GET jobs': {
        const job = this.#deps.jobs.get(parts[1] ?? '');
        if (!job) throw trainingJobNotFound(parts[1] ?? '');
        if (parts[2] === 'events') return this.#events(job, request, response);
        if (parts[2] === undefined) return sendOwnJson(response, this.#job(job));
      }
    }
    throw jsonError('UnknownOperationException', {
      message: `There is no ${request.method} /_trainyard/v1/${request.path}; docs/api.md lists the calls.`,
    });
  };

  async #registerFolder(request: TrainyardRequest): Promise<{ fileSystemId: string; path: string }> {
    const { path } = readJson(request) as { path?: unknown };
    if (typeof path !== 'string' || !isAbsolute(path) || path.includes('\0')) {
      throw jsonError('ValidationException', {
        message: `path is ${JSON.stringify(path)}; give the absolute path of a folder.`,
      });
    }
    const found = await stat(path).catch(() => null);
    if (!found?.isDirectory()) {
      throw jsonError('ValidationException', {
        message: `path is ${path}; there is no such folder on the service's machine.`,
      });
    }
    const clean = normalize(path).replace(/(.)\/+$/, '$1');
    return { fileSystemId: this.#deps.registerFolder(clean), path: clean };
  }

  /** What DescribeTrainingJob cannot say: why it waits, what differs from the request, where each host stands. */
  #job(job: Job): Record<string, unknown> {
    return {
      name: job.name,
      status: job.status,
      secondaryStatus: job.secondaryStatus,
      attempt: job.attempt,
      waitReason: job.waitReason,
      failureReason: job.failureReason,
      notices: this.#deps.hosts.notices(job.name).map(publicNotice),
      hosts: this.#deps.hosts.ofAttempt(job.name, job.attempt).map((host) => ({
        host: host.host,
        phase: host.phase,
        logStream: host.logStream,
        lastSeenAt: host.lastSeenAt,
        exitCode: host.exited?.exitCode ?? null,
        signal: host.exited?.signal ?? null,
        failure: host.exited?.failure ?? null,
        failed: host.failed ? { failureClass: host.failed.failureClass, message: host.failed.message } : null,
        gone: host.gone,
      })),
    };
  }

  /**
   * Server-sent events of one job from its beginning, or from `Last-Event-ID`: `transition`, `notice`, `log`,
   * `metric`, `status`, and `end` after the terminal status. An id is the place in all four sequences, so a
   * reader that comes back, also to a restarted service, misses nothing and sees nothing twice.
   */
  async #events(job: Job, request: TrainyardRequest, response: ServerResponse): Promise<void> {
    const place = readPlace(String(request.headers['last-event-id'] ?? request.query.get('after') ?? ''));
    response.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    });
    let wake = (): void => {};
    let isDirty = true;
    const unsubscribe = this.#deps.subscribe(job.name, () => {
      isDirty = true;
      wake();
    });
    const send = async (event: string, data: unknown): Promise<void> => {
      const text = `id: ${formatPlace(place)}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
      if (!response.write(text)) await drained(response, request.signal);
    };
    let lastStatus = '';
    try {
      while (!request.signal.aborted) {
        isDirty = false;
        const current = this.#deps.jobs.get(job.name);
        if (!current) break;
        await this.#sendNews(current, place, send);
        const status = `${current.status}/${current.secondaryStatus}/${current.attempt}/${current.waitReason}`;
        if (status !== lastStatus) {
          lastStatus = status;
          const { name, status: jobStatus, secondaryStatus, attempt, waitReason, failureReason } = current;
          await send('status', {
            name,
            status: jobStatus,
            secondaryStatus,
            attempt,
            waitReason,
            failureReason,
          });
        }
        if (isTerminal(current.status)) {
          // Lines are stored before the end is; one more look, then nothing can follow.
          await this.#sendNews(current, place, send);
          await send('end', {
            status: current.status,
            secondaryStatus: current.secondaryStatus,
            failureReason: current.failureReason,
            modelArtifacts:
              current.spec.outputS3Uri +
              (current.spec.outputCompression === 'GZIP' ? 'model.tar.gz' : 'model'),
          });
          break;
        }
        if (isDirty) continue;
        await new Promise<void>((resolve) => {
          const timer = setTimeout(() => {
            response.write(': still here\n\n');
            done();
          }, HEARTBEAT_MS);
          const done = (): void => {
            clearTimeout(timer);
            request.signal.removeEventListener('abort', done);
            resolve();
          };
          wake = done;
          request.signal.addEventListener('abort', done);
        });
      }
    } finally {
      unsubscribe();
      response.end();
    }
  }

  async #sendNews(
    job: Job,
    place: Place,
    send: (event: string, data: unknown) => Promise<void>,
  ): Promise<void> {
    for (const transition of this.#deps.jobs.transitions(job.name)) {
      if (transition.seq < place.transition) continue;
      place.transition = transition.seq + 1;
      await send('transition', {
        status: transition.status,
        message: transition.message,
        startedAt: transition.startedAt,
      });
    }
    for (const notice of this.#deps.hosts.notices(job.name, place.notice)) {
      place.notice = notice.seq;
      await send('notice', publicNotice(notice));
    }
    for (;;) {
      const lines = this.#deps.linesAfter(job.name, place.line, BATCH);
      for (const { cursor, ...line } of lines) {
        place.line = cursor;
        await send('log', line);
      }
      if (lines.length < BATCH) break;
    }
    for (;;) {
      const points = this.#deps.pointsAfter(job.name, place.point, BATCH);
      for (const { cursor, ...point } of points) {
        place.point = cursor;
        await send('metric', point);
      }
      if (points.length < BATCH) break;
    }
  }
}

interface Place {
  /** Next transition to send. */
  transition: number;
  /** Last notice, point and line sent. */
  notice: number;
  point: number;
  line: string;
}

function formatPlace(place: Place): string {
  return `${place.transition}.${place.notice}.${place.point}.${place.line}`;
}

function readPlace(id: string): Place {
  const match = /^(\d{1,15})\.(\d{1,15})\.(\d{1,15})\.(.{0,4096})$/.exec(id);
  if (!match) return { transition: 0, notice: 0, point: 0, line: '' };
  return { transition: Number(match[1]), notice: Number(match[2]), point: Number(match[3]), line: match[4]! };
}

function publicNotice(notice: Notice): Record<string, unknown> {
  const { code, message, host, attempt, at } = notice;
  return { code, message, host, attempt, at };
}

function drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done);
      response.off('close', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    response.on('drain', done);
    response.on('close', done);
    signal.addEventListener('abort', done);
  });
}

function readJson(request: TrainyardRequest): object {
  try {
    const value = JSON.parse(Buffer.from(request.body).toString() || '{}') as unknown;
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  } catch {
    // Said below.
  }
  throw jsonError('SerializationException', { message: 'The body must be a JSON object.' });
}
