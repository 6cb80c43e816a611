import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { serveDriverSsh } from './driver-ssh.ts';
import { Layout } from './layout.ts';

const root = mkdtempSync(join(tmpdir(), 'trainyard-drivers-'));
afterEach(() => rmSync(root, { recursive: true, force: true }));

const DRIVERS = join(root, 'input/data/sm_drivers/distributed_drivers');

test('the stand-in for ssh lies beside AWS’s MPI driver, and nowhere else', async () => {
  mkdirSync(DRIVERS, { recursive: true });
  await serveDriverSsh(new Layout(root), [{ name: 'train' }]);
  expect(existsSync(join(DRIVERS, 'paramiko.py'))).toBe(false);
  await serveDriverSsh(new Layout(root), [{ name: 'train' }, { name: 'sm_drivers' }]);
  expect(existsSync(join(DRIVERS, 'paramiko.py'))).toBe(true);
});

test('a channel of that name without such drivers is left as it is', async () => {
  mkdirSync(join(root, 'input/data/sm_drivers'), { recursive: true });
  await serveDriverSsh(new Layout(root), [{ name: 'sm_drivers' }]);
  expect(existsSync(DRIVERS)).toBe(false);
});
