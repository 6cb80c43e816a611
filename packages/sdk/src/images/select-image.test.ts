import { expect, test } from 'vitest';
import { ProblemList } from '../problem.ts';
import { compareVersions, pytorchImageUri, selectPyTorchImage } from './pytorch-image.ts';
import type { ImageQuery } from './pytorch-image.ts';

function image(query: Partial<ImageQuery>, region = 'us-west-2', mode = { onAws: true, strict: false }) {
  const problems = new ProblemList(mode);
  const base = {
    frameworkVersion: '2.8.0',
    pyVersion: undefined,
    instanceType: 'ml.g5.2xlarge',
    usesDataParallelFlag: false,
  };
  const selection = selectPyTorchImage({ ...base, ...query }, problems);
  return {
    uri: selection && pytorchImageUri(selection, region, problems),
    errors: problems.errors.map(({ id }) => id),
    warnings: problems.warnings.map(({ id }) => id),
  };
}

// The examples of AWS's documentation and of its Python SDK.
test.each([
  [{}, 'us-east-1', '763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-gpu-py312'],
  [
    { frameworkVersion: '2.8' },
    'us-east-1',
    '763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8-gpu-py312',
  ],
  [
    { instanceType: 'ml.m5.xlarge', frameworkVersion: '1.13' },
    'cn-north-1',
    '727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn/pytorch-training:1.13-cpu-py39',
  ],
  [
    { instanceType: 'ml.c5.xlarge', frameworkVersion: '1.1.0', pyVersion: 'py3' },
    'eu-west-1',
    '520713654638.dkr.ecr.eu-west-1.amazonaws.com/sagemaker-pytorch:1.1.0-cpu-py3',
  ],
  [
    { instanceType: 'ml.p4d.24xlarge', frameworkVersion: '1.6.0', pyVersion: 'py36' },
    'us-west-2',
    '763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training:1.6.0-gpu-py36-cu110-ubuntu18.04',
  ],
  [
    { frameworkVersion: '1.6', pyVersion: 'py36', usesDataParallelFlag: true },
    'us-west-2',
    '763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training:1.6-gpu-py36-cu110-ubuntu18.04-v3',
  ],
])('%j in %s is %s', (query, region, uri) => {
  expect(image(query, region)).toEqual({ uri, errors: [], warnings: [] });
});

test('a patch version without an image takes the nearest of its minor version and says so, in strict mode it is refused', () => {
  expect(image({ frameworkVersion: '2.4.1' })).toEqual({
    uri: '763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training:2.4.0-gpu-py311',
    errors: [],
    warnings: ['E-IMAGE-VERSION'],
  });
  expect(image({ frameworkVersion: '2.4.1' }, 'us-west-2', { onAws: false, strict: true }).errors).toEqual([
    'E-IMAGE-VERSION',
  ]);
});

test.each(['2.99', '2', 'latest', '2.8.0.1'])(
  'version %s without any image is refused unless its minor version has one',
  (version) => {
    const { errors, warnings } = image({ frameworkVersion: version });
    expect([...errors, ...warnings]).toEqual(['E-IMAGE-VERSION']);
  },
);

test('a python version that the image does not have, or that must be chosen, is refused', () => {
  expect(image({ pyVersion: 'py39' }).errors).toEqual(['E-IMAGE-PYTHON']);
  expect(image({ frameworkVersion: '1.5.0' }).errors).toEqual(['E-IMAGE-PYTHON']);
});

test('instance types of another form and those without a known image are refused', () => {
  expect(image({ instanceType: 'p4d.24xlarge' }).errors).toEqual(['E-TYPE']);
  expect(image({ instanceType: 'ml.trn1.2xlarge' }).errors).toEqual(['E-IMAGE-NEURON']);
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
