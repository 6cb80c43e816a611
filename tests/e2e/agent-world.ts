import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { type AddressInfo, createServer as createSocketServer, type Server as SocketServer } from 'node:net';
import { constants, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { HostCommand, HostPlan, HostReport, LogBatch, LogLine, SyncRequest } from '@trainyard/api';
import { endProcessesOf } from '../support/service.ts';
import { until } from '../support/until.ts';

const ROOT = resolve(import.meta.dirname, '../..');
export const PYTHON = join(
  process.env['TRAINYARD_RUNTIMES'] ?? join(ROOT, '.trainyard/runtimes'),
  'pytorch/bin/python',
);

/**
 * One host's world around a real agent process: an init that starts real processes (the JSON protocol of
 * `packages/launch/init/DESIGN.md` on the rung without namespaces), the service's end of the control channel, and an
 * object store in memory. Differences from the real ones: signatures are not checked, objects are not kept, and
 * there is neither fork server nor remote shell.
 */
export class AgentWorld {
  readonly root = mkdtempSync(join(tmpdir(), 'trainyard-agent-'));
  readonly mlRoot = join(this.root, 'ml');
  readonly objects = new Map<string, Buffer>();
  readonly reports: HostReport[] = [];
  readonly lines: LogLine[] = [];
  readonly parts = new Map<string, Buffer>();
  readonly registrations: { resumed: boolean }[] = [];
  /** What the agent itself printed. */
  agentOutput = '';
  /** Requests are answered 503 while set. */
  isAway = false;
  deletedKeys: string[] = [];
  readonly #plan: Partial<HostPlan>;
  readonly #commands: HostCommand[] = [];
  readonly #waiting = new Set<() => void>();
  readonly #init: TestInit;
  #server: Server | null = null;
  #port = 0;
  #agent: ChildProcess | null = null;
  agentExit: number | null = null;

  constructor(plan: Partial<HostPlan> = {}) {
    this.#plan = plan;
    this.#init = new TestInit(join(this.root, 'run'));
  }

  static async start(plan: Partial<HostPlan> = {}): Promise<AgentWorld> {
    const world = new AgentWorld(plan);
    await world.#init.listen();
    world.#server = createHttpServer((request, response) => void world.#handle(request, response));
    await new Promise<void>((done) => world.#server!.listen(0, '127.0.0.1', done));
    world.#port = (world.#server.address() as AddressInfo).port;
    for (const path of ['state', 'ml']) mkdirSync(join(world.root, path), { recursive: true });
    return world;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Packs files into the source archive that the plan names. */
  async code(files: Record<string, string>): Promise<void> {
    const folder = join(this.root, 'source');
    for (const [name, content] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), content);
    }
    const archive = join(this.root, 'sourcedir.tar.gz');
    await run('tar', ['-czf', archive, '-C', folder, '.']);
    this.objects.set('b/source/sourcedir.tar.gz', readFileSync(archive));
  }

  startAgent(): void {
    const file = join(this.root, 'run', 'agent.json');
    writeFileSync(
      file,
      JSON.stringify({
        endpointUrl: this.url,
        token: 'token',
        jobName: 'job',
        attempt: 1,
        host: this.#plan.host ?? 'algo-1',
        initSocket: this.#init.socketPath,
        stateDir: join(this.root, 'state'),
        mlRoot: this.mlRoot,
        isolation: 'processes',
        hostAddresses: { 'algo-1': '127.0.0.1' },
      }),
    );
    const main = join(ROOT, 'packages/launch/src/main.ts');
    const child = spawn(process.execPath, ['--conditions=@trainyard/source', '--no-warnings', main, file], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (data) => (this.agentOutput += String(data)));
    this.#agent = child;
    this.agentExit = null;
    child.on('exit', (code) => {
      if (this.#agent === child) this.agentExit = code;
    });
  }

  /** SIGKILL, then what init would do. */
  async killAgent(): Promise<void> {
    const child = this.#agent!;
    const gone = new Promise((done) => child.once('exit', done));
    child.kill('SIGKILL');
    await gone;
  }

  command(command: HostCommand extends infer C ? (C extends unknown ? Omit<C, 'id'> : never) : never): void {
    this.#commands.push({ ...command, id: this.#commands.length } as HostCommand);
    for (const wake of this.#waiting) wake();
  }

  phase(name: string, deadlineMs = 60_000): Promise<HostReport> {
    return until(
      `phase ${name}`,
      () => this.reports.find((report) => report.kind === 'phase' && report.phase === name),
      {
        deadlineMs,
        show: () => ({ reports: this.reports, output: this.agentOutput }),
      },
    );
  }

  report<K extends HostReport['kind']>(
    kind: K,
    deadlineMs = 60_000,
  ): Promise<Extract<HostReport, { kind: K }>> {
    const find = () =>
      this.reports.find((report) => report.kind === kind) as Extract<HostReport, { kind: K }> | undefined;
    return until(`report ${kind}`, find, {
      deadlineMs,
      show: () => ({ reports: this.reports, output: this.agentOutput }),
    });
  }

  line(text: string): Promise<LogLine> {
    return until(`line ${text}`, () => this.lines.find(({ message }) => message.includes(text)), {
      show: () => ({ lines: this.lines.slice(-20), output: this.agentOutput }),
    });
  }

  /** Prepares, starts, waits for the script's end. */
  async runToExit(): Promise<Extract<HostReport, { kind: 'exited' }>> {
    this.startAgent();
    await this.phase('ready');
    this.command({ kind: 'start' });
    return this.report('exited');
  }

  /** Uploads as the only host, and ends the attempt. */
  async finish(): Promise<void> {
    const exited = await this.report('exited');
    const own = (files: { path: string }[]) => ({ own: files.map(({ path }) => path) });
    const share = {
      model: own(exited.model),
      output: own(exited.output),
      parts: { model: [], output: [] },
      notes: [],
    };
    this.command({ kind: 'upload', lead: true, ...share });
    await this.phase('uploaded');
    await this.end();
  }

  async end(): Promise<void> {
    this.command({ kind: 'finish' });
    await until('the agent to exit', () => this.agentExit !== null, { show: () => this.agentOutput });
  }

  /** Waits until the agent has written down which files are in the store, so that it knows them after a crash too. */
  checkpointsKept(...paths: string[]): Promise<unknown> {
    const record = join(this.root, 'state/agent/checkpoints.json');
    return until(`the record of ${paths.join(', ')}`, () => {
      const kept = JSON.parse(readFileSync(record, 'utf8')) as Record<string, { etag: string | null }>;
      return paths.every((path) => kept[path]?.etag);
    });
  }

  isRunning(pid: number): boolean {
    try {
      process.kill(pid, 0);
      return true;
    } catch {
      return false;
    }
  }

  initRequests(): string[] {
    return this.#init.requests;
  }

  mainPid(): number {
    return this.#init.pidOf('main');
  }

  stdout(): string[] {
    return this.lines.filter(({ source }) => source === 'stdout').map(({ message }) => message);
  }

  async dispose(): Promise<void> {
    this.#agent?.kill('SIGKILL');
    this.#init.close();
    // A process that is just being ended may still make a file where its folder is being removed.
    await endProcessesOf(this.root);
    for (const wake of this.#waiting) wake();
    this.#server?.closeAllConnections();
    this.#server?.close();
    rmSync(this.root, { recursive: true, force: true });
  }

  #planNow(): HostPlan {
    const credentials = {
      accessKeyId: 'A',
      secretAccessKey: 'S',
      sessionToken: 'T',
      expiresAt: Date.now() + 3.6e6,
    };
    const host = this.#plan.host ?? 'algo-1';
    const hosts = this.#plan.hosts ?? [host];
    return {
      planVersion: 1,
      jobName: 'job',
      jobArn: 'arn:aws:sagemaker:us-west-2:000000000000:training-job/job',
      attempt: 1,
      host,
      hosts,
      instanceType: 'ml.m5.large',
      groupName: 'homogeneousCluster',
      instanceGroups: [{ name: 'homogeneousCluster', instanceType: 'ml.m5.large', hosts }],
      networkInterfaceName: 'lo',
      region: 'us-west-2',
      accountId: '000000000000',
      endpointUrl: this.url,
      s3EndpointUrl: this.url,
      agentCredentials: credentials,
      scriptCredentials: credentials,
      networkIsolated: false,
      image: 'pytorch-training:2.13.0-cpu-py311',
      containerEntrypoint: null,
      containerArguments: null,
      frameworkModule: 'sagemaker_pytorch_container.training:main',
      environment: {},
      channels: [],
      outputS3Uri: 's3://b/out/job/output/',
      outputCompression: 'GZIP',
      checkpoint: null,
      maxRuntimeMs: 600_000,
      stopGraceMs: 120_000,
      runtime: { name: 'pytorch', python: PYTHON, binDirs: [dirname(PYTHON)], preload: false },
      request: {},
      ...this.#plan,
      hyperParameters: {
        sagemaker_program: '"train.py"',
        sagemaker_submit_directory: '"s3://b/source/sourcedir.tar.gz"',
        ...this.#plan.hyperParameters,
      },
    };
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    if (this.isAway) return void response.writeHead(503).end();
    const url = new URL(request.url!, this.url);
    const path = decodeURIComponent(url.pathname);
    const prefix = '/_trainyard/agent/v1/';
    try {
      if (path.startsWith(prefix))
        await this.#control(path.slice(prefix.length), request.method!, body, response);
      else this.#store(request.method!, path.slice(1), url.searchParams, body, response);
    } catch (error) {
      response.writeHead(500).end(String(error));
    }
  }

  async #control(call: string, method: string, body: Buffer, response: ServerResponse): Promise<void> {
    const answer = (value: unknown): void => void response.end(JSON.stringify(value));
    if (call === 'register') {
      this.registrations.push(JSON.parse(body.toString()) as { resumed: boolean });
      return answer(this.#planNow());
    }
    if (call === 'sync')
      return answer(await this.#sync(JSON.parse(body.toString()) as SyncRequest, response));
    if (call === 'logs') {
      const batch = JSON.parse(body.toString()) as LogBatch;
      this.lines.push(...batch.lines.slice(this.lines.length - batch.firstSeq));
      return answer({ nextSeq: this.lines.length });
    }
    const part = call.replace('parts/', '');
    if (method === 'PUT') {
      this.parts.set(part, body);
      return answer({});
    }
    const found = this.parts.get(part);
    response.writeHead(found ? 200 : 404).end(found);
  }

  async #sync(sync: SyncRequest, response: ServerResponse) {
    for (const report of sync.reports) if (report.seq === this.reports.length) this.reports.push(report);
    const due = () => this.#commands.filter(({ id }) => id > sync.ackedCommand);
    if (due().length === 0 && sync.waitMs > 0) {
      await new Promise<void>((done) => {
        const timer = setTimeout(end, sync.waitMs);
        const waiting = this.#waiting;
        function end(): void {
          clearTimeout(timer);
          waiting.delete(end);
          done();
        }
        waiting.add(end);
        response.on('close', end);
      });
    }
    return { nextReportSeq: this.reports.length, commands: due() };
  }

  #store(
    method: string,
    address: string,
    query: URLSearchParams,
    body: Buffer,
    response: ServerResponse,
  ): void {
    const etag = (bytes: Buffer): string => `"${createHash('md5').update(bytes).digest('hex')}"`;
    const missing = (code: string): void =>
      void response.writeHead(404).end(`<Error><Code>${code}</Code><Message>not there</Message></Error>`);
    const bucket = address.split('/')[0]!;
    if (bucket !== 'b') return missing('NoSuchBucket');
    if (method === 'GET' && query.has('list-type')) {
      const prefix = `${bucket}/${query.get('prefix') ?? ''}`;
      const found = [...this.objects]
        .filter(([key]) => key.startsWith(prefix))
        .sort(([a], [b]) => (a < b ? -1 : 1));
      const items = found.map(
        ([key, bytes]) =>
          `<Contents><Key>${key.slice(2)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>${etag(bytes)}</ETag><Size>${bytes.length}</Size></Contents>`,
      );
      return void response.end(
        `<?xml version="1.0"?><ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>${items.join('')}</ListBucketResult>`,
      );
    }
    if (method === 'PUT') {
      this.objects.set(address, body);
      return void response.writeHead(200, { etag: etag(body) }).end();
    }
    if (method === 'DELETE') {
      this.objects.delete(address);
      this.deletedKeys.push(address);
      return void response.writeHead(204).end();
    }
    const found = this.objects.get(address);
    if (!found) return missing('NoSuchKey');
    const head = {
      etag: etag(found),
      'content-length': found.length,
      'last-modified': 'Thu, 01 Jan 2026 00:00:00 GMT',
    };
    response.writeHead(200, head).end(method === 'HEAD' ? undefined : found);
  }
}

interface Spawned {
  child: ChildProcess;
  startedAt: number;
  end: { exitCode: number | null; signal: string | null; endedAt: number } | null;
}

class TestInit {
  readonly socketPath: string;
  readonly #directory: string;
  readonly #spawned = new Map<string, Spawned>();
  #server: SocketServer | null = null;

  constructor(directory: string) {
    this.#directory = directory;
    this.socketPath = join(directory, 'init.sock');
  }

  async listen(): Promise<void> {
    mkdirSync(join(this.#directory, 'bin'), { recursive: true });
    const python = join(this.#directory, 'bin', 'trainyard-python');
    writeFileSync(
      python,
      '#!/bin/sh\nif [ -n "$RANK" ] && [ -n "$TRAINYARD_RANK_LOGS" ]; then\n  exec >>"$TRAINYARD_RANK_LOGS/rank-$RANK.out" 2>>"$TRAINYARD_RANK_LOGS/rank-$RANK.err"\nfi\nexec "$TRAINYARD_PYTHON" "$@"\n',
    );
    chmodSync(python, 0o755);
    this.#server = createSocketServer((socket) => {
      socket.on('error', () => {});
      createInterface({ input: socket }).on('line', (line) => {
        void this.#answer(JSON.parse(line) as Record<string, unknown>).then((reply) =>
          socket.write(`${JSON.stringify(reply)}\n`),
        );
      });
    });
    await new Promise<void>((done) => this.#server!.listen(this.socketPath, done));
  }

  /** Requests so far, as `op id`. */
  readonly requests: string[] = [];

  pidOf(id: string): number {
    return this.#spawned.get(id)!.child.pid!;
  }

  close(): void {
    this.#killAll();
    this.#server?.close();
  }

  async #answer(request: Record<string, unknown>): Promise<Record<string, unknown>> {
    const id = request['id'] as string;
    const known = this.#spawned.get(id);
    this.requests.push(`${String(request['op'])} ${id ?? ''}`.trim());
    switch (request['op']) {
      case 'spawn':
        return known ? { ok: true, pid: known.child.pid, existing: true } : this.#spawn(id, request);
      case 'wait': {
        if (!known) return { ok: false, error: `no process ${id}` };
        await until(`${id} to end`, () => known.end, { deadlineMs: 600_000 });
        return { ok: true, ...known.end };
      }
      case 'list': {
        const processes = [...this.#spawned].map(([name, { child, startedAt, end }]) => ({
          id: name,
          pid: child.pid,
          running: end === null,
          startedAt,
          ...end,
        }));
        return { ok: true, processes };
      }
      case 'signal':
        if (id === '*') this.#killAll();
        else if (known && !known.end) process.kill(-known.child.pid!, `SIG${String(request['signal'])}`);
        return { ok: true, sent: true };
      default:
        return { ok: true };
    }
  }

  #spawn(id: string, request: Record<string, unknown>): Promise<Record<string, unknown>> {
    const [program, ...args] = request['argv'] as string[];
    const child = spawn(program!, args, {
      cwd: request['cwd'] as string,
      env: { ...(request['env'] as Record<string, string>), TRAINYARD_INIT_SOCKET: this.socketPath },
      detached: true,
      stdio: [
        'ignore',
        openSync(request['stdout'] as string, 'a'),
        openSync(request['stderr'] as string, 'a'),
      ],
    });
    return new Promise((done) => {
      child.once('error', (error: NodeJS.ErrnoException) =>
        done({ ok: false, error: `${error.code}: ${error.message}` }),
      );
      child.once('spawn', () => {
        const spawned: Spawned = { child, startedAt: Date.now(), end: null };
        this.#spawned.set(id, spawned);
        child.once('exit', (exitCode, signal) => {
          spawned.end = { exitCode, signal, endedAt: Date.now() };
        });
        done({ ok: true, pid: child.pid });
      });
    });
  }

  /** Everything that was started here and what it started, told by the variable that all of it inherits. */
  #killAll(): void {
    const mark = `TRAINYARD_INIT_SOCKET=${this.socketPath}`;
    for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
      try {
        if (readFileSync(`/proc/${name}/environ`, 'utf8').split('\0').includes(mark))
          process.kill(Number(name), 'SIGKILL');
      } catch {
        // Gone, or not ours to look at.
      }
    }
  }
}

export function run(program: string, args: string[]): Promise<void> {
  return new Promise((done, fail) => {
    spawn(program, args, { stdio: 'inherit' }).once('exit', (code) =>
      code === 0 ? done() : fail(new Error(`${program} ended with ${code}`)),
    );
  });
}

export const SIGTERM = constants.signals.SIGTERM;
