import { EstimatorBase } from './estimator-base.ts';
import type { ProfileContext } from './estimator-base.ts';
import type { CommonOptions, SourceOptions } from './estimator-options.ts';
import type { EstimatorProfile } from './plan-job.ts';
import { checkSource } from './estimator-rules.ts';
import { attachOptions } from './attach.ts';
import type { AttachOptions } from './attach.ts';
import type { InstanceGroup } from './instance-groups.ts';

/** Hosts of one type, or groups of several. */
type Hosts =
  | { instanceGroups?: undefined }
  | { instanceGroups: readonly InstanceGroup[]; instanceCount?: undefined; instanceType?: undefined };

export type EstimatorOptions = EstimatorFields & Hosts;

export interface EstimatorFields extends CommonOptions, Partial<SourceOptions> {
  /** Training image: what it starts is up to it. */
  imageUri: string;
}

/** An estimator for any training image. Without `entryPoint` hyperparameters are passed as Python's `str` of them. */
export class Estimator extends EstimatorBase {
  /** @throws InvalidOption with every problem of the options */
  constructor(options: EstimatorOptions) {
    super(options, (context) => profileOf(options, context));
  }

  /**
   * An estimator with the options of an earlier job, which becomes its latest one.
   * @throws as {@link EstimatorBase.fit} with `wait`, unless `wait` is false; RequestRefused when there is no such job
   */
  static async attach(jobName: string, options: AttachOptions = {}): Promise<Estimator> {
    const { job, common, source, imageUri } = await attachOptions(jobName, options);
    const estimator = new Estimator({ ...common, ...source, imageUri } as EstimatorOptions);
    await estimator.adopt(job, options);
    return estimator;
  }
}

function profileOf(options: EstimatorFields, { problems }: ProfileContext): EstimatorProfile {
  checkSource(options, false, problems);
  const { entryPoint, imageUri } = options;
  return {
    imageUri: () => imageUri,
    source: entryPoint === undefined ? null : { ...options, entryPoint },
    hookPolicy: 'always',
    addedHyperparameters: () => ({}),
    metricsTimeSeries: undefined,
  };
}
