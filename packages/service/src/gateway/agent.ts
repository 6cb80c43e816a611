import { createReadStream } from 'node:fs';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type {
  HostPlan,
  LogBatch,
  LogReceipt,
  RegisterRequest,
  SyncRequest,
  SyncResponse,
} from '@trainyard/api';
import { jsonError, ServiceError } from '@trainyard/api';
import type { Host, HostStore } from '../store/host-store.ts';
import type { JobStore } from '../store/job-store.ts';
import { sendOwnJson } from './answers.ts';
import type { AgentHandler, AgentRequest } from './deps.ts';

const MAX_BODY_BYTES = 8 << 20;
const MAX_WAIT_MS = 20_000;
const PART_KINDS = new Set(['model', 'output']);

export interface AgentApiDeps {
  jobs: JobStore;
  hosts: HostStore;
  /** Appends lines to a host's stream exactly once; returns the next number expected. */
  appendLogs: (host: Host, batch: LogBatch) => number;
  /** Makes the host's log stream and returns its name. */
  openLogStream: (host: Host) => string;
  /** Where parts of artifacts wait for the lead host: one folder per attempt. */
  partsDirectory: (job: string, attempt: number) => string;
  /** Tells the reconcile loop that a host reported. */
  reported: (job: string) => void;
  now: () => number;
}

/**
 * The service's end of the control channel (`@trainyard/api` control.ts). A token finds exactly one host of one
 * attempt; everything a call reads or writes follows from that row, never from the body. An attempt that is over
 * answers 410, and its agent ends.
 */
export class AgentApi {
  readonly #deps: AgentApiDeps;
  /** Long polls that wait for a command, by host. */
  readonly #waiting = new Map<string, Set<() => void>>();

  constructor(deps: AgentApiDeps) {
    this.#deps = deps;
  }

  readonly handle: AgentHandler = async (call, response) => {
    const host = this.#authorise(call);
    if (call.expectsContinue) response.writeContinue();
    const [resource, kind, peer] = call.path.split('/');
    if (call.method === 'POST' && resource === 'register') {
      return sendOwnJson(
        response,
        this.#register(host, await readJson<RegisterRequest>(call.request), call.request),
      );
    }
    if (call.method === 'POST' && resource === 'sync') {
      return sendOwnJson(
        response,
        await this.#sync(host, await readJson<SyncRequest>(call.request), call.signal),
      );
    }
    if (call.method === 'POST' && resource === 'logs') {
      const batch = await readJson<LogBatch>(call.request);
      return sendOwnJson(response, { nextSeq: this.#deps.appendLogs(host, batch) } satisfies LogReceipt);
    }
    if (resource === 'parts' && kind !== undefined && PART_KINDS.has(kind)) {
      if (call.method === 'PUT') return sendOwnJson(response, await this.#putPart(host, kind, call.request));
      if (call.method === 'GET' && peer !== undefined) return this.#getPart(host, kind, peer, response);
    }
    throw jsonError('UnknownOperationException', { message: `No such call: ${call.method} ${call.path}` });
  };

  /** Wakes a long poll of this host. */
  commanded(job: string, attempt: number, host: string): void {
    for (const wake of this.#waiting.get(hostKey({ job, attempt, host })) ?? []) wake();
  }

  #authorise(call: AgentRequest): Host {
    const host = call.bearerToken === null ? null : this.#deps.hosts.byToken(call.bearerToken);
    if (!host)
      throw new ServiceError({
        code: 'AccessDeniedException',
        status: 403,
        actor: 'operator',
        message: 'The host token is not known.',
        data: {},
      });
    const job = this.#deps.jobs.get(host.job);
    if (!job || job.attempt !== host.attempt || job.stage === 'done' || job.stage === 'queued') {
      throw new ServiceError({
        code: 'AttemptOver',
        status: 410,
        actor: 'operator',
        message: `Attempt ${host.attempt} of job ${host.job} is over; this host has nothing left to do.`,
        data: { jobName: host.job, attempt: host.attempt },
      });
    }
    return host;
  }

  #register(host: Host, _body: RegisterRequest, request: IncomingMessage): HostPlan {
    this.#deps.hosts.registered(host, host.logStream ?? this.#deps.openLogStream(host));
    this.#deps.reported(host.job);
    // The address under which the host reached us is the one its scripts can use too.
    const endpointUrl = `http://${request.headers.host}`;
    return { ...host.plan, endpointUrl, s3EndpointUrl: endpointUrl };
  }

  async #sync(host: Host, body: SyncRequest, signal: AbortSignal): Promise<SyncResponse> {
    const nextReportSeq =
      body.reports.length > 0 ? this.#deps.hosts.applyReports(host, body.reports) : this.#touch(host);
    if (body.reports.length > 0) this.#deps.reported(host.job);
    const commands = (): SyncResponse['commands'] => this.#deps.hosts.commandsAfter(host, body.ackedCommand);
    let found = commands();
    const waitMs = Math.min(MAX_WAIT_MS, Math.max(0, Number(body.waitMs) || 0));
    if (found.length === 0 && waitMs > 0) {
      await this.#commandOrTimeout(host, waitMs, signal, () => commands().length > 0);
      found = commands();
    }
    return { nextReportSeq, commands: found };
  }

  #touch(host: Host): number {
    this.#deps.hosts.seen(host);
    return host.nextReportSeq;
  }

