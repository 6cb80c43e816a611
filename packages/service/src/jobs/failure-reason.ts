import type { RankFailure } from '@trainyard/api';
import type { Host } from '../store/host-store.ts';
import { adviceForMissingModule } from './missing-module.ts';

/** AWS's limit for FailureReason. */
export const FAILURE_REASON_LENGTH = 1024;

/**
 * FailureReason of an attempt whose script failed, in the form AWS's toolkit gives it:
 * `AlgorithmError: ExecuteUserScriptError:⏎ExitCode 1⏎ErrorMessage "…"⏎Command "…", exit code: 1`.
 *
 * Of all hosts' failures the first cause is chosen: an error that only says that another rank went away comes
 * last, then the earliest counts. A failure file of the script wins over our own text, as on AWS.
 */
export function failureReason(hosts: readonly Host[]): string {
  const first = firstCause(hosts);
  if (!first) return 'AlgorithmError: Exit Code: 1';
  const { host, failure } = first;
  const exited = host.exited!;
  const code = exited.exitCode ?? 1;
  if (exited.failureFile !== null && exited.failureFile.trim() !== '') {
    return cut(`AlgorithmError: ${exited.failureFile.trim()}`);
  }
  const message = failure
    ? errorMessage(failure, hosts)
    : `${host.host}: exit code ${exited.exitCode ?? exited.signal}`;
  const scriptCode = failure?.exitCode ?? code;
  const head = `AlgorithmError: ExecuteUserScriptError:\nExitCode ${failure?.signal ? signalExit(failure.signal) : scriptCode}\nErrorMessage "`;
  const extra = failure?.outOfMemory ? '\nExtraInfo "OutOfMemory: Process killed by SIGKILL (signal 9)"' : '';
  const tail = `"${extra}\nCommand "${exited.command.length > 240 ? `${exited.command.slice(0, 237)}...` : exited.command}", exit code: 1`;
  const room = FAILURE_REASON_LENGTH - head.length - tail.length;
  return cut(
    head + (message.length > room ? `${message.slice(0, Math.max(0, room - 3))}...` : message) + tail,
  );
}

interface Cause {
  host: Host;
  failure: RankFailure | null;
}

export function firstCause(hosts: readonly Host[]): Cause | null {
  const causes = hosts
    .filter((host) => host.exited !== null && isFailure(host))
    .map((host): Cause => ({ host, failure: host.exited!.failure }));
  const rank = (cause: Cause): number => {
    if (cause.host.exited!.endedBy !== 'script') return 3; // it was stopped because another host had failed
    if (!cause.failure) return 2;
    return cause.failure.isConsequence ? 1 : 0;
  };
  causes.sort(
    (a, b) =>
      rank(a) - rank(b) ||
      (a.failure?.at ?? a.host.exited!.at) - (b.failure?.at ?? b.host.exited!.at) ||
      (a.host.host < b.host.host ? -1 : 1),
  );
  return causes[0] ?? null;
}

/** A host whose ranks ended badly: any exit but 0 that we did not ask for. */
export function isFailure(host: Host): boolean {
  const exited = host.exited;
  if (!exited) return false;
  return exited.exitCode !== 0;
}

function errorMessage(failure: RankFailure, hosts: readonly Host[]): string {
  const who = failure.rank === null ? failure.host : `${failure.host} rank ${failure.rank}`;
  const what = failure.exception ?? failure.trace.at(-1) ?? 'no error line found';
  const advice = adviceForMissingModule(what);
  const where = failure.location ? ` (${failure.location})` : '';
  const how = failure.signal ? `killed by ${failure.signal}` : `exit code ${failure.exitCode}`;
  const same = new Set(failure.sameTraceRanks);
  for (const host of hosts) {
    const other = host.exited?.failure;
    if (!other || other.host === failure.host) continue;
    if (
      other.exception === failure.exception &&
      other.location === failure.location &&
      other.exception !== null
    ) {
      if (other.rank !== null) same.add(other.rank);
      for (const rank of other.sameTraceRanks) same.add(rank);
    }
  }
  if (failure.rank !== null) same.delete(failure.rank);
  const ranks = [...same].sort((a, b) => a - b);
  const alike =
    ranks.length === 0 ? '' : `; same error on rank${ranks.length > 1 ? 's' : ''} ${ranks.join(', ')}`;
  return `${who}: ${what}${where}; ${how}${alike}${advice === null ? '' : `; ${advice}`}`;
}

function signalExit(signal: string): number {
  const numbers: Record<string, number> = {
    SIGHUP: 1,
    SIGINT: 2,
    SIGQUIT: 3,
    SIGILL: 4,
    SIGABRT: 6,
    SIGBUS: 7,
    SIGFPE: 8,
    SIGKILL: 9,
    SIGSEGV: 11,
    SIGTERM: 15,
  };
  return 128 + (numbers[signal] ?? 0);
}

export function cut(reason: string): string {
  const points = Array.from(reason);
  return points.length <= FAILURE_REASON_LENGTH
    ? reason
    : `${points.slice(0, FAILURE_REASON_LENGTH - 3).join('')}...`;
}
