import { joinS3Uri } from '@trainyard/api';
import { attachFramework } from './attach-framework.ts';
import type { AttachOptions } from '../attach.ts';
import type { HostsAnd, TensorFlowDistribution } from '../distribution/distribution.ts';
import { EstimatorBase } from '../estimator-base.ts';
import type { ProfileContext } from '../estimator-base.ts';
import type { CommonOptions, Hyperparameters, SourceOptions } from '../estimator-options.ts';
import { compareVersions } from '../images/image-table.ts';
import { DEFAULT_TENSORFLOW_VERSION, TENSORFLOW_IMAGES } from '../images/tensorflow-images.ts';
import type { EstimatorProfile } from '../plan-job.ts';
import type { FrameworkPart, ScriptOptions } from './script-profile.ts';
import { scriptProfile } from './script-profile.ts';
import type { TrainingCompilerConfig } from './training-compiler.ts';

export interface TensorFlowFields extends CommonOptions, SourceOptions {
  /**
   * TensorFlow version, `2.19.0` or `2.19`. Required on AWS unless `imageUri` is given.
   * @default '2.19.0', outside AWS
   */
  frameworkVersion?: string;
  /** `py312` and the like. @default the only one that the version's image has */
  pyVersion?: string;
  /** Training image, instead of the one for the versions. */
  imageUri?: string;
  /** How workers are started on the hosts. @default one plain process per host */
  distribution?: TensorFlowDistribution;
  /**
   * Ranks on each host, for `mpi` and `smdistributed.dataparallel`.
   * @default the host's accelerators, else 1
   */
  processesPerHost?: number;
  /**
   * Passed to the script as `--model_dir`: an S3 URI or a path of the host; false for none.
   * @default '/opt/ml/model' with `mpi`, else `<outputPath>/<job>/model`
   */
  modelDir?: string | false;
  /** AWS's Training Compiler, with TensorFlow 2.9 to 2.11; elsewhere it has no effect. */
  compilerConfig?: TrainingCompilerConfig;
}

export type TensorFlowOptions = TensorFlowFields & HostsAnd<TensorFlowDistribution>;

/**
 * An estimator for a TensorFlow script.
 *
 * ```ts no-run: trains a model
 * const estimator = new TensorFlow({
 *   entryPoint: 'train.py',
 *   instanceCount: 2,
 *   distribution: { multi_worker_mirrored_strategy: { enabled: true } },
 * });
 * await estimator.fit({ train: './data' });
 * ```
 */
export class TensorFlow extends EstimatorBase {
  /** @throws InvalidOption with every problem of the options */
  constructor(options: TensorFlowOptions) {
    super(options, (context) => profileOf(options, context));
  }

  /**
   * An estimator with the options of an earlier job, which becomes its latest one.
   * @throws as {@link PyTorch.attach}
   */
  static async attach(jobName: string, options: AttachOptions = {}): Promise<TensorFlow> {
    const { job, restored } = await attachFramework('tensorflow', jobName, options);
    const { model_dir: modelDir = false, ...hyperparameters } = restored.hyperparameters ?? {};
    const estimator = new TensorFlow({ ...restored, hyperparameters, modelDir } as TensorFlowOptions);
    await estimator.adopt(job, options);
    return estimator;
  }
}

const NONE: Hyperparameters = {};
/** Up to this version AWS's images know another way to run a script. */
const LEGACY_UNTIL = '1.10.0';
/** The last version with a python 2 image. */
const PYTHON_2_UNTIL = '2.1.1';

function profileOf(options: TensorFlowOptions, context: ProfileContext): EstimatorProfile {
  const { frameworkVersion, imageUri, pyVersion } = options;
  const { problems } = context;
  if (frameworkVersion !== undefined) {
    if (pyVersion === 'py2' && compareVersions(frameworkVersion, PYTHON_2_UNTIL) > 0) {
      problems.refuse({
        id: 'E-TF-PY2',
        field: 'pyVersion',
        value: pyVersion,
        rule: `Images with python 2 end with TensorFlow ${PYTHON_2_UNTIL}.`,
        nextStep: 'Choose a python 3, e.g. py312.',
      });
    }
    if (imageUri === undefined && compareVersions(frameworkVersion, LEGACY_UNTIL) <= 0) {
      problems.refuse({
        id: 'E-TF-LEGACY',
        field: 'frameworkVersion',
        value: frameworkVersion,
        rule: `Images up to TensorFlow ${LEGACY_UNTIL} run scripts in another way.`,
        nextStep: 'Choose a newer version, or pass imageUri and modelDir: false.',
      });
    }
  }
  return scriptProfile(options as ScriptOptions, tensorflowPart(options), context);
}

function tensorflowPart({
  frameworkVersion,
  imageUri,
  modelDir,
  distribution,
}: TensorFlowOptions): FrameworkPart {
  return {
    framework: 'tensorflow',
    base: 'tensorflow',
    version: frameworkVersion === undefined ? null : { field: 'frameworkVersion', value: frameworkVersion },
    versionOptions: ['frameworkVersion', 'pyVersion'],
    imageVersion: frameworkVersion ?? (imageUri === undefined ? DEFAULT_TENSORFLOW_VERSION : null),
    images: TENSORFLOW_IMAGES,
    // AWS's debugger does not work with parameter servers.
    hookPolicy: () => (distribution?.parameter_server?.enabled ? 'never' : 'without-checkpoints'),
    metricsSince: '1.15',
    added: ({ hyperparameters }, { jobName, outputPath }) => {
      const isMpi = hyperparameters['sagemaker_mpi_enabled'] === true;
      const byDefault = isMpi ? '/opt/ml/model' : joinS3Uri(outputPath, jobName, 'model');
      return modelDir === false ? NONE : { model_dir: modelDir ?? byDefault };
    },
  };
}
