import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Option, type Command } from 'commander';
import { EXIT_CODE } from '../exit-code.ts';
import { UserError } from '../user-error.ts';

interface ServeFlags {
  data?: string;
  host?: string;
  port?: string;
  hosts?: string;
  stop?: boolean;
}

export function addServe(program: Command): void {
  program
    .command('serve')
    .description('run a service in the foreground; it prints its URL when it is ready')
    .option('--port <number>', 'TCP port (default: the last one if free, else any)')
    .option('--host <address>', 'address to listen on (default: 127.0.0.1)')
    .option(
      '--data <dir>',
      'where it keeps everything (TRAINYARD_DATA; default: ~/.local/share/trainyard/data)',
    )
    .option('--hosts <number>', 'how many hosts jobs may have at one time (default: 8)')
    .addOption(
      new Option('--stop', 'end the service of the data directory; its jobs go on').conflicts([
        'port',
        'host',
        'hosts',
      ]),
    )
    .action((flags: ServeFlags) => (flags.stop ? stop(flags) : serve(flags)));
}

async function stop({ data }: ServeFlags): Promise<void> {
  const { Session } = await import('@trainyard/sdk');
  const session = new Session({
    on: 'embedded',
    ...(data !== undefined && { dataDirectory: resolve(data) }),
  });
  const wasRunning = await session.stopService();
  process.stdout.write(
    wasRunning
      ? `The service of ${session.dataDirectory} has ended.\n`
      : `No service of ${session.dataDirectory} was running.\n`,
  );
}

async function serve({ data, host, port, hosts }: ServeFlags): Promise<void> {
  const args = Object.entries({ data, host, port, hosts }).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, value],
  );
  const program = serviceProgram();
  // The service takes this process over: signals, exit code and process id are then its own.
  if (process.execve)
    process.execve(process.execPath, [process.execPath, program, ...args], { ...process.env });
  const child = spawn(process.execPath, [program, ...args], { stdio: 'inherit' });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  process.exitCode = await new Promise<number>((end) =>
    child.once('exit', (code) => end(code ?? EXIT_CODE.failed)),
  );
}

function serviceProgram(): string {
  const beside = join(dirname(fileURLToPath(import.meta.url)), '../../service/dist/trainyard-service.mjs');
  const program = process.env['TRAINYARD_SERVICE'] || beside;
  if (existsSync(program)) return program;
  throw new UserError(
    `The service's program ${program} is missing. Build it: npm run build`,
    EXIT_CODE.unavailable,
  );
}
