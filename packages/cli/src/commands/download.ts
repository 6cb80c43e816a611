import type { Command } from 'commander';
import { downloadArtifacts } from '../model-download.ts';
import { openJob } from '../open-job.ts';
import { addSessionOptions, type SessionFlags } from '../session-options.ts';

export function addDownload(program: Command): void {
  const command = program
    .command('download')
    .description("fetch a job's model (and output) into a folder")
    .argument('<name>', 'name of the job')
    .argument('[dir]', 'folder, made when it does not exist', '.')
    .option('--json', 'print the files as JSON');
  addSessionOptions(command).action(download);
}

async function download(
  name: string,
  folder: string,
  flags: SessionFlags & { json?: boolean },
): Promise<void> {
  const { job } = await openJob(name, flags);
  const files = await downloadArtifacts(job, folder);
  if (flags.json) process.stdout.write(`${JSON.stringify(files)}\n`);
  else for (const { path, sizeBytes } of files) process.stdout.write(`${path} (${formatSize(sizeBytes)})\n`);
}

function formatSize(sizeBytes: number): string {
  if (sizeBytes < 1000) return `${sizeBytes} B`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  const step = Math.min(units.length, Math.floor(Math.log10(sizeBytes) / 3));
  return `${(sizeBytes / 1000 ** step).toFixed(1)} ${units[step - 1]}`;
}
