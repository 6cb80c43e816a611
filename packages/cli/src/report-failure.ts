import { EXIT_CODE, type ExitCode } from './exit-code.ts';
import { UserError } from './user-error.ts';

/** What the user reads, and what the shell sees. */
export interface Failure {
  message: string;
  exitCode: ExitCode;
  /** A broken invariant of ours: only then a stack trace helps anybody. */
  isOurFault: boolean;
}

/** By the name of the error's class: the SDK is not loaded for commands that do without it. */
const EXIT_CODES: Readonly<Record<string, ExitCode>> = {
  InvalidOption: EXIT_CODE.refused,
  ServiceUnavailable: EXIT_CODE.unavailable,
  TrainingFailed: EXIT_CODE.failed,
  TrainingStopped: EXIT_CODE.stopped,
  MaxRuntimeExceeded: EXIT_CODE.stopped,
  MaxWaitTimeExceeded: EXIT_CODE.stopped,
};

/** Errors of the file system that a path given by the user leads to. */
const PATH_ERRORS = new Set([
  'ENOENT',
  'EACCES',
  'EPERM',
  'ENOTDIR',
  'EISDIR',
  'EEXIST',
  'ENOSPC',
  'EROFS',
  'EMFILE',
]);

export function describeFailure(error: unknown): Failure {
  if (!(error instanceof Error))
    return { message: String(error), exitCode: EXIT_CODE.failed, isOurFault: true };
  const { message } = error;
  if (error instanceof UserError) return { message, exitCode: error.exitCode, isOurFault: false };
  if (error.name === 'ServiceError')
    return describeServiceError(error as Error & { code: string; status: number });
  if (error.name === 'CredentialsProviderError') {
    const hint =
      'For a Trainyard service: eval "$(trainyard env --data DIR)", with the service\'s data directory.';
    return {
      message: `No credentials were found: ${message}. ${hint}`,
      exitCode: EXIT_CODE.refused,
      isOurFault: false,
    };
  }
  const exitCode = EXIT_CODES[error.name];
  if (exitCode !== undefined) return { message, exitCode, isOurFault: false };
  const { code } = error as NodeJS.ErrnoException;
  if (PATH_ERRORS.has(code ?? '')) return { message, exitCode: EXIT_CODE.failed, isOurFault: false };
  return { message, exitCode: EXIT_CODE.failed, isOurFault: true };
}

function describeServiceError({ code, status, message }: Error & { code: string; status: number }): Failure {
  if (status === 0) return { message, exitCode: EXIT_CODE.unavailable, isOurFault: false };
  const text = `The service refused the request (${code}): ${message}`;
  if (status < 500) return { message: text, exitCode: EXIT_CODE.refused, isOurFault: false };
  return {
    message: `The service failed (${code}): ${message}`,
    exitCode: EXIT_CODE.unavailable,
    isOurFault: false,
  };
}

/** Writes the failure to standard error. @returns the exit code */
export function reportFailure(error: unknown): ExitCode {
  const { message, exitCode, isOurFault } = describeFailure(error);
  process.stderr.write(`trainyard: ${message}\n`);
  if (isOurFault) {
    const stack = error instanceof Error ? error.stack : undefined;
    process.stderr.write(
      process.env['TRAINYARD_DEBUG'] && stack
        ? `${stack}\n`
        : 'This is a fault in Trainyard, not in your command. TRAINYARD_DEBUG=1 shows where it arose.\n',
    );
  }
  return exitCode;
}
