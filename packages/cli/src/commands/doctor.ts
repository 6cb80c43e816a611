import { createSignedFetch } from '@trainyard/api';
import type { Connection } from '@trainyard/sdk';
import type { Command } from 'commander';
import { EXIT_CODE } from '../exit-code.ts';
import { formatDuration } from '../render/duration.ts';
import { RECIPES } from '../runtime/recipe.ts';
import { runTool } from '../runtime/run-tool.ts';
import { addSessionOptions, openSession, type SessionFlags } from '../session-options.ts';
import { UserError } from '../user-error.ts';

/** What the service says of its machine at `GET /_trainyard/v1/doctor`. */
interface ServiceReport {
  version: string;
  node: string;
  dataDir: string;
  hostLimit: number;
  isolation: { level: string; probes: { rung: string; available: boolean; detail: string }[] };
  runtimes: {
    name: string;
    framework: string;
    version: string | null;
    python: string;
    mpi: { name: string; version: string } | null;
    source: string;
    /** Versions by name; empty where they cannot be read without asking the interpreter. */
    packages: Record<string, string>;
  }[];
  runtimeProblems: string[];
  runtimesDirectory: string;
  forkServers: ForkServerReport[];
  diskFreeBytes: number;
}

type Runtime = ServiceReport['runtimes'][number];

interface ForkServerReport {
  runtime: string;
  state: string;
  forks: number;
  running: number;
  preloadMs: number | null;
  /** Why it does not work; null while it does. */
  detail: string | null;
}

interface Finding {
  topic: string;
  /** `warn`: something works less well; `fail`: jobs cannot run. */
  state: 'ok' | 'warn' | 'fail';
  text: string;
}

const LOW_DISK_BYTES = 2e9;

export function addDoctor(program: Command): void {
  const command = program
    .command('doctor')
    .description('what this machine offers to jobs, and why not more')
    .option('--json', 'print the report as JSON');
  addSessionOptions(command).action(examine);
}

async function examine(flags: SessionFlags & { json?: boolean }): Promise<void> {
  const session = await openSession(flags);
  const connection = await session.connect();
  const service = await askService(connection);
  const findings = [
    { topic: 'node', state: 'ok', text: `${process.version} (${process.execPath})` } as const,
    await examineUv(),
    ...judge(service),
  ];
  const isFit = findings.every(({ state }) => state !== 'fail');
  if (flags.json)
    process.stdout.write(
      `${JSON.stringify({ isFit, endpoint: connection.endpointUrl, findings, service })}\n`,
    );
  else {
    const marks = { ok: '✔', warn: '!', fail: '✘' };
    for (const { topic, state, text } of findings)
      process.stdout.write(`${marks[state]} ${topic.padEnd(12)} ${text}\n`);
  }
  process.exitCode = isFit ? EXIT_CODE.completed : EXIT_CODE.failed;
}

async function askService({
  endpointUrl,
  trainyard,
  region,
  credentials,
}: Connection): Promise<ServiceReport> {
  if (!trainyard || endpointUrl === null)
    throw new UserError('doctor examines a Trainyard service; this endpoint is none.');
  const signedFetch = createSignedFetch({ region, credentials });
  const answer = await signedFetch({
    service: 'trainyard',
    method: 'GET',
    url: `${endpointUrl}/_trainyard/v1/doctor`,
  });
  if (answer.ok) return (await answer.json()) as ServiceReport;
  throw new UserError(
    `${endpointUrl} answered ${answer.status}: ${await answer.text()}`,
    EXIT_CODE.unavailable,
  );
}

async function examineUv(): Promise<Finding> {
  const { ok, output } = await runTool(process.env['TRAINYARD_UV'] || 'uv', ['--version']);
  if (ok) return { topic: 'uv', state: 'ok', text: output.trim() };
  return { topic: 'uv', state: 'warn', text: 'not found; setup uses pip instead, which takes longer' };
}

function judge(service: ServiceReport): Finding[] {
  const { level, probes } = service.isolation;
  const isolationState = level === 'processes' ? 'warn' : 'ok';
  return [
    {
      topic: 'service',
      state: 'ok',
      text: `${service.version} on Node ${service.node}, ${service.hostLimit} hosts, data in ${service.dataDir}`,
    },
    { topic: 'isolation', state: isolationState, text: level },
    ...probes.map(
      ({ rung, available, detail }): Finding => ({
        topic: '',
        state: available ? 'ok' : 'warn',
        text: `${rung}: ${detail}`,
      }),
    ),
    ...(service.runtimes.length === 0
      ? [
          {
            topic: 'runtime',
            state: 'fail',
            text: `none in ${service.runtimesDirectory}; make one with: trainyard setup`,
          } as const,
        ]
      : service.runtimes.map(
          (runtime): Finding => ({ topic: 'runtime', state: 'ok', text: describeRuntime(runtime) }),
        )),
    ...notMade(service),
    ...service.runtimeProblems.map((text): Finding => ({ topic: 'runtime', state: 'warn', text })),
    ...(service.forkServers.length === 0
      ? [{ topic: 'fork server', state: 'ok', text: 'off; ranks start as fresh interpreters' } as const]
      : service.forkServers.map(describeForkServer)),
    {
      topic: 'disk',
      state: service.diskFreeBytes < LOW_DISK_BYTES ? 'warn' : 'ok',
      text: `${(service.diskFreeBytes / 1e9).toFixed(1)} GB free for jobs`,
    },
  ];
}

/** Packages that decide which jobs a runtime can run. */
const NOTABLE_PACKAGES = ['trainyard-collective', 'trainyard-parallel', 'transformers', 'tf-keras'];

function describeRuntime({ name, framework, version, python, mpi, packages }: Runtime): string {
  const parts = [
    `${name}: ${framework} ${version ?? ''}`.trimEnd(),
    mpi ? `${mpi.name} ${mpi.version}` : 'no MPI of its own',
    ...NOTABLE_PACKAGES.flatMap((each) => (packages[each] ? [`${each} ${packages[each]}`] : [])),
  ];
  return `${parts.join(', ')} (${python})`;
}

/** What else could be made: a job of such an image is refused with the same command. */
function notMade({ runtimes }: ServiceReport): Finding[] {
  const made = new Set(runtimes.map(({ name }) => name));
  const missing = Object.keys(RECIPES).filter((name) => !made.has(name));
  if (made.size === 0 || missing.length === 0) return [];
  const text = `not made: ${missing.join(', ')}; make one with: trainyard setup --runtime NAME`;
  return [{ topic: '', state: 'ok', text }];
}

function describeForkServer({
  runtime,
  state,
  forks,
  running,
  preloadMs,
  detail,
}: ForkServerReport): Finding {
  const parts = [
    `${runtime}: ${state}`,
    ...(preloadMs === null ? [] : [`preloaded in ${formatDuration(preloadMs)}`]),
    `${forks} forks, ${running} running`,
    ...(detail === null ? [] : [detail]),
  ];
  return { topic: 'fork server', state: detail === null ? 'ok' : 'warn', text: parts.join(', ') };
}
