import { isServiceError } from '@trainyard/api';
import type { DescribeTrainingJobResponse, Session, TrainingJob } from '@trainyard/sdk';
import { EXIT_CODE } from './exit-code.ts';
import { commandLine, openSession, type SessionFlags } from './session-options.ts';
import { UserError } from './user-error.ts';

/**
 * A job that a user named, with its description.
 * @throws UserError when there is none: AWS's own answer to that does not say which name it looked for
 */
export async function openJob(
  name: string,
  flags: SessionFlags,
): Promise<{ job: TrainingJob; description: DescribeTrainingJobResponse; session: Session }> {
  const { TrainingJob } = await import('@trainyard/sdk');
  const session = await openSession(flags);
  const job = new TrainingJob(name, session);
  try {
    return { job, description: await job.describe(), session };
  } catch (error) {
    if (!isServiceError(error, 'ValidationException', 'ResourceNotFound')) throw error;
    const list = commandLine(['jobs', 'list'], flags);
    throw new UserError(
      `There is no job ${name}: ${error.message} The jobs there are: ${list}`,
      EXIT_CODE.refused,
      { cause: error },
    );
  }
}
