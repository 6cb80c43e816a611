import type { Command } from 'commander';
import { addSessionOptions, openSession, shellQuoted, type SessionFlags } from '../session-options.ts';
import { UserError } from '../user-error.ts';

export function addEnv(program: Command): void {
  const command = program
    .command('env')
    .description('print export lines that point AWS clients at the service: eval "$(trainyard env)"');
  addSessionOptions(command).action(printEnvironment);
}

async function printEnvironment(flags: SessionFlags): Promise<void> {
  const session = await openSession(flags);
  const { kind, endpointUrl, region, credentials } = await session.connect();
  if (kind === 'aws' || endpointUrl === null) {
    throw new UserError(
      'AWS clients find AWS by themselves; env is for a Trainyard service. Leave out --on aws.',
    );
  }
  const keys = typeof credentials === 'function' ? await credentials() : credentials;
  const variables: Record<string, string | undefined> = {
    AWS_ENDPOINT_URL: endpointUrl,
    AWS_ACCESS_KEY_ID: keys.accessKeyId,
    AWS_SECRET_ACCESS_KEY: keys.secretAccessKey,
    AWS_SESSION_TOKEN: keys.sessionToken,
    AWS_REGION: region,
    AWS_DEFAULT_REGION: region,
  };
  for (const [name, value] of Object.entries(variables)) {
    // A token left from another account would spoil keys that have none.
    process.stdout.write(value === undefined ? `unset ${name}\n` : `export ${name}=${shellQuoted(value)}\n`);
  }
}
