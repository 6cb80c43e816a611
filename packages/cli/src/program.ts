import { Command } from 'commander';
import { addDoctor } from './commands/doctor.ts';
import { addDownload } from './commands/download.ts';
import { addEnv } from './commands/env.ts';
import { addJobs } from './commands/jobs.ts';
import { addServe } from './commands/serve.ts';
import { addSetup } from './commands/setup.ts';
import { addTrain } from './commands/train.ts';
import { EXIT_CODE_HELP } from './exit-code.ts';

/** The command line. Parsing throws CommanderError for what it refuses, and whatever a command throws. */
export function createProgram(version: string): Command {
  const program = new Command('trainyard')
    .description('SageMaker training jobs on your own machines')
    .version(version)
    .showHelpAfterError('(--help shows what there is)')
    .addHelpText('after', EXIT_CODE_HELP)
    .exitOverride();
  for (const add of [addTrain, addJobs, addDownload, addServe, addEnv, addSetup, addDoctor]) add(program);
  return program;
}
