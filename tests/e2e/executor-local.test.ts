import { executorContract } from '../../packages/service/src/executors/executor.contract.ts';
import { isolationTests } from './local-executor/isolation-tests.ts';
import { LocalHarness } from './local-executor/local-harness.ts';

for (const rung of ['namespaces', 'user-namespaces', 'processes'] as const) {
  executorContract(`the local executor, rung ${rung}`, () => LocalHarness.open(rung));
}
isolationTests('namespaces');
