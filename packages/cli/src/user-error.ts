import { EXIT_CODE, type ExitCode } from './exit-code.ts';

/** Something the user can put right: shown as its message alone, never with a stack trace. */
export class UserError extends Error {
  override readonly name = 'UserError';
  readonly exitCode: ExitCode;

  constructor(message: string, exitCode: ExitCode = EXIT_CODE.refused, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}
