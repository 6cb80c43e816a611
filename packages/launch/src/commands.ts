import type { HostCommand, StopReason } from '@trainyard/api';
import { monotonicMs } from './clock.ts';
import type { ControlChannel } from './control-channel.ts';
import type { AttemptState, StateStore } from './state.ts';

/** How long the service may hold a question for commands. */
const LONG_POLL_MS = 20_000;

/** Asks for commands and writes each into the state; a command counts as carried out once it is on disk. */
export async function receiveCommands(
  channel: ControlChannel,
  state: StateStore,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const { ackedCommand, phase } = state.current;
    const answer = await channel.sync({ reports: [], ackedCommand, phase, waitMs: LONG_POLL_MS }, signal);
    await accept(answer.commands, state);
  }
}

/** Sends reports as they come, beside the long poll, and forgets those that the service has. */
export async function sendReports(
  channel: ControlChannel,
  state: StateStore,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await state.until(({ reports }) => reports.length > 0, signal);
    // Only what is on disk may go out: its number must never be given to another report.
    await state.update(() => {});
    const { reports, ackedCommand, phase } = state.current;
    const answer = await channel.sync({ reports: [...reports], ackedCommand, phase, waitMs: 0 }, signal);
    await state.update((current) => {
      current.reports = current.reports.filter(({ seq }) => seq >= answer.nextReportSeq);
      current.nextReportSeq = Math.max(current.nextReportSeq, answer.nextReportSeq);
    });
    await accept(answer.commands, state);
  }
}

/** Both calls may bring the same command; only numbers above the last one count. */
async function accept(commands: readonly HostCommand[], state: StateStore): Promise<void> {
  if (!commands.some(({ id }) => id > state.current.ackedCommand)) return;
  await state.update((current) => {
    for (const command of commands) {
      if (command.id <= current.ackedCommand) continue;
      apply(command, current, monotonicMs());
      current.ackedCommand = command.id;
    }
  });
}

/** Writes a command into the state. Pure but for its argument. */
export function apply(command: HostCommand, state: AttemptState, nowMs: number): void {
  switch (command.kind) {
    case 'start':
      state.startCommanded = true;
      state.startedAtMs ??= nowMs;
      return;
    case 'stop':
      return requestStop(state, 'stop', command.reason, command.graceMs, nowMs);
    case 'upload': {
      const { id: _id, kind: _kind, ...upload } = command;
      state.upload = upload;
      return;
    }
    case 'finish':
      state.finish = true;
  }
}

/** The first stop decides how the end is called; a later one can only shorten the time. */
export function requestStop(
  state: AttemptState,
  endedBy: 'stop' | 'max_runtime',
  reason: StopReason,
  graceMs: number,
  nowMs: number,
): void {
  if (!state.stop) {
    state.stop = { endedBy, reason, graceMs, signalledAtMs: null };
    return;
  }
  const used = state.stop.signalledAtMs === null ? 0 : nowMs - state.stop.signalledAtMs;
  state.stop = { ...state.stop, graceMs: Math.min(state.stop.graceMs, used + graceMs) };
}
