import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { readRuntimePackages, torchVersionOf } from './runtime-packages.ts';

const root = mkdtempSync(join(tmpdir(), 'trainyard-runtime-'));
afterEach(() => rmSync(root, { recursive: true, force: true }));

test('packages are read from the tree of an interpreter, without starting it', async () => {
  const site = join(root, 'lib/python3.12/site-packages');
  for (const name of [
    'torch-2.13.0+cpu.dist-info',
    'Foo_Bar-1.2.dist-info',
    'old-0.1-py3.12.egg-info',
    'torch',
  ]) {
    mkdirSync(join(site, name), { recursive: true });
  }
  writeFileSync(
    join(site, 'torch/version.py'),
    "from typing import Optional\n__version__ = '2.13.0+cpu'\ndebug = False\n",
  );
  const found = await readRuntimePackages(join(root, 'bin/python'));
  expect(found).toMatchObject({
    pythonName: 'python3.12',
    siteDirectories: [site],
    torchVersion: '2.13.0+cpu',
  });
  expect([...found.versions]).toEqual(
    expect.arrayContaining([
      ['foo-bar', '1.2'],
      ['old', '0.1'],
      ['torch', '2.13.0+cpu'],
    ]),
  );
});

test('an interpreter without packages has none', async () => {
  expect(await readRuntimePackages(join(root, 'nowhere/bin/python'))).toMatchObject({
    siteDirectories: [],
    torchVersion: null,
  });
  expect(torchVersionOf('nothing')).toBeNull();
});
