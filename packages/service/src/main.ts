import { ConfigError, readConfig } from './config.ts';
import { isDiskFull } from './store/disk-reserve.ts';
import { ExecutorError } from './executors/local/executor-error.ts';
import { DirectoryInUse, startService } from './service.ts';

/** `trainyard-service [--data DIR] [--port N] [--host ADDRESS] [--hosts N] [--embedded]` */
async function main(): Promise<number> {
  // A log that cannot be written, because its disk is full or its reader is gone, must not end the service.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  const log = (line: string): void => console.error(`${new Date().toISOString()} ${line}`);
  try {
    const config = readConfig(process.argv.slice(2), process.env);
    const service = await startService(config, log);
    const stop = new Promise<'signal'>((resolve) => {
      process.once('SIGTERM', () => resolve('signal'));
      process.once('SIGINT', () => resolve('signal'));
    });
    console.log(
      `Trainyard listens on ${service.url} (data in ${config.dataDir}, isolation: ${service.isolation.level})`,
    );
    const why = await Promise.race([service.ended, stop]);
    log(`ending: ${why}`);
    await service.close();
    return 0;
  } catch (error) {
    if (error instanceof ConfigError || error instanceof DirectoryInUse) {
      console.error(`trainyard: ${error.message}`);
      return 2;
    }
    const { code } = error as NodeJS.ErrnoException;
    if (
      code === 'EADDRINUSE' ||
      (code === 'EACCES' && (error as NodeJS.ErrnoException).syscall === 'listen')
    ) {
      console.error(`trainyard: cannot listen: ${(error as Error).message}. Give another --port.`);
      return 2;
    }
    if (isDiskFull(error)) {
      console.error(`trainyard: cannot start: ${(error as Error).message}. Free space, then start again.`);
      return 4;
    }
    if (error instanceof ExecutorError || code === 'ENOENT' || code === 'EACCES') {
      console.error(
        `trainyard: cannot start: ${(error as Error).message}. trainyard doctor says what this machine allows.`,
      );
      return 4;
    }
    throw error;
  }
}

process.exitCode = await main();
// Long polls of agents may still hold sockets; everything that matters is on disk.
process.exit();
