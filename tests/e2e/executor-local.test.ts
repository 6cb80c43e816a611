import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { executorContract } from '../../packages/service/src/executors/executor.contract.ts';
import { initTests } from './local-executor/init-tests.ts';
import { isolationTests } from './local-executor/isolation-tests.ts';
import { INIT_DIR, LocalHarness } from './local-executor/local-harness.ts';

// The rung `user-namespaces` needs a user who is not root: executor-local-user.test.ts.
for (const rung of ['namespaces', 'processes'] as const) {
  executorContract(`the local executor, rung ${rung}`, () => LocalHarness.open(rung));
  initTests(rung);
}
isolationTests('namespaces');

it('the rules of init hold by themselves', () => {
  const tests = join(INIT_DIR, 'tests');
  const { status, stderr } = spawnSync('python3', ['-m', 'unittest', 'discover', '-s', tests], {
    encoding: 'utf8',
  });
  expect({ status, stderr }).toMatchObject({
    status: 0,
    stderr: expect.stringMatching(/^Ran [1-9]\d* tests/m),
  });
});
