import { expect, test } from 'vitest';
import { frameworkModuleOf } from './spec.ts';

test.each([
  ['763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-gpu-py312', 'pytorch', 'pytorch'],
  ['x/huggingface-pytorch-training:2.8.0-transformers4.56.2-gpu-py312', 'pytorch', 'pytorch'],
  ['x/smdistributed-modelparallel:2.4.1-gpu-py311-cu121', 'pytorch', 'pytorch'],
  ['x/pytorch-training-neuronx:2.1.2-neuronx-py310', 'pytorch', 'pytorch'],
  ['x/tensorflow-training:2.19.0-cpu-py312', 'tensorflow', 'tensorflow'],
  ['x/mxnet-training:1.9.0-cpu-py38', 'mxnet', 'mxnet'],
  // An image says more than the runtime that stands in for it.
  ['x/tensorflow-training:2.19.0-cpu-py312', 'pytorch', 'tensorflow'],
  ['x/our-trainer:7', 'mxnet', 'mxnet'],
])('%s in a runtime of %s runs the toolkit of %s', (image, framework, toolkit) => {
  expect(frameworkModuleOf(image, framework)).toBe(`sagemaker_${toolkit}_container.training:main`);
});

test('an image of no known framework gets the generic toolkit', () => {
  expect(frameworkModuleOf('x/our-trainer:7', 'jax')).toBeNull();
});
