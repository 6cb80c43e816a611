import { resolve } from 'node:path';
import type { Session, WarningHandler } from '@trainyard/sdk';
import { Option, type Command } from 'commander';

/** Where a command's job or service is; the same flags everywhere. */
export interface SessionFlags {
  data?: string;
  endpoint?: string;
  region?: string;
  profile?: string;
  on?: 'aws' | 'embedded';
}

export function addSessionOptions(command: Command): Command {
  return command
    .option('--data <dir>', "data directory of this machine's service (TRAINYARD_DATA)")
    .addOption(new Option('--endpoint <url>', 'a Trainyard service (AWS_ENDPOINT_URL)').conflicts('data'))
    .option('--region <name>', 'region (AWS_REGION)')
    .option('--profile <name>', 'profile of the AWS configuration (AWS_PROFILE)')
    .addOption(
      new Option('--on <where>', 'aws: AWS itself; embedded: this machine, whatever is configured')
        .choices(['aws', 'embedded'])
        .conflicts('endpoint'),
    );
}

/** The SDK is loaded here, so that commands without a session start without it. */
export async function openSession(flags: SessionFlags, onWarning?: WarningHandler): Promise<Session> {
  const { Session } = await import('@trainyard/sdk');
  const { data, endpoint, region, profile, on = data === undefined ? undefined : 'embedded' } = flags;
  return new Session({
    ...(data !== undefined && { dataDirectory: resolve(data) }),
    ...(endpoint !== undefined && { endpoint }),
    ...(region !== undefined && { region }),
    ...(profile !== undefined && { profile }),
    ...(on !== undefined && { on }),
    ...(onWarning && { onWarning }),
  });
}

/** The command line that does `words` for the same place, to be shown to a user who will paste it. */
export function commandLine(words: readonly string[], flags: SessionFlags): string {
  const { data, endpoint, region, profile, on } = flags;
  const options = Object.entries({ data, endpoint, region, profile, on }).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, value],
  );
  return [process.env['TRAINYARD_COMMAND'] || 'trainyard', ...words, ...options].map(shellQuoted).join(' ');
}

export function shellQuoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
