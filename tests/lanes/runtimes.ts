import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT } from '../support/service.ts';

const NAMED = process.env['TRAINYARD_LANE_RUNTIMES'];

/**
 * Runtimes with everything that the lanes need; apart from those of the clone, which stay as script/bootstrap made them.
 * TRAINYARD_LANE_RUNTIMES names a folder of runtimes to take as they are.
 */
export const LANE_RUNTIMES = NAMED ?? join(ROOT, '.trainyard/lanes/runtimes');

/**
 * Makes or completes them. What is there costs a second each; the libraries are built again when their sources have changed.
 * @throws Error with the command's output
 */
export async function makeLaneRuntimes(): Promise<void> {
  if (NAMED !== undefined) return;
  for (const options of [
    ['--with', 'huggingface', '--libraries'],
    ['--runtime', 'tensorflow'],
    ['--runtime', 'tensorflow-2.15'],
    ['--runtime', 'mxnet'],
  ]) {
    await promisify(execFile)(join(ROOT, 'bin/trainyard'), [
      'setup',
      '--runtimes',
      LANE_RUNTIMES,
      ...options,
    ]);
  }
}