  #commandOrTimeout(host: Host, waitMs: number, signal: AbortSignal, isReady: () => boolean): Promise<void> {
    const key = hostKey(host);
    return new Promise((resolve) => {
      const waiters = this.#waiting.get(key) ?? new Set();
      this.#waiting.set(key, waiters);
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        waiters.delete(done);
        if (waiters.size === 0) this.#waiting.delete(key);
        resolve();
      };
      const timer = setTimeout(done, waitMs);
      signal.addEventListener('abort', done);
      waiters.add(done);
      // A command may have come between the look and the wait.
      if (isReady() || signal.aborted) done();
    });
  }

  /** Keeps the part on disk until the lead has uploaded the whole. */
  async #putPart(host: Host, kind: string, body: IncomingMessage): Promise<{ sizeBytes: number }> {
    const directory = this.#deps.partsDirectory(host.job, host.attempt);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const path = join(directory, `${kind}-${host.host}.tar`);
    const temporary = `${path}.new`;
    const file = await open(temporary, 'w', 0o600);
    try {
      for await (const chunk of body as AsyncIterable<Buffer>) await file.writeFile(chunk);
      await file.sync();
    } catch (error) {
      await file.close();
      await rm(temporary, { force: true });
      throw error;
    }
    const { size } = await file.stat();
    await file.close();
    await rename(temporary, path);
    return { sizeBytes: size };
  }

  async #getPart(host: Host, kind: string, peer: string, response: ServerResponse): Promise<void> {
    if (!host.plan.hosts.includes(peer)) {
      throw jsonError('ValidationException', { message: `${peer} is no host of job ${host.job}` });
    }
    const path = join(this.#deps.partsDirectory(host.job, host.attempt), `${kind}-${peer}.tar`);
    const found = await stat(path).catch(() => null);
    // The other host may still be sending: the lead asks again.
    if (!found)
      throw new ServiceError({
        code: 'PartNotReady',
        status: 404,
        actor: 'operator',
        message: `The ${kind} part of ${peer} is not here yet.`,
        data: {},
      });
    response.writeHead(200, { 'content-type': 'application/x-tar', 'content-length': found.size });
    await pipeline(createReadStream(path), response);
  }
}

function hostKey(host: { job: string; attempt: number; host: string }): string {
  return `${host.job}/${host.attempt}/${host.host}`;
}

async function readJson<T>(request: IncomingMessage): Promise<T> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) {
      throw jsonError('RequestEntityTooLargeException', {
        message: `The body is larger than ${MAX_BODY_BYTES} bytes.`,
      });
    }
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString() || '{}') as T;
  } catch (cause) {
    throw jsonError('SerializationException', { message: 'The body is not JSON.' }, cause);
  }
}
