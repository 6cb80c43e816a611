import type { Channel, ExperimentConfig, PythonValue } from '@trainyard/api';
import {
  encodeHyperparameters,
  formatS3Uri,
  joinS3Uri,
  parseS3Uri,
  pythonStr,
  roleArn,
} from '@trainyard/api';
import type { Connection } from './connection.ts';
import { DefaultBucket } from './default-bucket.ts';
import { InvalidOption, throwIfAny } from './errors.ts';
import type { HookPolicy } from './debugger-options.ts';
import { checkDebugger } from './debugger-options.ts';
import type { CommonOptions, Hyperparameters, SourceOptions } from './estimator-options.ts';
import type { Inputs, ParsedInput } from './inputs.ts';
import { jobInputMode, parseInputs, s3Channel, TrainingInput } from './inputs.ts';
import { LOCAL_MODE_TYPES } from './instance-types.ts';
import { baseNameOfImage, JOB_NAME_PATTERN, timestampedName } from './job-name.ts';
import type { JobPlan, PlannedUpload } from './job-plan.ts';
import { placeInputs } from './local-inputs.ts';
import type { Problem, ProblemList } from './problem.ts';
import { buildRequest } from './request.ts';
import { withHiddenSecrets } from './source/git-config.ts';
import type { Session } from './session.ts';

/** What one class of estimators adds to the common options. */
export interface EstimatorProfile {
  /** The training image in a region. */
  imageUri(region: string, problems: ProblemList): string;
  source: SourceOptions | null;
  hookPolicy: HookPolicy;
  /** What the class adds to the user's: `sagemaker_*` values of the distribution and the like, not yet encoded. */
  addedHyperparameters(job: { jobName: string; outputPath: string }): Hyperparameters;
  metricsTimeSeries: true | undefined;
}

/** An estimator after its checks. */
export interface EstimatorSpec {
  options: CommonOptions;
  profile: EstimatorProfile;
  /** As the request will say it; null with instance groups. */
  instanceType: string | null;
}

export interface NamingOptions {
  /** @default base name and time */
  jobName?: string;
  /** @default the present */
  now?: Date;
  /** Experiment and trial of SageMaker that the job belongs to. */
  experimentConfig?: ExperimentOptions;
}

export interface ExperimentOptions {
  experimentName?: string;
  trialName?: string;
  trialComponentDisplayName?: string;
  runName?: string;
}

const CODE_CHANNEL = 'code';
const MODEL_CHANNEL = 'model';
const MODEL_CONTENT_TYPE = 'application/x-sagemaker-model';
const SOURCE_ARCHIVE = 'sourcedir.tar.gz';
const DEFAULT_ROLE = 'trainyard';

/** What `fit` will send. @throws InvalidOption for what depends on the place or on local inputs */
export async function planJob(
  spec: EstimatorSpec,
  session: Session,
  problems: ProblemList,
  inputs: Inputs | undefined,
  naming: NamingOptions,
): Promise<JobPlan> {
  const { options, profile, instanceType } = spec;
  const parsed = [...parseInputs(inputs), ...modelInputs(options)];
  const connection = await session.connect();
  const { region } = connection;
  const keyPrefix = session.defaultKeyPrefix;
  checkPlace(options, connection, problems);
  checkDebugger(options, region, problems);
  const image = profile.imageUri(region, problems);
  const jobName = naming.jobName ?? makeJobName(options, image, naming.now ?? new Date());
  checkJobName(jobName, problems);
  throwIfAny(problems.errors);

  const bucket = new DefaultBucket(connection);
  const outputPath = options.outputPath ?? `s3://${await bucket.name()}/${keyPrefix}`;
  const inputMode = jobInputMode(inputs) ?? options.inputMode ?? 'File';
  const registerFolder = registration(connection, session);
  const uploadUri = async (channel: string): Promise<string> =>
    joinS3Uri(`s3://${await bucket.name()}/${keyPrefix}`, jobName, 'input', channel);
  const jobInputs = { jobInputMode: inputMode, uploadUri, registerFolder };
  const placed = await placeInputs(parsed, jobInputs);
  const code = planCode(spec, jobName, outputPath, keyPrefix);
  const channels = [...placed.channels, ...code.channels];
  checkChannelNames(channels, options);
  checkChannelGroups(placed.channels, options);
  const request = buildRequest(options, {
    jobName,
    roleArn: await chooseRole(options, connection),
    region,
    image,
    instanceType,
    outputPath,
    inputMode,
    channels,
    hyperparameters: encodeAll(spec, { jobName, region, outputPath, submitDirectory: code.submitDirectory }),
    metricsTimeSeries: options.enableSageMakerMetrics ?? profile.metricsTimeSeries,
    hookPolicy: profile.hookPolicy,
    experiment: experimentOf(naming.experimentConfig),
  });
  return { request, uploads: [...code.uploads, ...placed.uploads], defaultBucket: bucket.used };
}

