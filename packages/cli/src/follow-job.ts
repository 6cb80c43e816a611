import type { DescribeTrainingJobResponse, TrainingJob } from '@trainyard/sdk';
import { EXIT_CODE, type ExitCode } from './exit-code.ts';
import { modelOf } from './render/model-of.ts';
import { ProgressView } from './render/progress-view.ts';
import type { Terminal } from './render/terminal.ts';
import { commandLine, type SessionFlags } from './session-options.ts';

const FRAME_MS = 100;

export interface FollowTarget {
  terminal: Terminal;
  /** One JSON line per event instead of a view. */
  json: boolean;
}

export type FollowResult =
  | { isDetached: false; description: DescribeTrainingJobResponse; exitCode: ExitCode }
  | { isDetached: true; exitCode: ExitCode };

/**
 * Shows a job up to its end. An interrupt ends the following, never the job, and says how to come back.
 */
export async function followJob(
  job: TrainingJob,
  target: FollowTarget,
  flags: SessionFlags,
): Promise<FollowResult> {
  const { terminal, json } = target;
  const view = new ProgressView(terminal);
  const interrupt = new AbortController();
  const onInterrupt = (): void => interrupt.abort();
  process.once('SIGINT', onInterrupt);
  const frames = setInterval(() => json || view.tick(), FRAME_MS);
  try {
    for await (const event of job.events({ signal: interrupt.signal })) {
      if (json) printJson(terminal, { event: event.type, ...event, type: undefined });
      else view.show(event);
    }
  } catch (error) {
    view.clear();
    if (!interrupt.signal.aborted) throw error;
    printDetached(job.name, target, flags);
    return { isDetached: true, exitCode: EXIT_CODE.detached };
  } finally {
    clearInterval(frames);
    process.off('SIGINT', onInterrupt);
  }
  view.clear();
  const description = await job.describe();
  if (!json) for (const line of view.summary()) terminal.write(`${line}\n`);
  return { isDetached: false, description, exitCode: exitCodeOf(description) };
}

/** The outcome in a few lines, the last of which says what to do next. */
export function printOutcome(
  description: DescribeTrainingJobResponse,
  target: FollowTarget,
  options: { flags: SessionFlags; modelPath: string | null },
): void {
  const {
    TrainingJobName: name,
    TrainingJobStatus: status,
    SecondaryStatus: secondary,
    FailureReason: reason,
  } = description;
  const model = modelOf(description);
  if (target.json) {
    const exitCode = exitCodeOf(description);
    const result = {
      status,
      secondaryStatus: secondary,
      failureReason: reason ?? null,
      modelArtifacts: model,
    };
    printJson(target.terminal, {
      event: 'result',
      job: name,
      ...result,
      modelPath: options.modelPath,
      exitCode,
    });
    return;
  }
  const { write, style } = target.terminal;
  const mark = { Completed: style('green', '✔ Completed'), Failed: style('red', '✘ Failed') }[
    status as string
  ];
  write(
    `${mark ?? style('yellow', `■ ${secondary === 'MaxRuntimeExceeded' ? 'Stopped at its time limit' : status}`)} ${name}\n`,
  );
  if (reason) write(`${reason}\n`);
  if (options.modelPath !== null) write(`Model: ${options.modelPath}\n`);
  else if (model !== null && status !== 'Failed') {
    write(`Model: ${model}\n`);
    write(`Fetch it with: ${commandLine(['download', name, '.'], options.flags)}\n`);
  } else write(`Its log: ${commandLine(['jobs', 'logs', name], options.flags)}\n`);
}

export function printJson(terminal: Terminal, value: unknown): void {
  terminal.write(`${JSON.stringify(value)}\n`);
}

export function exitCodeOf({ TrainingJobStatus: status }: DescribeTrainingJobResponse): ExitCode {
  if (status === 'Completed') return EXIT_CODE.completed;
  return status === 'Stopped' ? EXIT_CODE.stopped : EXIT_CODE.failed;
}

function printDetached(name: string, { terminal, json }: FollowTarget, flags: SessionFlags): void {
  const attach = commandLine(['jobs', 'logs', name, '--follow'], flags);
  const stop = commandLine(['jobs', 'stop', name], flags);
  if (json) return printJson(terminal, { event: 'detached', job: name, attach, stop });
  terminal.write(`Detached; ${name} goes on.\nCome back with: ${attach}\nStop it with:   ${stop}\n`);
}
