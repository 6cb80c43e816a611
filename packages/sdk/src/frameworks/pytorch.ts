import { attachOptions } from '../attach.ts';
import type { AttachOptions } from '../attach.ts';
import type { Distribution } from '../distribution.ts';
import { planLaunch } from '../distribution.ts';
import { InvalidOption } from '../errors.ts';
import { EstimatorBase } from '../estimator-base.ts';
import type { ProfileContext } from '../estimator-base.ts';
import type { CommonOptions, SourceOptions } from '../estimator-options.ts';
import type { EstimatorProfile } from '../plan-job.ts';
import { checkSource } from '../estimator-rules.ts';
import type { ProblemList } from '../problem.ts';
import { distributionOfFlags } from './launch-flags.ts';
import { compareVersions, pytorchImageUri, selectPyTorchImage } from './pytorch-image.ts';
import { checkPyTorchLaunch } from './pytorch-rules.ts';
import { DEFAULT_PYTORCH_VERSION } from './pytorch-versions.ts';

export interface PyTorchOptions extends CommonOptions, SourceOptions {
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
  distribution?: Distribution;
  /**
   * Ranks on each host, for every strategy of `distribution`.
   * @default the host's accelerators, else 1
   */
  processesPerHost?: number;
}

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
    super(options, (context) => profileOf(options, context));
  }

  /**
   * An estimator with the options of an earlier job, which becomes its latest one.
   * @throws InvalidOption when the job's image is one of another framework; as {@link EstimatorBase.fit} with `wait`,
   * unless `wait` is false; RequestRefused when there is no such job
   */
  static async attach(jobName: string, options: AttachOptions = {}): Promise<PyTorch> {
    const { job, common, source, imageUri, flags } = await attachOptions(jobName, options);
    if (source === null) {
      const rule = 'The job has no script (sagemaker_program).';
      const nextStep = 'Use Estimator.attach.';
      throw new InvalidOption([{ id: 'E-FRAMEWORK', field: 'jobName', value: jobName, rule, nextStep }]);
    }
    const estimator = new PyTorch({
      ...common,
      ...source,
      ...versionsOfImage(imageUri),
      ...distributionOfFlags(flags),
    });
    await estimator.adopt(job, options);
    return estimator;
  }
}

function profileOf(options: PyTorchOptions, { instanceType, problems }: ProfileContext): EstimatorProfile {
  checkSource(options, true, problems);
  checkVersionsGiven(options, problems);
  const frameworkVersion =
    options.frameworkVersion ?? (options.imageUri === undefined ? DEFAULT_PYTORCH_VERSION : undefined);
  const distribution = options.distribution ?? {};
  const { processesPerHost } = options;
  const plan = planLaunch({ distribution, processesPerHost, instanceType }, problems);
  checkPyTorchLaunch(
    {
      distribution,
      plan,
      entryPoint: options.entryPoint,
      instanceType: options.instanceType ?? null,
      frameworkVersion: options.imageUri === undefined ? (options.frameworkVersion ?? null) : null,
      pyVersion: options.pyVersion ?? null,
      imageUri: options.imageUri ?? null,
    },
    problems,
  );
  const selection =
    options.imageUri === undefined && frameworkVersion !== undefined
      ? selectPyTorchImage(
          {
            frameworkVersion,
            pyVersion: options.pyVersion,
            instanceType,
            usesDataParallelFlag: plan.hasDataParallelFlag,
          },
          problems,
        )
      : null;
  return {
    imageUri: (region, found) =>
      options.imageUri ?? (selection ? pytorchImageUri(selection, region, found) : ''),
    source: { ...options },
    isFramework: true,
    launchHyperparameters: plan.hyperparameters,
    metricsTimeSeries: frameworkVersion !== undefined && compareVersions(frameworkVersion, '1.3') >= 0,
  };
}

function checkVersionsGiven(options: PyTorchOptions, problems: ProblemList): void {
  if (options.imageUri !== undefined || !(problems.onAws || problems.strict)) return;
  for (const field of ['frameworkVersion', 'pyVersion'] as const) {
    if (options[field] !== undefined) continue;
    problems.refuse({
      id: 'E-VERSION',
      field,
      value: undefined,
      rule: 'On AWS frameworkVersion and pyVersion choose the image.',
      nextStep: "Give both, e.g. '2.8.0' and 'py312', or imageUri.",
    });
  }
}

/** Versions out of the tag of an AWS image, so that a next job may choose others; the address itself for any other. */
function versionsOfImage(
  imageUri: string,
): Pick<PyTorchOptions, 'imageUri' | 'frameworkVersion' | 'pyVersion'> {
  const match = /^[^/]+\/((?:sagemaker-)?[a-z]+(?:-training)?):([\d.]+)-(?:cpu|gpu)-(py\d+)$/.exec(imageUri);
  const [, repository, frameworkVersion, pyVersion] = match ?? [];
  if (repository === undefined || !frameworkVersion || !pyVersion) return { imageUri };
  if (repository === 'pytorch-training' || repository === 'sagemaker-pytorch')
    return { frameworkVersion, pyVersion };
  const rule = 'The job ran an image of another framework.';
  const nextStep = 'Use Estimator.attach.';
  throw new InvalidOption([{ id: 'E-FRAMEWORK', field: 'imageUri', value: imageUri, rule, nextStep }]);
}
