import { dnsSuffixOfRegion } from '@trainyard/api';
import { IMAGE_ACCOUNTS, LABEL_ACCOUNT, LEGACY_IMAGE_ACCOUNTS } from '../image-accounts.ts';
import { instanceFamily, instanceKind } from '../instance-types.ts';

import type { Problem, ProblemList } from '../problem.ts';
import { PYTORCH_IMAGES } from './pytorch-versions.ts';
import type { ImageVersion } from './pytorch-versions.ts';

export interface ImageSelection {
  repository: ImageVersion['repository'];
  tag: string;
}

export interface ImageQuery {
  /** As the user typed it; `2.8` keeps its short form in the tag. */
  frameworkVersion: string;
  /** @default the only one that the image has */
  pyVersion: string | undefined;
  instanceType: string;
  /** The job carries the flag of AWS's data-parallel library (`pytorchddp` does). */
  usesDataParallelFlag: boolean;
}

/**
 * Repository and tag of the AWS image for a version, as AWS's SDK chooses them.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/image_uris.py
 * @returns null when a problem was added.
 */
export function selectPyTorchImage(query: ImageQuery, problems: ProblemList): ImageSelection | null {
  const found = findVersion(query.frameworkVersion, problems);
  if (!found) return null;
  const python = choosePython(query, found.image, problems);
  if (!python) return null;
  const processor = chooseProcessor(query, problems);
  if (!processor) return null;
  const tag = `${found.tagVersion}-${processor}-${python}`;
  return { repository: found.image.repository, tag: tag + legacySuffix(tag, query) };
}

/** The image's address in a region. Outside AWS it is a label, so a region that AWS lacks is no error there. */
export function pytorchImageUri(selection: ImageSelection, region: string, problems: ProblemList): string {
  const accounts = selection.repository === 'pytorch-training' ? IMAGE_ACCOUNTS : LEGACY_IMAGE_ACCOUNTS;
  const account = accounts[region];
  if (account === undefined && problems.onAws) {
    problems.refuse({
      id: 'E-REGION',
      field: 'region',
      value: region,
      rule: `AWS publishes ${selection.repository}:${selection.tag} only in ${Object.keys(accounts).join(', ')}.`,
      nextStep: 'Pass imageUri, or choose one of these regions.',
    });
  }
  const host = `${account ?? LABEL_ACCOUNT}.dkr.ecr.${region}.${dnsSuffixOfRegion(region)}`;
  return `${host}/${selection.repository}:${selection.tag}`;
}

/** The row that a version names: itself, the newest patch of `x.y`, or the nearest image of the same `x.y`. */
export function findImageVersion(version: string): ImageVersion | undefined {
  const exact = PYTORCH_IMAGES.find((image) => image.version === version);
  if (exact) return exact;
  const minor = /^\d+\.\d+(?=$|\.)/.exec(version)?.[0];
  return minor === undefined
    ? undefined
    : PYTORCH_IMAGES.findLast((image) => image.version.startsWith(`${minor}.`));
}

function findVersion(
  typed: string,
  problems: ProblemList,
): { image: ImageVersion; tagVersion: string } | null {
  const image = findImageVersion(typed);
  const problem: Problem = {
    id: 'E-IMAGE-VERSION',
    field: 'frameworkVersion',
    value: typed,
    rule: `AWS has no training image of it; it has ${PYTORCH_IMAGES.map((known) => known.version).join(', ')}.`,
    nextStep: 'Choose one of these (2.8 stands for its newest patch), or pass imageUri.',
  };
  if (!image) {
    problems.refuse(problem);
    return null;
  }
  const isAlias = image.version === typed || /^\d+\.\d+$/.test(typed);
  if (!isAlias) {
    problems.refuseIfStrict({
      ...problem,
      nextStep: `The image of ${image.version} is used; pass imageUri for another.`,
    });
  }
  return { image, tagVersion: isAlias ? typed : image.version };
}

function choosePython(query: ImageQuery, image: ImageVersion, problems: ProblemList): string | null {
  const { pyVersion } = query;
  if (pyVersion === undefined && image.pythons.length === 1) return image.pythons[0];
  if (pyVersion !== undefined && image.pythons.includes(pyVersion)) return pyVersion;
  problems.refuse({
    id: 'E-IMAGE-PYTHON',
    field: 'pyVersion',
    value: pyVersion,
    rule: `The image of PyTorch ${image.version} exists with ${image.pythons.join(', ')}.`,
    nextStep: 'Choose one of these, or pass imageUri.',
  });
  return null;
}

function chooseProcessor(query: ImageQuery, problems: ProblemList): 'cpu' | 'gpu' | null {
  const family = instanceFamily(query.instanceType);
  if (family === null) {
    problems.refuse({
      id: 'E-TYPE',
      field: 'instanceType',
      value: query.instanceType,
      rule: 'An instance type has the form ml.<family>.<size>.',
      nextStep: 'Write e.g. ml.g5.2xlarge.',
    });
    return null;
  }
  if (/^(trn|inf)/.test(family)) {
    problems.refuse({
      id: 'E-IMAGE-NEURON',
      field: 'imageUri',
      value: undefined,
      rule: `No image is known for ${query.instanceType} by framework version.`,
      nextStep: 'Pass imageUri, e.g. the pytorch-training-neuronx image of your region.',
    });
    return null;
  }
  if (family === 'p2' && compareVersions(query.frameworkVersion, '1.13') >= 0) {
    problems.refuseOnAws({
      id: 'E-IMAGE-P2',
      field: 'instanceType',
      value: query.instanceType,
      rule: 'AWS runs PyTorch 1.13 and newer on no P2 instance.',
      nextStep: 'Choose another type for AWS.',
    });
  }
  return instanceKind(query.instanceType) === 'gpu' ? 'gpu' : 'cpu';
}

/** PyTorch 1.6 has separate images for the data-parallel library and for p4d. */
function legacySuffix(tag: string, query: ImageQuery): string {
  if (instanceFamily(query.instanceType) !== 'p4d' && !query.usesDataParallelFlag) return '';
  if (tag.startsWith('1.6-gpu-py3')) return '-cu110-ubuntu18.04-v3';
  return tag.startsWith('1.6.0-gpu-py3') ? '-cu110-ubuntu18.04' : '';
}

/** Negative when `a` is older; missing parts count as 0. */
export function compareVersions(a: string, b: string): number {
  const left = a.split('.').map(Number);
  const right = b.split('.').map(Number);
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
