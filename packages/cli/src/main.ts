#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { CommanderError } from 'commander';
import { EXIT_CODE } from './exit-code.ts';
import { createProgram } from './program.ts';
import { reportFailure } from './report-failure.ts';

/** `trainyard`: the table of exit codes is `exit-code.ts`. */
async function main(): Promise<void> {
  // `trainyard jobs logs x | head` closes the pipe early, which is no failure of ours.
  process.stdout.on('error', (error: NodeJS.ErrnoException) =>
    process.exit(error.code === 'EPIPE' ? 0 : EXIT_CODE.failed),
  );
  const version = (
    JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
  ).version;
  try {
    await createProgram(version).parseAsync();
  } catch (error) {
    // Commander has said what is wrong; help and version that were asked for are no mistake.
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : EXIT_CODE.refused;
    else process.exitCode = reportFailure(error);
  }
  // Connections that are kept alive for a next request would keep the process.
  process.exit();
}

await main();
