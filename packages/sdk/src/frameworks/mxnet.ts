import { attachFramework } from './attach-framework.ts';
import type { AttachOptions } from '../attach.ts';
import type { HostsAnd, MXNetDistribution } from '../distribution/distribution.ts';
import { EstimatorBase } from '../estimator-base.ts';
import type { CommonOptions, SourceOptions } from '../estimator-options.ts';
import { DEFAULT_MXNET_VERSION, MXNET_IMAGES } from '../images/mxnet-images.ts';
import type { FrameworkPart, ScriptOptions } from './script-profile.ts';
import { scriptProfile } from './script-profile.ts';

export interface MXNetFields extends CommonOptions, SourceOptions {
  /**
   * MXNet version, `1.9.0` or `1.9`. Required on AWS unless `imageUri` is given.
   * @default '1.9.0', outside AWS
   */
  frameworkVersion?: string;
  /** `py38` and the like. @default the only one that the version's image has */
  pyVersion?: string;
  /** Training image, instead of the one for the versions. */
  imageUri?: string;
  /** How workers are started on the hosts, with MXNet 1.3 and newer. @default one plain process per host */
  distribution?: MXNetDistribution;
  /**
   * Ranks on each host, for `mpi`.
   * @default the host's accelerators, else 1
   */
  processesPerHost?: number;
}

export type MXNetOptions = MXNetFields & HostsAnd<MXNetDistribution>;

/**
 * An estimator for an MXNet script.
 *
 * ```ts no-run: trains a model
 * const estimator = new MXNet({
 *   entryPoint: 'train.py',
 *   instanceCount: 2,
 *   distribution: { parameter_server: { enabled: true } },
 * });
 * await estimator.fit({ train: './data' });
 * ```
 */
export class MXNet extends EstimatorBase {
  /** @throws InvalidOption with every problem of the options */
  constructor(options: MXNetOptions) {
    super(options, (context) => scriptProfile(options as ScriptOptions, mxnetPart(options), context));
  }

  /**
   * An estimator with the options of an earlier job, which becomes its latest one.
   * @throws as {@link PyTorch.attach}
   */
  static async attach(jobName: string, options: AttachOptions = {}): Promise<MXNet> {
    const { job, restored } = await attachFramework('mxnet', jobName, options);
    const estimator = new MXNet(restored as MXNetOptions);
    await estimator.adopt(job, options);
    return estimator;
  }
}

function mxnetPart({ frameworkVersion, imageUri }: MXNetOptions): FrameworkPart {
  return {
    framework: 'mxnet',
    base: 'mxnet',
    version: frameworkVersion === undefined ? null : { field: 'frameworkVersion', value: frameworkVersion },
    versionOptions: ['frameworkVersion', 'pyVersion'],
    imageVersion: frameworkVersion ?? (imageUri === undefined ? DEFAULT_MXNET_VERSION : null),
    images: MXNET_IMAGES,
    hookPolicy: () => 'without-checkpoints-on-several-hosts',
    metricsSince: '1.6',
  };
}
