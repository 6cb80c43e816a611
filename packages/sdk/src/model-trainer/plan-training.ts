import { basename, resolve } from 'node:path';
import type { Channel, CreateTrainingJobRequest, PythonValue } from '@trainyard/api';
import { joinS3Uri, parseS3Uri, pythonJson } from '@trainyard/api';
import type { Connection } from '../connection.ts';
import { DefaultBucket } from '../default-bucket.ts';
import { throwIfAny } from '../errors.ts';
import type { Hyperparameters } from '../estimator-options.ts';
import { DEFAULT_PYTORCH_VERSION, PYTORCH_IMAGES } from '../images/pytorch-images.ts';
import { imageUri, selectImage } from '../images/select-image.ts';
import { jobInputMode, parseInputs, s3Channel, TrainingInput } from '../inputs.ts';
import { DEFAULT_INSTANCE_TYPE, LOCAL_MODE_TYPES } from '../instance-types.ts';
import { baseNameOfImage, secondsName } from '../job-name.ts';
import type { JobPlan, PlannedUpload } from '../job-plan.ts';
import { placeInputs } from '../local-inputs.ts';
import {
  checkChannelGroups,
  checkChannelNames,
  checkJobName,
  checkPlace,
  chooseRole,
  registration,
} from '../plan-job.ts';
import type { ProblemList } from '../problem.ts';
import type { Session } from '../session.ts';
import { Torchrun } from './distributed.ts';
import { driverUploads } from './drivers.ts';
import type { ModelTrainerOptions, InputData } from './trainer-options.ts';
import { IGNORED_NAMES } from './trainer-options.ts';
import type { LaterOptions } from './model-trainer.ts';
import { trainingRequest } from './training-request.ts';

const CODE = 'code';
const DRIVERS = 'sm_drivers';

export interface TrainingSpec {
  options: ModelTrainerOptions;
  later: LaterOptions;
  hyperparameters: Hyperparameters;
}

export interface TrainNaming {
  jobName?: string;
  now?: Date;
}

/** What `train` will send. @throws InvalidOption for what depends on the place or on local inputs */
export async function planTraining(
  spec: TrainingSpec,
  session: Session,
  problems: ProblemList,
  inputs: readonly InputData[],
  naming: TrainNaming,
): Promise<JobPlan> {
  const { options, hyperparameters } = spec;
  const { sourceCode, distributed, compute = {} } = options;
  const connection = await session.connect();
  checkPlace({ instanceType: compute.instanceType }, connection, problems);
  const type = compute.instanceType ?? DEFAULT_INSTANCE_TYPE;
  const instanceType = compute.instanceGroups ? null : (LOCAL_MODE_TYPES[type] ?? type);
  const image = options.trainingImage ?? defaultImage(connection, problems);
  const baseName = (options.baseJobName ?? `${baseNameOfImage(image)}-job`).replace(/[^a-zA-Z0-9-]+/g, '-');
  const jobName = naming.jobName ?? secondsName(baseName, naming.now ?? new Date());
  checkJobName(jobName, problems);
  throwIfAny(problems.errors);

  const bucket = new DefaultBucket(connection);
  // Python's SDK names folders by the base as the user wrote it.
  const folder = options.baseJobName ?? baseName;
  const below = async (...parts: string[]): Promise<string> =>
    joinS3Uri(`s3://${await bucket.name()}/${session.defaultKeyPrefix}`, folder, ...parts);
  const inputUri = (channel: string): Promise<string> => below(jobName, 'input', channel);

  const parsed = parseInputs(Object.fromEntries(merge(options.inputDataConfig ?? [], inputs)));
  const placed = await placeInputs(parsed, {
    jobInputMode: options.trainingInputMode ?? 'File',
    uploadUri: inputUri,
    registerFolder: registration(connection, session),
  });
  const uploads = placed.uploads;
  const channels: Channel[] = withContentTypes(placed.channels, [
    ...(options.inputDataConfig ?? []),
    ...inputs,
  ]);
  checkChannelGroups(channels, compute);
  if (sourceCode) {
    // Either every channel is for some groups or none.
    const hasGroups = channels.some((channel) => channel.DataSource.S3DataSource?.InstanceGroupNames);
    const instanceGroups = hasGroups
      ? compute.instanceGroups?.map((group) => group.instanceGroupName)
      : undefined;
    const managed = (name: string, uri: string): Channel =>
      s3Channel(name, uri, { inputMode: 'File', ...(instanceGroups && { instanceGroups }) });
    if (sourceCode.sourceDir?.startsWith('s3://')) channels.push(managed(CODE, sourceCode.sourceDir));
    else if (sourceCode.sourceDir !== undefined) {
      const uri = await inputUri(CODE);
      uploads.push(codeUpload(sourceCode.sourceDir, uri, sourceCode.ignorePatterns ?? IGNORED_NAMES));
      channels.push(managed(CODE, uri));
    }
    const uri = await inputUri(DRIVERS);
    uploads.push(...(await driverUploads(uri, sourceCode, distributed)));
    channels.push(managed(DRIVERS, uri));
  }
  checkChannelNames(channels, {});

  const smp = distributed instanceof Torchrun ? distributed.options.smp : undefined;
  const request: CreateTrainingJobRequest = trainingRequest(spec, {
    jobName,
    image,
    instanceType,
    roleArn: await chooseRole(options, connection),
    channels,
    inputMode: jobInputMode(undefined) ?? options.trainingInputMode ?? 'File',
    outputPath: options.outputDataConfig?.s3OutputPath ?? (await below()),
    checkpointUri:
      options.checkpointConfig && (options.checkpointConfig.s3Uri ?? (await below(jobName, 'checkpoints'))),
    hyperparameters: {
      ...encodeBare(hyperparameters),
      ...(smp && { mp_parameters: pythonJson(smp.parameters()) }),
    },
  });
  const kmsKeyId = options.outputDataConfig?.kmsKeyId;
  const encrypted = kmsKeyId === undefined ? uploads : uploads.map((upload) => ({ ...upload, kmsKeyId }));
  return { request, uploads: encrypted, defaultBucket: bucket.used };
}

