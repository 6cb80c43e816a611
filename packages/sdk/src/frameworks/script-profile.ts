import type { HookPolicy } from '../debugger-options.ts';
import type { AnyDistribution } from '../distribution/distribution.ts';
import { checkForm } from '../distribution/check-form.ts';
import { planLaunch } from '../distribution/plan-launch.ts';
import type { FrameworkName, LaunchPlan } from '../distribution/plan-launch.ts';
import type { ProfileContext } from '../estimator-base.ts';
import type { CommonOptions, Hyperparameters, SourceOptions } from '../estimator-options.ts';
import { checkSource } from '../estimator-rules.ts';
import type { ImageTable } from '../images/image-table.ts';
import { compareVersions } from '../images/image-table.ts';
import type { ImageQuery } from '../images/select-image.ts';
import { imageUri, selectImage } from '../images/select-image.ts';
import { chosenGroups, imageTypeOf } from '../instance-groups.ts';
import { DEFAULT_INSTANCE_TYPE } from '../instance-types.ts';
import type { EstimatorProfile } from '../plan-job.ts';
import type { ProblemList } from '../problem.ts';
import { checkDistribution } from './distribution-rules.ts';
import type { DistributedCall } from './distribution-rules.ts';
import type { TrainingCompilerConfig } from './training-compiler.ts';
import { checkCompiler, compilerFlags } from './training-compiler.ts';

/** Options of every estimator that runs a script in an image chosen by versions. */
export interface ScriptOptions extends CommonOptions, SourceOptions {
  pyVersion?: string;
  imageUri?: string;
  distribution?: AnyDistribution;
  processesPerHost?: number;
  compilerConfig?: TrainingCompilerConfig;
}

/** What one framework adds. */
export interface FrameworkPart {
  framework: FrameworkName;
  base: DistributedCall['base'];
  /** As given; null when `imageUri` stands instead or the user gave none. */
  version: DistributedCall['version'];
  /** Names of the options that choose the image, for a message. */
  versionOptions: readonly string[];
  /** The version whose image is asked for; null without one. */
  imageVersion: string | null;
  images: ImageTable;
  tag?: Pick<ImageQuery, 'prefix' | 'container'>;
  hookPolicy(plan: LaunchPlan): HookPolicy;
  /** The first version for which AWS's SDK asks for time series of metrics; null for all, also with `imageUri`. */
  metricsSince: string | null;
  /** Further hyperparameters. */
  added?(plan: LaunchPlan, job: { jobName: string; outputPath: string }): Hyperparameters;
}

/** Checks the options of a script estimator by AWS's rules, and says what its jobs add to the common request. */
export function scriptProfile(
  options: ScriptOptions,
  part: FrameworkPart,
  { instanceType, problems }: ProfileContext,
): EstimatorProfile {
  checkSource(options, true, problems);
  const { instanceGroups, processesPerHost } = options;
  const distribution =
    part.framework === 'mxnet' ? mxnetStrategies(options, problems) : (options.distribution ?? {});
  if (options.imageUri === undefined) checkVersionsGiven(options, part, problems);
  let plan: LaunchPlan = { launcher: 'none', hyperparameters: {} };
  if (checkForm(distribution, problems)) {
    // A distribution that is not there runs on no group; an empty one AWS's SDK gives the only group.
    const knowsGroups = options.distribution && part.framework !== 'mxnet';
    const groups = knowsGroups ? chosenGroups(distribution, instanceGroups, problems) : null;
    const call = distributedCall(options, part, groups?.map((group) => group.instanceType) ?? null);
    checkDistribution(call, problems);
    checkCompiler(options.compilerConfig, { ...call, hasGroups: instanceGroups !== undefined }, problems);
    const query = { framework: part.framework, distribution, processesPerHost, instanceType, groups };
    plan = planLaunch(query, problems);
  }
  const selection =
    options.imageUri === undefined && part.imageVersion !== null
      ? selectImage(part.images, imageQuery(options, part, instanceType), problems)
      : null;
  const { metricsSince, imageVersion } = part;
  const hasMetrics =
    metricsSince === null || (imageVersion !== null && compareVersions(imageVersion, metricsSince) >= 0);
  return {
    imageUri: (region, found) => options.imageUri ?? (selection ? imageUri(selection, region, found) : ''),
    source: { ...options },
    hookPolicy: part.hookPolicy(plan),
    addedHyperparameters: (job) => ({
      ...plan.hyperparameters,
      ...part.added?.(plan, job),
      ...compilerFlags(options.compilerConfig),
    }),
    metricsTimeSeries: hasMetrics || undefined,
  };
}

/** AWS's SDK looks at these two and checks no other. */
function mxnetStrategies({ distribution = {} }: ScriptOptions, problems: ProblemList): AnyDistribution {
  const { mpi, parameter_server, ...others } = distribution;
  for (const [name, value] of Object.entries(others)) {
    problems.warn({
      id: 'W-DIST-NO-OP',
      field: `distribution.${name}`,
      value,
      rule: 'It has no effect with MXNet, here as on AWS.',
      nextStep: 'Remove it.',
    });
  }
  return { ...(mpi && { mpi }), ...(parameter_server && { parameter_server }) };
}

function distributedCall(
  options: ScriptOptions,
  part: FrameworkPart,
  chosenTypes: readonly string[] | null,
): DistributedCall {
  const { instanceGroups, instanceType } = options;
  const ofHosts = instanceType === undefined ? [] : [instanceType];
  const types = instanceGroups?.map((group) => group.instanceType) ?? ofHosts;
  return {
    framework: part.framework,
    base: part.base,
    distribution: options.distribution ?? {},
    isDistributionGiven: options.distribution !== undefined,
    entryPoint: options.entryPoint,
    targetTypes: instanceGroups ? (chosenTypes ?? []) : ofHosts,
    types,
    version: options.imageUri === undefined ? part.version : null,
    statedVersion: part.version,
    pyVersion: options.pyVersion ?? null,
    imageUri: options.imageUri ?? null,
    images: part.images,
  };
}

function imageQuery(options: ScriptOptions, part: FrameworkPart, instanceType: string | null): ImageQuery {
  const { instanceGroups, distribution = {}, pyVersion } = options;
  const ofGroups = instanceGroups && imageTypeOf(instanceGroups);
  return {
    version: part.imageVersion ?? '',
    pyVersion,
    instanceType: ofGroups ?? instanceType ?? DEFAULT_INSTANCE_TYPE,
    isTypeGiven: options.instanceType !== undefined || instanceGroups !== undefined,
    usesLibraries:
      (part.framework !== 'mxnet' && distribution.smdistributed !== undefined) ||
      (part.framework === 'pytorch' && distribution.pytorchddp !== undefined),
    ...part.tag,
  };
}

function checkVersionsGiven(
  options: ScriptOptions,
  { versionOptions }: FrameworkPart,
  problems: ProblemList,
): void {
  if (!problems.onAws && !problems.strict) return;
  for (const field of versionOptions) {
    if (options[field as keyof ScriptOptions] !== undefined) continue;
    problems.refuse({
      id: 'E-VERSION',
      field,
      value: undefined,
      rule: `On AWS ${versionOptions.join(' and ')} choose the image.`,
      nextStep: `Give ${versionOptions.length > 1 ? 'both' : 'it'}, or imageUri.`,
    });
  }
}
