export { EXIT_CODE, type ExitCode } from './exit-code.ts';
export { createProgram } from './program.ts';
