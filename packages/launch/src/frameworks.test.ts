import type { HostPlan } from '@trainyard/api';
import { describe, expect, it, test } from 'vitest';
import { hasLegacyKeras, requireFramework, versionNotice } from './frameworks.ts';

const MODULES = {
  pytorch: 'sagemaker_pytorch_container.training:main',
  tensorflow: 'sagemaker_tensorflow_container.training:main',
  mxnet: 'sagemaker_mxnet_container.training:main',
} as const;

const planOf = (framework: keyof typeof MODULES | null, image = 'image:1', runtime = 'pytorch') => ({
  frameworkModule: (framework && MODULES[framework]) as HostPlan['frameworkModule'],
  image,
  runtime: { name: runtime },
});

const absent = (): Promise<boolean> => Promise.resolve(false);
const check = (
  framework: keyof typeof MODULES | null,
  versions: Record<string, string>,
  launcher: { needsFramework?: boolean } = {},
) =>
  requireFramework(
    planOf(framework, 'some-training:1', 'mine'),
    new Map(Object.entries(versions)),
    launcher,
    absent,
  );

describe('a framework that the image promises', () => {
  it.each([
    ['tensorflow', 'TensorFlow', {}],
    ['mxnet', 'MXNet', {}],
    ['pytorch', 'PyTorch', { needsFramework: true }],
  ] as const)(
    'is missed by name, with the command that brings it: %s',
    async (framework, title, launcher) => {
      await expect(check(framework, {}, launcher)).rejects.toThrow(
        `The image some-training:1 needs ${title}, but the runtime mine has none. Make one that has it: trainyard setup --runtime ${framework}`,
      );
    },
  );

  it('is only missed in words by a plain script of a PyTorch image', async () => {
    expect(await check('pytorch', {})).toContain('needs PyTorch, but the runtime mine has none');
  });

  it.each(['tensorflow', 'tensorflow-cpu', 'intel-tensorflow', 'tf-nightly'])(
    'may be called %s',
    async (name) => {
      expect(await check('tensorflow', { [name]: '2.21.0' })).toBeNull();
    },
  );

  it('is not needed by an image of no framework', async () => {
    expect(await check(null, {})).toBeNull();
  });

  it('is not TensorFlow because a package is named after it', async () => {
    await expect(check('tensorflow', { 'tensorflow-io': '1' })).rejects.toThrow('none');
  });

  it('may lie where only the interpreter finds it', async () => {
    const asked: string[] = [];
    const plan = planOf('tensorflow');
    const found = requireFramework(plan, new Map(), {}, (module) => {
      asked.push(module);
      return Promise.resolve(true);
    });
    expect([await found, asked]).toEqual([null, ['tensorflow']]);
  });
});

test('MXNet beside a numpy that it cannot be imported with is refused before the script starts', async () => {
  await expect(check('mxnet', { mxnet: '1.9.1', numpy: '1.26.4' })).rejects.toThrow(
    'MXNet 1.9.1 of the runtime mine cannot be imported with numpy 1.26.4: it needs numpy below 1.24.',
  );
  expect(await check('mxnet', { mxnet: '1.9.1', numpy: '1.23.5' })).toBeNull();
});

test.each([
  ['pytorch', 'x.dkr.ecr.us-west-2.amazonaws.com/pytorch-training:2.13.0-cpu-py312', '2.13.0+cpu', null],
  ['pytorch', 'pytorch-training:2.13-gpu-py312', '2.13.1+cu130', null],
  [
    'pytorch',
    'pytorch-training:2.3.0-gpu-py311',
    '2.13.0+cpu',
    'The image asks for PyTorch 2.3.0; this runtime has 2.13.0+cpu.',
  ],
  ['pytorch', 'huggingface-pytorch-training:2.1.0-transformers4.36-gpu-py310', '2.1.0', null],
  ['pytorch', 'my-own:latest', '2.13.0', null],
  [
    'mxnet',
    'mxnet-training:1.9.0-cpu-py38',
    '1.9.1',
    'The image asks for MXNet 1.9.0; this runtime has 1.9.1.',
  ],
  [
    'tensorflow',
    'tensorflow-training:2.11.0-cpu-py39',
    '2.21.0',
    'The image asks for TensorFlow 2.11.0; this runtime has 2.21.0, which has no tf.estimator and takes Keras 3 as Keras.',
  ],
] as const)('%s: the image %s on %s', (framework, image, version, expected) => {
  expect(versionNotice(planOf(framework, image), version)).toBe(expected);
});

test('nobody is told of the version of an image that a client chose by itself', () => {
  const plan = { ...planOf('pytorch', 'pytorch-training:2.3.0'), imageChosen: false };
  expect(versionNotice(plan, '2.13.0')).toBeNull();
});

test('Keras 2 is taken where TensorFlow’s own is 3 and tf-keras is there', () => {
  const versions = (tensorflow: string, keras: string) =>
    new Map([
      ['tensorflow-cpu', tensorflow],
      [keras, '1'],
    ]);
  expect(hasLegacyKeras(MODULES.tensorflow, versions('2.21.0', 'tf-keras'))).toBe(true);
  expect(hasLegacyKeras(MODULES.tensorflow, versions('2.21.0', 'keras'))).toBe(false);
  expect(hasLegacyKeras(MODULES.tensorflow, versions('2.15.1', 'tf-keras'))).toBe(false);
});
