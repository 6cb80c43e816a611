import { expect, test } from 'vitest';
import { RECIPES } from './recipe.ts';

const laptop = { isCuda: false, platform: 'linux', arch: 'x64' } as const;

test.each([
  ['linux', 'x64', false, 'tensorflow-cpu==2.21.0'],
  ['darwin', 'arm64', false, 'tensorflow==2.21.0'],
  ['linux', 'arm64', false, 'tensorflow==2.21.0'],
  ['linux', 'x64', true, 'tensorflow[and-cuda]==2.21.0'],
] as const)('TensorFlow on %s %s, CUDA %s, is %s', (platform, arch, isCuda, requirement) => {
  expect(RECIPES['tensorflow']!.requirementFor({ platform, arch, isCuda })).toBe(requirement);
});

test('an environment with TensorFlow stands for the runtime of its age alone', () => {
  for (const [version, runtime] of [
    ['1.15.5', 'tensorflow-2.15'],
    ['2.15.1', 'tensorflow-2.15'],
    ['2.16.0', 'tensorflow'],
    ['2.21.0', 'tensorflow'],
  ] as const) {
    const fitting = ['tensorflow', 'tensorflow-2.15'].filter((name) => RECIPES[name]!.fits(version));
    expect(fitting, version).toEqual([runtime]);
  }
});

test.each(Object.entries(RECIPES))('%s names the distribution that tells its version', (_, recipe) => {
  const names = [recipe.requirementFor(laptop), recipe.requirementFor({ ...laptop, isCuda: true })].map(
    (requirement) => requirement.replace(/\[.*\]/, '').replace(/==.*/, ''),
  );
  expect(recipe.distributions).toEqual(expect.arrayContaining(names));
});
