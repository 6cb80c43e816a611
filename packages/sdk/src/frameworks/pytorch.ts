import { attachFramework } from './attach-framework.ts';
import type { AttachOptions } from '../attach.ts';
import type { CompilerDistribution, HostsAnd, PyTorchDistribution } from '../distribution/distribution.ts';
import { EstimatorBase } from '../estimator-base.ts';
import type { CommonOptions, SourceOptions } from '../estimator-options.ts';
import type { ImageTable } from '../images/image-table.ts';
import {
  DEFAULT_PYTORCH_VERSION,
  MODEL_PARALLEL_IMAGES,
  modelParallelContainer,
  PYTORCH_COMPILER_IMAGES,
  PYTORCH_IMAGES,
  PYTORCH_NEURON_IMAGES,
} from '../images/pytorch-images.ts';
import { imageTypeOf } from '../instance-groups.ts';
import { instanceKind } from '../instance-types.ts';
import type { FrameworkPart, ScriptOptions } from './script-profile.ts';
import { scriptProfile } from './script-profile.ts';
import type { TrainingCompilerConfig } from './training-compiler.ts';

export interface PyTorchFields extends CommonOptions, SourceOptions {
  /**
   * PyTorch version, `2.8.0` or `2.8`. Required on AWS unless `imageUri` is given.
   * @default '2.8.0', outside AWS
   */
  frameworkVersion?: string;
  /** `py312` and the like. @default the only one that the version's image has */
  pyVersion?: string;
  /** Training image, instead of the one for the versions. */
  imageUri?: string;
  /** How ranks are started on the hosts. @default one plain process per host */
  distribution?: PyTorchDistribution | CompilerDistribution;
  /**
   * Ranks on each host, for every strategy of `distribution`.
   * @default the host's accelerators, else 1
   */
  processesPerHost?: number;
  /** AWS's Training Compiler, with PyTorch 1.12 and 1.13; elsewhere it has no effect. */
  compilerConfig?: TrainingCompilerConfig;
}

/** `pytorchxla` needs `compilerConfig`, which excludes AWS's libraries; groups exclude `instanceType`. */
export type PyTorchOptions = PyTorchFields &
  (
    | ({ compilerConfig?: undefined } & HostsAnd<PyTorchDistribution>)
    | ({ compilerConfig: TrainingCompilerConfig } & HostsAnd<CompilerDistribution>)
  );

/**
 * An estimator for a PyTorch script.
 *
 * ```ts no-run: trains a model
 * const estimator = new PyTorch({
 *   entryPoint: 'train.py',
 *   instanceCount: 2,
 *   processesPerHost: 2,
 *   distribution: { torch_distributed: { enabled: true } },
 *   hyperparameters: { epochs: 3, lr: 0.1 },
 * });
 * await estimator.fit({ train: './data' });
 * ```
 */
export class PyTorch extends EstimatorBase {
  /** @throws InvalidOption with every problem of the options */
  constructor(options: PyTorchOptions) {
    super(options, (context) => scriptProfile(options as ScriptOptions, pytorchPart(options), context));
  }

  /**
   * An estimator with the options of an earlier job, which becomes its latest one.
   * @throws InvalidOption when the job's image is one of another framework; as {@link EstimatorBase.fit} with `wait`,
   * unless `wait` is false; RequestRefused when there is no such job
   */
  static async attach(jobName: string, options: AttachOptions = {}): Promise<PyTorch> {
    const { job, restored } = await attachFramework('pytorch', jobName, options);
    const estimator = new PyTorch(restored as PyTorchOptions);
    await estimator.adopt(job, options);
    return estimator;
  }
}

function pytorchPart(options: PyTorchOptions): FrameworkPart {
  const { frameworkVersion, imageUri } = options;
  const imageVersion = frameworkVersion ?? (imageUri === undefined ? DEFAULT_PYTORCH_VERSION : null);
  const images = imagesFor(options);
  const type = typeOf(options) ?? '';
  return {
    framework: 'pytorch',
    base: 'pytorch',
    version: frameworkVersion === undefined ? null : { field: 'frameworkVersion', value: frameworkVersion },
    versionOptions: ['frameworkVersion', 'pyVersion'],
    imageVersion,
    images,
    ...(images === MODEL_PARALLEL_IMAGES &&
      imageVersion !== null && { tag: { container: modelParallelContainer(imageVersion, type) } }),
    hookPolicy: () => 'without-checkpoints',
    metricsSince: '1.3',
  };
}

function typeOf({ instanceType, instanceGroups }: PyTorchOptions): string | undefined {
  return instanceGroups ? imageTypeOf(instanceGroups) : instanceType;
}

function imagesFor(options: PyTorchOptions): ImageTable {
  if (options.compilerConfig) return PYTORCH_COMPILER_IMAGES;
  const { torch_distributed: torchrun, smdistributed } = options.distribution ?? {};
  // AWS's SDK looks for the key of torch_distributed, and takes a library without `enabled` for an enabled one here.
  if (torchrun && smdistributed?.modelparallel && (smdistributed.modelparallel.enabled ?? true))
    return MODEL_PARALLEL_IMAGES;
  return instanceKind(typeOf(options) ?? '') === 'trainium' ? PYTORCH_NEURON_IMAGES : PYTORCH_IMAGES;
}
