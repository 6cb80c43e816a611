import { expect, test } from 'vitest';
import { ProblemList } from '../problem.ts';
import { huggingFaceImages } from './hugging-face-images.ts';
import type { ImageTable } from './image-table.ts';
import { compareVersions } from './image-table.ts';
import { MXNET_IMAGES } from './mxnet-images.ts';
import {
  MODEL_PARALLEL_IMAGES,
  modelParallelContainer,
  PYTORCH_COMPILER_IMAGES,
  PYTORCH_IMAGES,
  PYTORCH_NEURON_IMAGES,
} from './pytorch-images.ts';
import type { ImageQuery } from './select-image.ts';
import { imageUri, selectImage } from './select-image.ts';
import { TENSORFLOW_IMAGES } from './tensorflow-images.ts';

const AWS = { onAws: true, strict: false };

function image(
  query: Partial<ImageQuery>,
  region = 'us-west-2',
  mode = AWS,
  table: ImageTable = PYTORCH_IMAGES,
) {
  const problems = new ProblemList(mode);
  const base = {
    version: '2.8.0',
    pyVersion: undefined,
    instanceType: 'ml.g5.2xlarge',
    isTypeGiven: true,
    usesLibraries: false,
  };
  const selection = selectImage(table, { ...base, ...query }, problems);
  return {
    uri: selection && imageUri(selection, region, problems),
    errors: problems.errors.map(({ id }) => id),
    warnings: problems.warnings.map(({ id }) => id),
  };
}

// The examples of AWS's documentation and of its Python SDK.
test.each([
  [{}, 'us-east-1', '763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-gpu-py312'],
  [
    { version: '2.8' },
    'us-east-1',
    '763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8-gpu-py312',
  ],
  [
    { instanceType: 'ml.m5.xlarge', version: '1.13' },
    'cn-north-1',
    '727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn/pytorch-training:1.13-cpu-py39',
  ],
  [
    { instanceType: 'ml.c5.xlarge', version: '1.1.0', pyVersion: 'py3' },
    'eu-west-1',
    '520713654638.dkr.ecr.eu-west-1.amazonaws.com/sagemaker-pytorch:1.1.0-cpu-py3',
  ],
  [
    { instanceType: 'ml.p4d.24xlarge', version: '1.6.0', pyVersion: 'py36' },
    'us-west-2',
    '763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training:1.6.0-gpu-py36-cu110-ubuntu18.04',
  ],
  [
    { version: '1.6', pyVersion: 'py36', usesLibraries: true },
    'us-west-2',
    '763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training:1.6-gpu-py36-cu110-ubuntu18.04-v3',
  ],
])('%j in %s is %s', (query, region, uri) => {
  expect(image(query, region)).toEqual({ uri, errors: [], warnings: [] });
});

const account = '763104351884.dkr.ecr.us-west-2.amazonaws.com';

// As AWS's Python SDK 2.257.7 answers image_uris.get_training_image_uri.
test.each<[ImageTable, Partial<ImageQuery>, string]>([
  [TENSORFLOW_IMAGES, { version: '2.19' }, 'tensorflow-training:2.19-gpu-py312'],
  [
    TENSORFLOW_IMAGES,
    { version: '2.3.1', instanceType: 'ml.p4d.24xlarge' },
    'tensorflow-training:2.3.1-gpu-py37-cu110-ubuntu18.04',
  ],
  [
    TENSORFLOW_IMAGES,
    { version: '1.15', pyVersion: 'py37', usesLibraries: true },
    'tensorflow-training:1.15-gpu-py37-cu110-ubuntu18.04-v8',
  ],
  [TENSORFLOW_IMAGES, { version: '1.13', pyVersion: 'py3' }, 'tensorflow-training:1.13-gpu-py3'],
  [MXNET_IMAGES, { version: '1.9', instanceType: 'ml.c5.2xlarge' }, 'mxnet-training:1.9-cpu-py38'],
  [
    MXNET_IMAGES,
    { version: '1.8', instanceType: 'ml.p4d.24xlarge' },
    'mxnet-training:1.8-gpu-py37-cu110-ubuntu16.04-v1',
  ],
  [
    PYTORCH_NEURON_IMAGES,
    { version: '1.11', instanceType: 'ml.trn1.2xlarge' },
    'pytorch-training-neuron:1.11-neuron-py38-sdk2.4.0-ubuntu20.04',
  ],
  [PYTORCH_COMPILER_IMAGES, { version: '1.13.1' }, 'pytorch-trcomp-training:1.13.1-gpu-py39'],
])('%s of %j is %s', (table, query, tag) => {
  expect(image(query, 'us-west-2', AWS, table)).toEqual({
    uri: `${account}/${tag}`,
    errors: [],
    warnings: [],
  });
});

