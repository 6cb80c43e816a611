import { attachFramework } from './attach-framework.ts';
import type { AttachOptions } from '../attach.ts';
import type {
  CompilerDistribution,
  HostsAnd,
  HuggingFaceDistribution,
} from '../distribution/distribution.ts';
import { EstimatorBase } from '../estimator-base.ts';
import type { ProfileContext } from '../estimator-base.ts';
import type { CommonOptions, SourceOptions } from '../estimator-options.ts';
import type { BaseFramework } from '../images/hugging-face-images.ts';
import { DEFAULT_HUGGING_FACE, huggingFaceImages, huggingFacePairs } from '../images/hugging-face-images.ts';
import type { EstimatorProfile } from '../plan-job.ts';
import type { ProblemList } from '../problem.ts';
import type { FrameworkPart, ScriptOptions } from './script-profile.ts';
import { scriptProfile } from './script-profile.ts';
import type { TrainingCompilerConfig } from './training-compiler.ts';

export interface HuggingFaceFields extends CommonOptions, SourceOptions {
  /**
   * Version of transformers, `4.56.2` or `4.56`. Required on AWS unless `imageUri` is given.
   * @default '4.56.2', outside AWS
   */
  transformersVersion?: string;
  /**
   * Version of PyTorch below it, in the same form; instead of `tensorflowVersion`.
   * @default '2.8.0', outside AWS
   */
  pytorchVersion?: string;
  /** Version of TensorFlow below it, in the same form; instead of `pytorchVersion`. */
  tensorflowVersion?: string;
  /** `py312` and the like. @default the only one that the versions' image has */
  pyVersion?: string;
  /** Training image, instead of the one for the versions. */
  imageUri?: string;
  /** How ranks are started on the hosts. @default one plain process per host */
  distribution?: HuggingFaceDistribution | CompilerDistribution;
  /**
   * Ranks on each host, for every strategy of `distribution`.
   * @default the host's accelerators, else 1
   */
  processesPerHost?: number;
  /** AWS's Training Compiler, with transformers 4.11 to 4.21; elsewhere it has no effect. */
  compilerConfig?: TrainingCompilerConfig;
}

/** One framework below; `pytorchxla` needs `compilerConfig`; groups exclude `instanceType`. */
export type HuggingFaceOptions = HuggingFaceFields &
  (
    | { pytorchVersion?: string; tensorflowVersion?: undefined }
    | { tensorflowVersion: string; pytorchVersion?: undefined }
  ) &
  (
    | ({ compilerConfig?: undefined } & HostsAnd<HuggingFaceDistribution>)
    | ({ compilerConfig: TrainingCompilerConfig } & HostsAnd<CompilerDistribution>)
  );

/**
 * An estimator for a script that uses Hugging Face's transformers.
 *
 * ```ts no-run: trains a model
 * const estimator = new HuggingFace({
 *   entryPoint: 'train.py',
 *   transformersVersion: '4.56.2',
 *   pytorchVersion: '2.8.0',
 *   instanceCount: 2,
 *   distribution: { torch_distributed: { enabled: true } },
 * });
 * await estimator.fit({ train: './data' });
 * ```
 */
export class HuggingFace extends EstimatorBase {
  /** @throws InvalidOption with every problem of the options */
  constructor(options: HuggingFaceOptions) {
    super(options, (context) => profileOf(options, context));
  }

  /**
   * An estimator with the options of an earlier job, which becomes its latest one.
   * @throws as {@link PyTorch.attach}
   */
  static async attach(jobName: string, options: AttachOptions = {}): Promise<HuggingFace> {
    const { job, restored } = await attachFramework('huggingface', jobName, options);
    const estimator = new HuggingFace(restored as HuggingFaceOptions);
    await estimator.adopt(job, options);
    return estimator;
  }
}

