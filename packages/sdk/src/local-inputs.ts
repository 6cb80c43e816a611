import { stat } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import type { Channel, TrainingInputMode } from '@trainyard/api';
import { formatS3Uri, parseS3Uri } from '@trainyard/api';
import { InvalidOption } from './errors.ts';
import type { ParsedInput } from './inputs.ts';
import { fileSystemChannel, s3Channel } from './inputs.ts';
import type { PlannedUpload } from './job-plan.ts';
import type { Problem } from './problem.ts';

/** What local inputs need of the session. */
export interface InputPlace {
  jobInputMode: TrainingInputMode;
  /** Where uploads of a channel go; asked only when there are some. */
  uploadUri: (channel: string) => Promise<string>;
  /** Null when the service cannot see this machine's directories. */
  registerFolder: ((path: string) => Promise<string>) | null;
}

/** FSx for Lustre paths begin with a mount name; a registered folder takes any. */
const MOUNT_NAME = 'trainyard';

/**
 * Channels for all inputs, and what must be uploaded for them. A directory given as a plain path is used in place
 * by the embedded service; other local inputs are uploaded below `<job>/input/<channel>/`.
 * @throws InvalidOption (`E-FILE-INPUT`) with every path that is not there.
 */
export async function placeInputs(
  inputs: readonly ParsedInput[],
  place: InputPlace,
): Promise<{ channels: Channel[]; uploads: PlannedUpload[] }> {
  const uploads: PlannedUpload[] = [];
  await checkAll(inputs);
  const channels: Channel[] = [];
  for (const input of inputs) {
    if (input.kind === 'channel') {
      channels.push(input.channel);
      continue;
    }
    const path = resolve(input.path);
    const isDirectory = (await stat(path)).isDirectory();
    if (isDirectory && input.options === null && place.jobInputMode === 'File' && place.registerFolder) {
      const fileSystemId = await place.registerFolder(path);
      const directoryPath = `/${MOUNT_NAME}`;
      channels.push(
        fileSystemChannel(input.name, { fileSystemId, fileSystemType: 'FSxLustre', directoryPath }),
      );
      continue;
    }
    const { bucket, key } = parseS3Uri(await place.uploadUri(input.name));
    const prefix = `${key}/`;
    if (isDirectory) uploads.push({ kind: 'directory', bucket, key: prefix, path, channel: input.name });
    else uploads.push({ kind: 'file', bucket, key: prefix + basename(path), path });
    channels.push(s3Channel(input.name, formatS3Uri({ bucket, key: prefix }), input.options ?? {}));
  }
  return { channels, uploads };
}

async function checkAll(inputs: readonly ParsedInput[]): Promise<void> {
  const problems = await Promise.all(
    inputs.map(async (input): Promise<Problem[]> => {
      if (input.kind === 'channel') return [];
      const stats = await stat(input.path).catch(() => null);
      if (stats?.isDirectory() || stats?.isFile()) return [];
      const rule = stats ? 'It is neither a file nor a directory.' : 'There is no such file or directory.';
      const nextStep = `Looked at ${resolve(input.path)}; relative paths start at the working directory.`;
      return [{ id: 'E-FILE-INPUT', field: `inputs.${input.name}`, value: input.path, rule, nextStep }];
    }),
  );
  const [first, ...rest] = problems.flat();
  if (first) throw new InvalidOption([first, ...rest]);
}
