import { executorContract } from '../../packages/service/src/executors/executor.contract.ts';
import { initTests } from './local-executor/init-tests.ts';
import { isolationTests } from './local-executor/isolation-tests.ts';
import { LocalHarness } from './local-executor/local-harness.ts';

// What a user without privileges gets, also where the tests run as root: this file has a process of its own, which becomes such a user for good.
const NOBODY = 65_534;
if (process.getuid?.() === 0) {
  process.setgroups?.([]);
  process.setgid?.(NOBODY);
  process.setuid?.(NOBODY);
}

executorContract('the local executor, rung user-namespaces', () => LocalHarness.open('user-namespaces'));
initTests('user-namespaces');
isolationTests('user-namespaces');