function profileOf(options: HuggingFaceOptions, context: ProfileContext): EstimatorProfile {
  if (options.imageUri === undefined) {
    checkVersions(options, context.problems);
    checkModelParallel(options, context.problems);
  }
  return scriptProfile(options as ScriptOptions, huggingFacePart(options), context);
}

/** AWS's SDK looks the image of the library up by the version of transformers, which no such image has. */
function checkModelParallel({ distribution = {} }: HuggingFaceFields, problems: ProblemList): void {
  const { torch_distributed: torchrun, smdistributed } = distribution;
  if (!torchrun || !smdistributed?.modelparallel?.enabled) return;
  problems.refuseOnAws({
    id: 'E-HF-SMP',
    field: 'distribution.smdistributed.modelparallel',
    value: smdistributed.modelparallel,
    rule: 'AWS has no image with transformers for the library with torch_distributed.',
    nextStep:
      'For AWS use the PyTorch estimator and put transformers into requirements.txt, or pass imageUri.',
  });
}

function checkVersions(options: HuggingFaceFields, problems: ProblemList): void {
  const { transformersVersion, pytorchVersion, tensorflowVersion } = options;
  const refuse = (field: string, value: unknown, rule: string, nextStep: string): void =>
    problems.refuse({ id: 'E-HF-VER', field, value, rule, nextStep });
  const isGiven =
    transformersVersion !== undefined || pytorchVersion !== undefined || tensorflowVersion !== undefined;
  if (!isGiven && !problems.onAws && !problems.strict) return;
  if (transformersVersion === undefined)
    refuse('transformersVersion', undefined, 'It chooses the image.', "Give it, e.g. '4.56.2', or imageUri.");
  if (pytorchVersion !== undefined && tensorflowVersion !== undefined)
    refuse(
      'tensorflowVersion',
      tensorflowVersion,
      `pytorchVersion is ${pytorchVersion}; an image has one of them.`,
      'Remove one.',
    );
  const baseVersion = pytorchVersion ?? tensorflowVersion;
  if (baseVersion === undefined) {
    refuse(
      'pytorchVersion',
      undefined,
      'pytorchVersion or tensorflowVersion chooses the image.',
      'Give one of them, or imageUri.',
    );
    return;
  }
  const parts = (version: string): number => version.split('.').length;
  if (transformersVersion === undefined || parts(transformersVersion) === parts(baseVersion)) return;
  refuse(
    'transformersVersion',
    transformersVersion,
    `It and the version below it (${baseVersion}) are both short or both full.`,
    "Write e.g. '4.36' with '2.1', or '4.36.0' with '2.1.0'.",
  );
}

function huggingFacePart(options: HuggingFaceOptions): FrameworkPart {
  const { transformersVersion, pytorchVersion, tensorflowVersion, imageUri, compilerConfig } = options;
  const isGiven =
    transformersVersion !== undefined || pytorchVersion !== undefined || tensorflowVersion !== undefined;
  const versions =
    isGiven || imageUri !== undefined ? { transformersVersion, pytorchVersion } : DEFAULT_HUGGING_FACE;
  const base: BaseFramework = tensorflowVersion === undefined ? 'pytorch' : 'tensorflow';
  const field = `${base}Version`;
  const given = pytorchVersion ?? tensorflowVersion;
  const baseVersion = tensorflowVersion ?? versions.pytorchVersion;
  const known = huggingFaceImages(base, baseVersion ?? '', compilerConfig !== undefined);
  const images =
    known.images.length > 0
      ? known
      : { ...known, field, title: `transformers (it has ${huggingFacePairs(base)})` };
  return {
    framework: 'huggingface',
    base,
    version: given === undefined ? null : { field, value: given },
    versionOptions: [],
    imageVersion: baseVersion === undefined ? null : (versions.transformersVersion ?? null),
    images,
    tag: { prefix: (version) => `${baseVersion}-transformers${version}` },
    hookPolicy: () => 'always',
    metricsSince: null,
  };
}