export function checkPlace(
  { instanceType }: Pick<CommonOptions, 'instanceType'>,
  { kind }: Connection,
  problems: ProblemList,
): void {
  if (instanceType === undefined || !(instanceType in LOCAL_MODE_TYPES) || kind === 'embedded') return;
  problems.refuse({
    id: 'E-LOCAL-SESSION',
    field: 'instanceType',
    value: instanceType,
    rule: 'It names this machine, but the session goes to a service elsewhere.',
    nextStep: "Pass on: 'embedded' to the session, or choose an ml.* type.",
  });
}

/** As AWS's SDK, the channel of a trained model comes after the inputs. */
function modelInputs({ modelUri, modelChannelName = MODEL_CHANNEL }: CommonOptions): ParsedInput[] {
  if (modelUri === undefined) return [];
  const model = new TrainingInput(modelUri, { contentType: MODEL_CONTENT_TYPE, inputMode: 'File' });
  return parseInputs({ [modelChannelName]: model });
}

function experimentOf(options: ExperimentOptions | undefined): ExperimentConfig | null {
  if (!options) return null;
  const { experimentName, trialName, trialComponentDisplayName, runName } = options;
  return {
    ...(experimentName !== undefined && { ExperimentName: experimentName }),
    ...(trialName !== undefined && { TrialName: trialName }),
    ...(trialComponentDisplayName !== undefined && { TrialComponentDisplayName: trialComponentDisplayName }),
    ...(runName !== undefined && { RunName: runName }),
  };
}

function makeJobName(options: CommonOptions, image: string, now: Date): string {
  // A repository may hold characters that a job name may not; a base that the user gave is checked instead.
  const base = options.baseJobName ?? baseNameOfImage(image).replace(/[^a-zA-Z0-9]+/g, '-');
  return timestampedName(base, now);
}

export function checkJobName(jobName: string, problems: ProblemList): void {
  if (JOB_NAME_PATTERN.test(jobName)) return;
  problems.refuse({
    id: 'E-JOB-NAME',
    field: 'jobName',
    value: jobName,
    rule: 'It has at most 63 letters, digits and hyphens, and neither begins nor ends with a hyphen.',
    nextStep: 'Choose such a name.',
  });
}

/** Null when the service does not see this machine's directories. */
export function registration(
  connection: Connection,
  session: Session,
): ((path: string) => Promise<string>) | null {
  if (!connection.sharesFiles || !connection.trainyard) return null;
  return (path) => session.useTrainyard((trainyard) => trainyard.registerFolder(path));
}

export async function chooseRole(
  options: Pick<CommonOptions, 'role'>,
  { region, accountId }: Connection,
): Promise<string> {
  const role = options.role ?? DEFAULT_ROLE;
  return role.includes('/') ? role : roleArn({ region, accountId: await accountId() }, role);
}

interface CodePlan {
  /** Null without a script. */
  submitDirectory: string | null;
  channels: Channel[];
  uploads: PlannedUpload[];
}

