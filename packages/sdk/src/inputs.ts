import { fileURLToPath } from 'node:url';
import type {
  Channel,
  CompressionType,
  FileSystemAccessMode,
  FileSystemType,
  HubAccessConfig,
  ModelAccessConfig,
  RecordWrapper,
  S3DataDistribution,
  S3DataType,
  TrainingInputMode,
} from '@trainyard/api';
import { InvalidOption } from './errors.ts';

export interface TrainingInputOptions {
  /**
   * Every host gets all objects, or each its share.
   * @default 'FullyReplicated'
   */
  distribution?: S3DataDistribution;
  /** A prefix, or a manifest: `ManifestFile`, `AugmentedManifestFile`. @default 'S3Prefix' */
  s3DataType?: S3DataType;
  /** MIME type. */
  contentType?: string;
  /** Pipe mode only. */
  compression?: CompressionType;
  /** Pipe mode only. */
  recordWrapping?: RecordWrapper;
  /** @default the estimator's `inputMode` */
  inputMode?: TrainingInputMode;
  /** Names of the groups whose hosts get the channel; if one channel names some, all must. */
  instanceGroups?: readonly string[];
  /** At most 16 names of an augmented manifest. */
  attributeNames?: readonly string[];
  /** ARN of a model in a hub of AWS. */
  hubAccessConfig?: HubAccessConfig;
  /** Agreement to the terms of a model of AWS. */
  modelAccessConfig?: ModelAccessConfig;
  /** Shuffles the order of objects anew for every epoch. */
  shuffleConfig?: { seed: number };
}

/** A channel read from S3, or from a local file or directory that is uploaded first. */
export class TrainingInput {
  readonly s3Data: string;
  readonly options: Readonly<TrainingInputOptions>;

  /** @param s3Data `s3://` URI, or a local path */
  constructor(s3Data: string, options: TrainingInputOptions = {}) {
    this.s3Data = s3Data;
    this.options = options;
  }
}

export interface FileSystemInputOptions {
  /** `fs-…`, at most 21 characters. */
  fileSystemId: string;
  fileSystemType: FileSystemType;
  /** Absolute; for FSxLustre it begins with the file system's mount name. */
  directoryPath: string;
  /** @default 'ro' */
  fileSystemAccessMode?: FileSystemAccessMode;
  /** MIME type. */
  contentType?: string;
}

/** A channel that is a directory of a shared file system, used in place. */
export class FileSystemInput {
  readonly options: Readonly<FileSystemInputOptions>;

  constructor(options: FileSystemInputOptions) {
    check('fileSystemType', options.fileSystemType, ['EFS', 'FSxLustre']);
    check('fileSystemAccessMode', options.fileSystemAccessMode ?? 'ro', ['ro', 'rw']);
    this.options = options;
  }
}

function check(field: string, value: string, allowed: readonly string[]): void {
  if (allowed.includes(value)) return;
  const rule = `It must be ${allowed.join(' or ')}.`;
  throw new InvalidOption([{ id: 'E-FILE-SYSTEM', field, value, rule, nextStep: 'Correct the value.' }]);
}

/** `s3://…`, a local path or `file://…` URL, or one of the input classes. */
export type Input = string | TrainingInput | FileSystemInput;

/** One channel named `training`, or channels by name. */
export type Inputs = Input | Readonly<Record<string, Input>>;

/** A local path stays open until it is known where the job goes. */
export type ParsedInput =
  | { kind: 'channel'; channel: Channel }
  | { kind: 'local'; name: string; path: string; options: TrainingInputOptions | null };

/**
 * Channels in the order given.
 * @throws InvalidOption (`E-URI`) when a string is neither an S3 URI nor a path.
 */
export function parseInputs(inputs: Inputs | undefined): ParsedInput[] {
  if (inputs === undefined) return [];
  const isSingle =
    typeof inputs === 'string' || inputs instanceof TrainingInput || inputs instanceof FileSystemInput;
  const channels = isSingle ? { training: inputs } : inputs;
  return Object.entries(channels).map(([name, input]) => parseInput(name, input));
}

/** AWS's SDK lets a single `TrainingInput` choose the input mode of the whole job. */
export function jobInputMode(inputs: Inputs | undefined): TrainingInputMode | undefined {
  return inputs instanceof TrainingInput ? inputs.options.inputMode : undefined;
}

function parseInput(name: string, input: Input): ParsedInput {
  if (input instanceof FileSystemInput)
    return { kind: 'channel', channel: fileSystemChannel(name, input.options) };
  const [uri, options] = input instanceof TrainingInput ? [input.s3Data, input.options] : [input, null];
  if (uri.startsWith('s3://')) return { kind: 'channel', channel: s3Channel(name, uri, options ?? {}) };
  return { kind: 'local', name, path: localPath(name, uri), options };
}

function localPath(name: string, uri: string): string {
  if (uri.startsWith('file:'))
    return fileURLToPath(uri.replace(/^file:\/\/(?!\/)/, `file://${process.cwd()}/`));
  if (uri !== '' && !/^[a-z][a-z0-9+.-]*:\/\//i.test(uri)) return uri;
  throw new InvalidOption([
    {
      id: 'E-URI',
      field: `inputs.${name}`,
      value: uri,
      rule: 'An input is an s3:// URI or a local path.',
      nextStep: 'Copy the data to S3 or to this machine.',
    },
  ]);
}

export function s3Channel(name: string, uri: string, options: TrainingInputOptions): Channel {
  return {
    ChannelName: name,
    DataSource: {
      S3DataSource: {
        S3DataType: options.s3DataType ?? 'S3Prefix',
        S3Uri: uri,
        S3DataDistributionType: options.distribution ?? 'FullyReplicated',
        ...(options.instanceGroups && { InstanceGroupNames: [...options.instanceGroups] }),
        ...(options.attributeNames && { AttributeNames: [...options.attributeNames] }),
        ...(options.hubAccessConfig && { HubAccessConfig: options.hubAccessConfig }),
        ...(options.modelAccessConfig && { ModelAccessConfig: options.modelAccessConfig }),
      },
    },
    ...(options.contentType !== undefined && { ContentType: options.contentType }),
    ...(options.compression && { CompressionType: options.compression }),
    ...(options.recordWrapping && { RecordWrapperType: options.recordWrapping }),
    ...(options.inputMode && { InputMode: options.inputMode }),
    ...(options.shuffleConfig && { ShuffleConfig: { Seed: options.shuffleConfig.seed } }),
  };
}

export function fileSystemChannel(name: string, options: FileSystemInputOptions): Channel {
  return {
    ChannelName: name,
    DataSource: {
      FileSystemDataSource: {
        FileSystemId: options.fileSystemId,
        FileSystemType: options.fileSystemType,
        DirectoryPath: options.directoryPath,
        FileSystemAccessMode: options.fileSystemAccessMode ?? 'ro',
      },
    },
    ...(options.contentType !== undefined && { ContentType: options.contentType }),
  };
}