test('a Hugging Face image has the versions of transformers and of the framework below it', () => {
  const table = huggingFaceImages('pytorch', '2.1', false);
  const prefix = (version: string): string => `2.1-transformers${version}`;
  expect(image({ version: '4.36', prefix }, 'us-west-2', AWS, table).uri).toBe(
    `${account}/huggingface-pytorch-training:2.1-transformers4.36-gpu-py310-cu121-ubuntu20.04`,
  );
  expect(image({ version: '4.28.1', prefix }, 'us-west-2', AWS, table).errors).toEqual(['E-IMAGE-VERSION']);
});

test.each([
  ['2.0.1', 'ml.p4d.24xlarge', '2.0.1-gpu-py310-cu118'],
  ['2.0.1', 'ml.p5.48xlarge', '2.0.1-gpu-py310-cu121'],
  ['2.4.1', 'ml.p4d.24xlarge', '2.4.1-gpu-py311-cu121'],
  ['2.5.1', 'ml.p4d.24xlarge', '2.5.1-gpu-py311-cu124'],
])('the model-parallel image of PyTorch %s on %s is %s', (version, instanceType, tag) => {
  const container = modelParallelContainer(version, instanceType);
  expect(image({ version, instanceType, container }, 'us-west-2', AWS, MODEL_PARALLEL_IMAGES)).toEqual({
    uri: `658645717510.dkr.ecr.us-west-2.amazonaws.com/smdistributed-modelparallel:${tag}`,
    errors: [],
    warnings: [],
  });
});

test('an image for GPUs only is refused on other types of AWS, and elsewhere a label that warns when a type was given', () => {
  const query = { version: '4.56', instanceType: 'ml.m5.xlarge' };
  const table = huggingFaceImages('pytorch', '2.8', false);
  expect(image(query, 'us-west-2', AWS, table).errors).toEqual(['E-IMAGE-PROCESSOR']);
  const elsewhere = { onAws: false, strict: false };
  expect(image(query, 'us-west-2', elsewhere, table)).toMatchObject({
    errors: [],
    warnings: ['E-IMAGE-PROCESSOR'],
  });
  expect(image({ ...query, isTypeGiven: false }, 'us-west-2', elsewhere, table).warnings).toEqual([]);
});

test.each([
  [PYTORCH_IMAGES, '1.13', 'py39'],
  [TENSORFLOW_IMAGES, '2.12', 'py310'],
])('%s %s is refused on P2 instances of AWS', (table, version, pyVersion) => {
  const query = { version, pyVersion, instanceType: 'ml.p2.xlarge' };
  expect(image(query, 'us-west-2', AWS, table).errors).toEqual(['E-IMAGE-P2']);
});

test('regions differ between images', () => {
  expect(image({ version: '2.3.0' }, 'us-isof-south-1').errors).toEqual([]);
  expect(image({ version: '2.8.0' }, 'us-isof-south-1').errors).toEqual(['E-REGION']);
  expect(image({ version: '1.9.0' }, 'mx-central-1', AWS, MXNET_IMAGES).errors).toEqual(['E-REGION']);
});

test('a patch version without an image takes the nearest of its minor version and says so, in strict mode it is refused', () => {
  expect(image({ version: '2.4.1' })).toEqual({
    uri: '763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training:2.4.0-gpu-py311',
    errors: [],
    warnings: ['E-IMAGE-VERSION'],
  });
  expect(image({ version: '2.4.1' }, 'us-west-2', { onAws: false, strict: true }).errors).toEqual([
    'E-IMAGE-VERSION',
  ]);
});

test.each(['2.99', '2', 'latest', '2.8.0.1'])(
  'version %s without any image is refused unless its minor version has one',
  (version) => {
    const { errors, warnings } = image({ version: version });
    expect([...errors, ...warnings]).toEqual(['E-IMAGE-VERSION']);
  },
);

test('a python version that the image does not have, or that must be chosen, is refused', () => {
  expect(image({ pyVersion: 'py39' }).errors).toEqual(['E-IMAGE-PYTHON']);
  expect(image({ version: '1.5.0' }).errors).toEqual(['E-IMAGE-PYTHON']);
});

test('instance types of another form are refused', () => {
  expect(image({ instanceType: 'p4d.24xlarge' }).errors).toEqual(['E-TYPE']);
});

test('a region without images is refused on AWS and is only a label elsewhere', () => {
  expect(image({}, 'mars-north-1').errors).toEqual(['E-REGION']);
  expect(image({}, 'mars-north-1', { onAws: false, strict: false })).toEqual({
    uri: '763104351884.dkr.ecr.mars-north-1.amazonaws.com/pytorch-training:2.8.0-gpu-py312',
    errors: [],
    warnings: [],
  });
});

test('versions compare by number, missing parts count as zero', () => {
  expect(compareVersions('1.10', '1.9')).toBeGreaterThan(0);
  expect(compareVersions('2.0', '2.0.0')).toBe(0);
  expect(compareVersions('1.2.9', '1.3')).toBeLessThan(0);
});
