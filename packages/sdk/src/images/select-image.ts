import { dnsSuffixOfRegion } from '@trainyard/api';
import { instanceFamily, instanceKind } from '../instance-types.ts';
import type { Problem, ProblemList } from '../problem.ts';
import type { ImageTable, ImageVersion, Processor } from './image-table.ts';
import { compareVersions, findImages } from './image-table.ts';
import type { Registry } from './registries.ts';
import { LABEL_ACCOUNT } from './registries.ts';

export interface SelectedImage {
  repository: string;
  tag: string;
  registry: Registry;
}

export interface ImageQuery {
  /** As the user typed it; `2.8` keeps its short form in the tag. */
  version: string;
  /** @default the only one that the image has */
  pyVersion: string | undefined;
  instanceType: string;
  /** Outside AWS no type stands for any machine. */
  isTypeGiven: boolean;
  /** The distribution names AWS's libraries (`pytorchddp` does). */
  usesLibraries: boolean;
  /** First part of the tag. @default the version */
  prefix?: (version: string) => string;
  /** Last part of the tag, unless the image's row has one. */
  container?: string;
}

/**
 * Repository and tag of the AWS image for a version, as AWS's SDK chooses them.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/image_uris.py
 * @returns null when a problem was added.
 */
export function selectImage(
  table: ImageTable,
  query: ImageQuery,
  problems: ProblemList,
): SelectedImage | null {
  const found = findVersion(table, query.version, problems);
  if (!found) return null;
  const image = choosePython(table, query, found.images, problems);
  const processor = image && chooseProcessor(table, query, problems);
  if (!image || !processor) return null;
  const { repository, registry, container = query.container } = image;
  const prefix = query.prefix?.(found.tagVersion) ?? found.tagVersion;
  const tag = [prefix, processor, image.python, container].filter(Boolean).join('-');
  return { repository, registry, tag: tag + legacySuffix(`${table.title} ${tag}`, query) };
}

/** The image's address in a region. Outside AWS it is a label, so a region that AWS lacks is no error there. */
export function imageUri(selection: SelectedImage, region: string, problems: ProblemList): string {
  const account = selection.registry[region];
  if (account === undefined && problems.onAws) {
    problems.refuse({
      id: 'E-REGION',
      field: 'region',
      value: region,
      rule: `AWS publishes ${selection.repository}:${selection.tag} only in ${Object.keys(selection.registry).join(', ')}.`,
      nextStep: 'Pass imageUri, or choose one of these regions.',
    });
  }
  const host = `${account ?? LABEL_ACCOUNT}.dkr.ecr.${region}.${dnsSuffixOfRegion(region)}`;
  return `${host}/${selection.repository}:${selection.tag}`;
}

function findVersion(
  table: ImageTable,
  typed: string,
  problems: ProblemList,
): { images: ImageVersion[]; tagVersion: string } | null {
  const images = findImages(table, typed);
  const [image] = images;
  const known = [...new Set(table.images.map(({ version }) => version))];
  const problem: Problem = {
    id: 'E-IMAGE-VERSION',
    field: table.field,
    value: typed,
    rule: `AWS has no training image of ${table.title} ${typed}; it has ${known.join(', ') || 'none'}.`,
    nextStep: 'Choose one of these (a short version stands for its newest patch), or pass imageUri.',
  };
  if (!image) {
    problems.refuse(problem);
    return null;
  }
  const isAlias = image.version === typed || /^\d+\.\d+$/.test(typed) || table.aliases?.[typed] !== undefined;
  if (!isAlias) {
    problems.refuseIfStrict({
      ...problem,
      nextStep: `The image of ${image.version} is used; pass imageUri for another.`,
    });
  }
  return { images, tagVersion: isAlias ? typed : image.version };
}

