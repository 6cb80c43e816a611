import { executorContract } from '../../packages/service/src/executors/executor.contract.ts';
import { initTests } from './local-executor/init-tests.ts';
import { isolationTests } from './local-executor/isolation-tests.ts';
import { LocalHarness } from './local-executor/local-harness.ts';

// The rung `user-namespaces` needs a user who is not root: executor-local-user.test.ts.
for (const rung of ['namespaces', 'processes'] as const) {
  executorContract(`the local executor, rung ${rung}`, () => LocalHarness.open(rung));
  initTests(rung);
}
isolationTests('namespaces');