/** Outside AWS the image is a label. */
function defaultImage({ region }: Connection, problems: ProblemList): string {
  const selected = selectImage(
    PYTORCH_IMAGES,
    {
      version: DEFAULT_PYTORCH_VERSION,
      pyVersion: undefined,
      instanceType: DEFAULT_INSTANCE_TYPE,
      isTypeGiven: false,
      usesLibraries: false,
    },
    problems,
  );
  return selected ? imageUri(selected, region, problems) : '';
}

/** Channels of the trainer, those of the call put in their place or behind them. */
function merge(
  first: readonly InputData[],
  second: readonly InputData[],
): Map<string, InputData['dataSource']> {
  return new Map(
    [...first, ...second].map(({ channelName, dataSource }) => [channelName, inputOf(dataSource)]),
  );
}

/** Python's SDK gives channels of a plain URI an input mode, and no others. */
function inputOf(source: InputData['dataSource']): InputData['dataSource'] {
  return typeof source === 'string' && source.startsWith('s3://')
    ? new TrainingInput(source, { inputMode: 'File' })
    : source;
}

function withContentTypes(channels: readonly Channel[], inputs: readonly InputData[]): Channel[] {
  return channels.map((channel) => {
    const contentType = inputs.findLast((input) => input.channelName === channel.ChannelName)?.contentType;
    return contentType === undefined ? channel : { ...channel, ContentType: contentType };
  });
}

function codeUpload(sourceDir: string, uri: string, ignoredNames: readonly string[]): PlannedUpload {
  const path = resolve(sourceDir);
  if (path.endsWith('.tar.gz')) return { kind: 'file', ...parseS3Uri(joinS3Uri(uri, basename(path))), path };
  const { bucket, key } = parseS3Uri(uri);
  return { kind: 'directory', bucket, key: `${key}/`, path, channel: CODE, ignoredNames };
}

/** Strings as they are, everything else as JSON. */
function encodeBare(values: Hyperparameters): Record<string, string> {
  const encode = (value: PythonValue): string => (typeof value === 'string' ? value : pythonJson(value));
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, encode(value)]));
}
