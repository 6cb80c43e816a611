import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { LAUNCHER_VARIABLES, VARIABLES } from '@trainyard/launch';
import { PROBLEMS } from '@trainyard/sdk';
import { ROOT } from '../support/service.ts';
import { optionRows } from './option-docs.ts';

/** A table of a page that repeats what the code has: the first one below its heading. */
export interface GeneratedTable {
  path: string;
  heading: string;
  /** Cells as the page has them. */
  rows: () => string[][];
}

const options = (heading: string, file: string, name = heading): GeneratedTable => ({
  path: 'docs/estimators.md',
  heading,
  rows: () => optionRows(`packages/sdk/src/${file}`, name),
});

export const GENERATED_TABLES: readonly GeneratedTable[] = [
  {
    path: 'docs/environment.md',
    heading: 'What a script sees',
    rows: () =>
      VARIABLES.map(({ name, strength, reason }) => [
        `\`${name}\``,
        strength === 'fixed' ? 'ours' : 'yours',
        reason,
      ]),
  },
  {
    path: 'docs/environment.md',
    heading: 'What launchers add',
    rows: () => Object.entries(LAUNCHER_VARIABLES).map(([name, reason]) => [`\`${name}\``, reason]),
  },
  {
    path: 'docs/errors.md',
    heading: 'Problems of options',
    rows: () => Object.entries(PROBLEMS).map(([id, about]) => [`\`${id}\``, about]),
  },
  options('SessionOptions', 'session.ts'),
  // The fields of options whose type also says which of them exclude each other.
  options('PyTorchOptions', 'frameworks/pytorch.ts', 'PyTorchFields'),
  options('TensorFlowOptions', 'frameworks/tensorflow.ts', 'TensorFlowFields'),
  options('MXNetOptions', 'frameworks/mxnet.ts', 'MXNetFields'),
  options('HuggingFaceOptions', 'frameworks/hugging-face.ts', 'HuggingFaceFields'),
  options('EstimatorOptions', 'estimator.ts', 'EstimatorFields'),
  options('InstanceGroup', 'instance-groups.ts'),
  options('GitConfig', 'source/git-config.ts'),
  options('ModelTrainerOptions', 'model-trainer/trainer-options.ts'),
  options('SourceCode', 'model-trainer/trainer-options.ts'),
  options('Compute', 'model-trainer/trainer-options.ts'),
  options('TorchrunOptions', 'model-trainer/distributed.ts'),
  options('MPIOptions', 'model-trainer/distributed.ts'),
  options('SMPOptions', 'model-trainer/distributed.ts'),
  options('TrainOptions', 'model-trainer/model-trainer.ts'),
  options('SourceOptions', 'estimator-options.ts'),
  options('CommonOptions', 'estimator-options.ts'),
  options('FitOptions', 'estimator-base.ts'),
  options('TrainingInputOptions', 'inputs.ts'),
  options('FileSystemInputOptions', 'inputs.ts'),
];

/** What `trainyard WORDS --help` of the build prints to somebody whose home is /home/you. */
export async function helpOf(words: string): Promise<string> {
  const program = join(ROOT, 'packages/cli/dist/trainyard.mjs');
  const env = { PATH: process.env['PATH'] ?? '', HOME: '/home/you' };
  const args = [program, ...words.split(' ').filter(Boolean), '--help'];
  const { stdout } = await promisify(execFile)(process.execPath, args, { env });
  return stdout.trimEnd();
}
