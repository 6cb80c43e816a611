import type { HostPlan } from '@trainyard/api';
import { HostFailure } from './host-failure.ts';

interface Framework {
  title: string;
  /** What the runtime is called that `trainyard setup` makes for it. */
  runtime: string;
  module: string;
  /** Distributions that bring it, by normalised name. */
  distributions: RegExp;
  /** The framework's version in the tag of an AWS image. */
  tag: RegExp;
}

type FrameworkModule = NonNullable<HostPlan['frameworkModule']>;

const FRAMEWORKS: Readonly<Record<FrameworkModule, Framework>> = {
  'sagemaker_pytorch_container.training:main': {
    title: 'PyTorch',
    module: 'torch',
    runtime: 'pytorch',
    distributions: /^torch$/,
    tag: /pytorch-training[^:]*:(\d+(?:\.\d+)*)/,
  },
  'sagemaker_tensorflow_container.training:main': {
    title: 'TensorFlow',
    module: 'tensorflow',
    runtime: 'tensorflow',
    distributions:
      /^(?:intel-|tf-nightly|)tensorflow(?:-cpu|-gpu|-macos|-rocm|-aarch64|-cpu-aws|-intel)?$|^tf-nightly$/,
    tag: /tensorflow-training[^:]*:(\d+(?:\.\d+)*)/,
  },
  'sagemaker_mxnet_container.training:main': {
    title: 'MXNet',
    module: 'mxnet',
    runtime: 'mxnet',
    distributions: /^mxnet(?:-\w+)?$/,
    tag: /mxnet-training[^:]*:(\d+(?:\.\d+)*)/,
  },
};

/** Versions of what the script can import: the runtime's packages with the job's own on top. */
export type Versions = ReadonlyMap<string, string>;

/** Version of the image's framework; null when it is absent or the image has none. */
export function frameworkVersion(module: FrameworkModule | null, versions: Versions): string | null {
  if (module === null) return null;
  const name = [...versions.keys()].find((key) => FRAMEWORKS[module].distributions.test(key));
  return name === undefined ? null : versions.get(name)!;
}

/**
 * What the image promises must be there before the script starts, when a launcher needs it or the script can hardly do
 * without; a plain script of a PyTorch image may be anything.
 *
 * @param canImport asks the interpreter, for packages that lie where nobody looked
 * @returns a sentence for the job's description when the framework is missing and the job may go on
 * @throws HostFailure naming the runtime and the command that makes one with the framework, or the packages that do
 * not fit each other
 */
export async function requireFramework(
  plan: Pick<HostPlan, 'frameworkModule' | 'image'> & { runtime: { name: string } },
  versions: Versions,
  launcher: { needsFramework?: boolean },
  canImport: (module: string) => Promise<boolean>,
): Promise<string | null> {
  if (plan.frameworkModule === null) return null;
  const { title, runtime, module } = FRAMEWORKS[plan.frameworkModule];
  const version = frameworkVersion(plan.frameworkModule, versions);
  if (version === null && !(await canImport(module))) {
    const missing = `The image ${plan.image} needs ${title}, but the runtime ${plan.runtime.name} has none. Make one that has it: trainyard setup --runtime ${runtime}`;
    if (!launcher.needsFramework && title === 'PyTorch') return missing;
    throw new HostFailure('ClientError', missing);
  }
  const numpy = versions.get('numpy');
  if (title === 'MXNet' && numpy !== undefined && !isBelow(numpy, [1, 24])) {
    throw new HostFailure(
      'ClientError',
      `MXNet ${version} of the runtime ${plan.runtime.name} cannot be imported with numpy ${numpy}: it needs numpy below 1.24. ` +
        'Take numpy out of requirements.txt, or ask there for numpy==1.23.5.',
    );
  }
  return null;
}

/**
 * Sentence for the job's description when the image's tag names another version than the runtime has. Compares as
 * many parts as the tag gives: `2.13` fits `2.13.0+cpu`.
 */
export function versionNotice(
  plan: Pick<HostPlan, 'frameworkModule' | 'image' | 'imageChosen'>,
  version: string | null,
): string | null {
  // Nobody asked for the version of an image that a client took by itself.
  if (plan.frameworkModule === null || version === null || plan.imageChosen === false) return null;
  const { title, tag } = FRAMEWORKS[plan.frameworkModule];
  const wanted = tag.exec(plan.image)?.[1];
  if (wanted === undefined) return null;
  const have = version.split('+')[0]!.split('.');
  if (wanted.split('.').every((part, index) => have[index] === part)) return null;
  return `The image asks for ${title} ${wanted}; this runtime has ${version}${lost(title, wanted, version)}.`;
}

/** What a script of that version will miss most. */
function lost(title: string, wanted: string, version: string): string {
  const crosses = (parts: readonly number[]): boolean => isBelow(wanted, parts) && !isBelow(version, parts);
  if (title === 'TensorFlow' && crosses([2, 16]))
    return ', which has no tf.estimator and takes Keras 3 as Keras';
  if (title === 'TensorFlow' && crosses([2, 0]))
    return ', which keeps the interfaces of TensorFlow 1 under tf.compat.v1 only';
  return '';
}

/** Whether Keras 2 is at hand where the framework's own Keras is 3. */
export const hasLegacyKeras = (module: FrameworkModule | null, versions: Versions): boolean => {
  const version = frameworkVersion(module, versions);
  return version !== null && !isBelow(version, [2, 16]) && versions.has('tf-keras');
};

function isBelow(version: string, parts: readonly number[]): boolean {
  const have = version.split('.').map((part) => Number.parseInt(part, 10) || 0);
  for (const [index, part] of parts.entries()) {
    const own = have[index] ?? 0;
    if (own !== part) return own < part;
  }
  return false;
}
