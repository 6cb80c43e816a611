import { setTimeout as sleep } from 'node:timers/promises';
import type { TrainingJob } from '@trainyard/sdk';
import { Option, type Command } from 'commander';
import { exitCodeOf, followJob, printJson, printOutcome, type FollowTarget } from '../follow-job.ts';
import { describeJob } from '../render/job-description.ts';
import { formatDuration } from '../render/duration.ts';
import { logLine } from '../render/log-line.ts';
import { terminalOn } from '../render/terminal.ts';
import { table } from '../render/table.ts';
import { openJob } from '../open-job.ts';
import { wholeNumber } from '../pairs.ts';
import { addSessionOptions, openSession, type SessionFlags } from '../session-options.ts';

interface JsonFlag extends SessionFlags {
  json?: boolean;
}

const STATUSES = ['InProgress', 'Completed', 'Failed', 'Stopping', 'Stopped'] as const;
const STOP_POLL_MS = 500;
const CAUGHT_UP_MS = 400;

export function addJobs(program: Command): void {
  const jobs = program.command('jobs').description('list, describe, follow and stop jobs');
  addSessionOptions(
    jobs
      .command('list')
      .description('the newest jobs')
      .option('--max <n>', 'at most so many', wholeNumber('--max', 1), 20)
      .addOption(new Option('--status <status>', 'only jobs with this status').choices(STATUSES))
      .option('--json', 'one JSON line per job'),
  ).action(list);
  addSessionOptions(
    jobs
      .command('describe')
      .description('everything about a job')
      .argument('<name>')
      .option('--json', 'the answer of DescribeTrainingJob as JSON, with "Trainyard" for notices and hosts'),
  ).action(describe);
  addSessionOptions(
    jobs
      .command('logs')
      .description('what the ranks of a job printed')
      .argument('<name>')
      .option('-f, --follow', 'go on to the end of the job; exits as train does')
      .option('--json', 'one JSON line per event'),
  ).action(logs);
  addSessionOptions(
    jobs
      .command('stop')
      .description('ask a job to stop: its processes have 120 s, and what they wrote is kept')
      .argument('<name>')
      .option('--wait', 'return when it has ended'),
  ).action(stop);
}

async function list(flags: JsonFlag & { max: number; status?: (typeof STATUSES)[number] }): Promise<void> {
  const session = await openSession(flags);
  const terminal = terminalOn(process.stdout);
  const found = [];
  let token: string | undefined;
  do {
    const page = await session.use(({ sagemaker }) =>
      sagemaker.call('ListTrainingJobs', {
        SortBy: 'CreationTime',
        SortOrder: 'Descending',
        MaxResults: Math.min(100, flags.max - found.length),
        ...(flags.status && { StatusEquals: flags.status }),
        ...(token !== undefined && { NextToken: token }),
      }),
    );
    found.push(...page.TrainingJobSummaries);
    token = page.NextToken;
  } while (token !== undefined && found.length < flags.max);
  if (flags.json) {
    for (const job of found) printJson(terminal, job);
    return;
  }
  if (found.length === 0) return terminal.write('No jobs.\n');
  const rows = found.map((job) => [
    job.TrainingJobName,
    job.TrainingJobStatus,
    job.CreationTime.toISOString().slice(0, 19).replace('T', ' '),
    formatDuration((job.TrainingEndTime ?? new Date()).getTime() - job.CreationTime.getTime()),
  ]);
  terminal.write(table(['NAME', 'STATUS', 'CREATED (UTC)', 'TIME'], rows));
}

async function describe(name: string, flags: JsonFlag): Promise<void> {
  const { description, session } = await openJob(name, flags);
  const terminal = terminalOn(process.stdout);
  const { trainyard } = await session.connect();
  const more = trainyard ? await trainyard.describeJob(name) : null;
  if (flags.json) printJson(terminal, more ? { ...description, Trainyard: more } : description);
  else terminal.write(describeJob(description, more));
}

async function logs(name: string, flags: JsonFlag & { follow?: boolean }): Promise<void> {
  const { job, description } = await openJob(name, flags);
  const target = { terminal: terminalOn(process.stdout), json: flags.json ?? false };
  if (!flags.follow) return await printLines(job, isTerminal(description.TrainingJobStatus), target);
  const followed = await followJob(job, target, flags);
  if (!followed.isDetached) printOutcome(followed.description, target, { flags, modelPath: null });
  process.exitCode = followed.exitCode;
}

/** The lines there are. A job that goes on sends more for ever, so a pause is taken for the present. */
async function printLines(
  job: TrainingJob,
  isOver: boolean,
  { terminal, json }: FollowTarget,
): Promise<void> {
  const caughtUp = new AbortController();
  let pause: NodeJS.Timeout | undefined;
  try {
    for await (const event of job.events({ signal: caughtUp.signal })) {
      if (!isOver) pause = pause?.refresh() ?? setTimeout(() => caughtUp.abort(), CAUGHT_UP_MS);
      if (event.type !== 'log') continue;
      if (json) printJson(terminal, { event: 'log', ...event, type: undefined });
      else terminal.write(logLine(terminal, event));
    }
  } catch (error) {
    if (!caughtUp.signal.aborted) throw error;
  } finally {
    clearTimeout(pause);
  }
}

function isTerminal(status: string): boolean {
  return status === 'Completed' || status === 'Failed' || status === 'Stopped';
}

async function stop(name: string, flags: SessionFlags & { wait?: boolean }): Promise<void> {
  const { job } = await openJob(name, flags);
  await job.stop();
  let description = await job.describe();
  while (flags.wait && !isTerminal(description.TrainingJobStatus)) {
    await sleep(STOP_POLL_MS);
    description = await job.describe();
  }
  process.stdout.write(`${name} is ${description.TrainingJobStatus}.\n`);
  if (flags.wait && description.TrainingJobStatus === 'Failed') process.exitCode = exitCodeOf(description);
}
