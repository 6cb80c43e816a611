import type { AttachOptions } from '../attach.ts';
import { attachOptions } from '../attach.ts';
import type { FrameworkName } from '../distribution/plan-launch.ts';
import { InvalidOption } from '../errors.ts';
import type { TrainingJob } from '../training-job.ts';
import { launchOfFlags } from './launch-flags.ts';
import type { ScriptOptions } from './script-profile.ts';

/** How the images of each framework name their versions. */
const IMAGES: readonly { framework: FrameworkName; pattern: RegExp }[] = [
  {
    framework: 'pytorch',
    pattern:
      /\/(?:pytorch-training|sagemaker-pytorch):(?<frameworkVersion>[\d.]+)-(?:cpu|gpu)-(?<pyVersion>py\d+)$/,
  },
  {
    framework: 'pytorch',
    pattern: /\/smdistributed-modelparallel:(?<frameworkVersion>[\d.]+)-gpu-(?<pyVersion>py\d+)-cu\d+$/,
  },
  {
    framework: 'tensorflow',
    pattern:
      /\/(?:tensorflow-training|sagemaker-tensorflow(?:-scriptmode)?):(?<frameworkVersion>[\d.]+)-(?:cpu|gpu)-(?<pyVersion>py\d+)$/,
  },
  {
    framework: 'mxnet',
    pattern:
      /\/(?:mxnet-training|sagemaker-mxnet):(?<frameworkVersion>[\d.]+)-(?:cpu|gpu)-(?<pyVersion>py\d+)$/,
  },
  {
    framework: 'huggingface',
    pattern:
      /\/huggingface-pytorch-training:(?<pytorchVersion>[\d.]+)-transformers(?<transformersVersion>[\d.]+)-gpu-(?<pyVersion>py\d+)-/,
  },
  {
    framework: 'huggingface',
    pattern:
      /\/huggingface-tensorflow-training:(?<tensorflowVersion>[\d.]+)-transformers(?<transformersVersion>[\d.]+)-gpu-(?<pyVersion>py\d+)-/,
  },
];

/**
 * The options that a script job was made with, as far as its description holds them.
 * @throws InvalidOption (`E-FRAMEWORK`) when it ran no script, or an image of another framework
 */
export async function attachFramework(
  framework: FrameworkName,
  jobName: string,
  options: AttachOptions,
): Promise<{ job: TrainingJob; restored: ScriptOptions }> {
  const { job, common, source, imageUri, flags } = await attachOptions(jobName, options);
  if (source === null) throw otherFramework('jobName', jobName, 'The job has no script (sagemaker_program).');
  const versions = versionsOfImage(framework, imageUri);
  return { job, restored: { ...common, ...source, ...versions, ...launchOfFlags(flags) } };
}

/** Versions out of the tag of an AWS image, so that a next job may choose others; the address itself for any other. */
export function versionsOfImage(framework: FrameworkName, imageUri: string): Record<string, string> {
  for (const image of IMAGES) {
    const versions = image.pattern.exec(imageUri)?.groups;
    if (!versions) continue;
    if (image.framework === framework) return { ...versions };
    throw otherFramework('imageUri', imageUri, 'The job ran an image of another framework.');
  }
  return { imageUri };
}

function otherFramework(field: string, value: string, rule: string): InvalidOption {
  return new InvalidOption([{ id: 'E-FRAMEWORK', field, value, rule, nextStep: 'Use Estimator.attach.' }]);
}