function choosePython(
  table: ImageTable,
  { pyVersion }: ImageQuery,
  images: readonly ImageVersion[],
  problems: ProblemList,
): (ImageVersion & { python: string }) | null {
  const known = images.flatMap((image) => image.pythons);
  const python = pyVersion ?? (known.length === 1 ? known[0] : undefined);
  const image = images.find(({ pythons }) => python !== undefined && pythons.includes(python));
  if (image && python !== undefined) return { ...image, python };
  problems.refuse({
    id: 'E-IMAGE-PYTHON',
    field: 'pyVersion',
    value: pyVersion,
    rule: `The image of ${table.title} ${images[0]?.version} exists with ${known.join(', ')}.`,
    nextStep: 'Choose one of these, or pass imageUri.',
  });
  return null;
}

function chooseProcessor(table: ImageTable, query: ImageQuery, problems: ProblemList): Processor | null {
  const { instanceType } = query;
  const family = instanceFamily(instanceType);
  if (family === null) {
    problems.refuse({
      id: 'E-TYPE',
      field: 'instanceType',
      value: instanceType,
      rule: 'An instance type has the form ml.<family>.<size>.',
      nextStep: 'Write e.g. ml.g5.2xlarge.',
    });
    return null;
  }
  checkP2(table, query, family, problems);
  const kind = instanceKind(instanceType);
  const wanted: Processor = kind === 'trainium' ? 'neuron' : kind;
  const only = table.processors[0];
  if (table.processors.includes(wanted) || !only) return wanted;
  // Outside AWS the image's name is a label and the instance type says nothing about the hardware.
  if (!query.isTypeGiven && !problems.onAws) return only;
  problems.refuseOnAws({
    id: 'E-IMAGE-PROCESSOR',
    field: 'instanceType',
    value: instanceType,
    rule: `AWS's images of ${table.title} are for ${table.processors.join(' and ')} instances.`,
    nextStep: 'For AWS choose such a type, or pass imageUri.',
  });
  return only;
}

/** Versions from which AWS runs a framework on no P2 instance. */
const P2_ENDS: Readonly<Record<string, string>> = { PyTorch: '1.13', TensorFlow: '2.12' };

function checkP2({ title }: ImageTable, query: ImageQuery, family: string, problems: ProblemList): void {
  const end = P2_ENDS[title];
  if (family !== 'p2' || end === undefined || compareVersions(query.version, end) < 0) return;
  problems.refuseOnAws({
    id: 'E-IMAGE-P2',
    field: 'instanceType',
    value: query.instanceType,
    rule: `AWS runs ${title} ${end} and newer on no P2 instance.`,
    nextStep: 'Choose another type for AWS.',
  });
}

/** Images that exist twice: once more for AWS's libraries and for p4d. */
const LEGACY_SUFFIXES: Readonly<Record<string, string>> = {
  'TensorFlow 2.3-gpu-py37': 'cu110-ubuntu18.04-v3',
  'TensorFlow 2.3.1-gpu-py37': 'cu110-ubuntu18.04',
  'TensorFlow 2.3.2-gpu-py37': 'cu110-ubuntu18.04',
  'TensorFlow 1.15-gpu-py37': 'cu110-ubuntu18.04-v8',
  'TensorFlow 1.15.4-gpu-py37': 'cu110-ubuntu18.04',
  'TensorFlow 1.15.5-gpu-py37': 'cu110-ubuntu18.04',
  'MXNet 1.8-gpu-py37': 'cu110-ubuntu16.04-v1',
  'MXNet 1.8.0-gpu-py37': 'cu110-ubuntu16.04',
  'PyTorch 1.6-gpu-py36': 'cu110-ubuntu18.04-v3',
  'PyTorch 1.6.0-gpu-py36': 'cu110-ubuntu18.04',
  'PyTorch 1.6-gpu-py3': 'cu110-ubuntu18.04-v3',
  'PyTorch 1.6.0-gpu-py3': 'cu110-ubuntu18.04',
};

function legacySuffix(image: string, query: ImageQuery): string {
  if (instanceFamily(query.instanceType) !== 'p4d' && !query.usesLibraries) return '';
  const suffix = LEGACY_SUFFIXES[image];
  return suffix === undefined ? '' : `-${suffix}`;
}