function planCode(
  { options, profile }: EstimatorSpec,
  jobName: string,
  outputPath: string,
  keyPrefix: string,
): CodePlan {
  const { source } = profile;
  if (!source) return { submitDirectory: null, channels: [], uploads: [] };
  const uploads: PlannedUpload[] = [];
  let uri = source.sourceDir;
  if (!uri?.startsWith('s3://')) {
    // As in AWS's SDK, the key prefix of an output path that the user gave is left out.
    const prefix = options.outputPath === undefined ? keyPrefix : '';
    const base = source.codeLocation ?? formatS3Uri({ bucket: parseS3Uri(outputPath).bucket, key: prefix });
    uri = joinS3Uri(base, jobName, 'source', SOURCE_ARCHIVE);
    const { entryPoint, sourceDir = null, dependencies = [], gitConfig: git } = source;
    const selection = { entryPoint, sourceDir, dependencies };
    uploads.push({
      kind: 'source',
      ...parseS3Uri(uri),
      selection,
      ...(git && { git: withHiddenSecrets(git) }),
    });
  }
  if (!options.enableNetworkIsolation) return { submitDirectory: uri, channels: [], uploads };
  // Without a network the launcher cannot fetch its code; it then comes as a channel.
  const submitDirectory = `/opt/ml/input/data/${CODE_CHANNEL}/${SOURCE_ARCHIVE}`;
  return { submitDirectory, channels: [s3Channel(CODE_CHANNEL, uri, {})], uploads };
}

export function checkChannelNames(
  channels: readonly Channel[],
  { modelUri }: Pick<CommonOptions, 'modelUri'>,
): void {
  const names = channels.map((channel) => channel.ChannelName);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice === undefined) return;
  const carries =
    twice === CODE_CHANNEL ? 'the code under network isolation' : `the model of modelUri ${modelUri}`;
  const problem: Problem = {
    id: 'E-CHANNEL-DUP',
    field: `inputs.${twice}`,
    value: twice,
    rule: `This channel carries ${carries}.`,
    nextStep: 'Give the input another name.',
  };
  throw new InvalidOption([problem]);
}

/** Channels for some groups of hosts: those groups exist, and either every input names groups or none (a rule of the API). */
export function checkChannelGroups(
  channels: readonly Channel[],
  { instanceGroups }: Pick<CommonOptions, 'instanceGroups'>,
): void {
  const groupsOf = (channel: Channel): string[] => channel.DataSource.S3DataSource?.InstanceGroupNames ?? [];
  const known = instanceGroups?.map((group) => group.instanceGroupName) ?? [];
  if (!channels.some((channel) => groupsOf(channel).length > 0)) return;
  const problems = channels.flatMap((channel): Problem[] => {
    const field = `inputs.${channel.ChannelName}.instanceGroups`;
    const [id, value] = ['E-CHANNEL-GROUPS', groupsOf(channel)] as const;
    if (value.length === 0) {
      const rule = 'Another input names groups, so every input must.';
      return [{ id, field, value: undefined, rule, nextStep: 'Add instanceGroups to it.' }];
    }
    if (value.every((name) => known.includes(name))) return [];
    const rule = `The estimator's groups are ${known.join(', ') || 'none'}.`;
    return [{ id, field, value: value.join(', '), rule, nextStep: 'Name some of them.' }];
  });
  throwIfAny(problems);
}

function encodeAll(
  { options, profile }: EstimatorSpec,
  job: { jobName: string; region: string; outputPath: string; submitDirectory: string | null },
): Record<string, string> {
  const user = options.hyperparameters ?? {};
  const { source } = profile;
  if (!source || job.submitDirectory === null) {
    return Object.fromEntries(Object.entries(user).map(([key, value]) => [key, pythonStr(value)]));
  }
  const { entryPoint, sourceDir, containerLogLevel = 20 } = source;
  const script: Record<string, PythonValue> = {
    sagemaker_submit_directory: job.submitDirectory,
    sagemaker_program: sourceDir === undefined ? (entryPoint.split('/').at(-1) ?? entryPoint) : entryPoint,
    sagemaker_container_log_level: containerLogLevel,
    sagemaker_job_name: job.jobName,
    sagemaker_region: job.region,
  };
  return encodeHyperparameters({ ...user, ...script, ...profile.addedHyperparameters(job) });
}
