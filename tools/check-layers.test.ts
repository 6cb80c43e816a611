import { expect, test } from 'vitest';
import { checkLayers, importsOf } from './check-layers.mjs';

const dependencies = new Map([['cli', new Set(['commander', '@trainyard/sdk'])]]);
const check = (file: string, source: string): string[] =>
  checkLayers(new Map([[file, source]]), dependencies);

test.each([
  ['packages/sdk/src/session.ts', `import { createAwsClient } from '@trainyard/api';`],
  [
    'packages/cli/src/train.ts',
    `import { Command } from 'commander';\nimport { Session } from '@trainyard/sdk';`,
  ],
  [
    'packages/service/src/gateway/server.ts',
    `import { createServer } from 'node:http';\nimport { stop } from '../jobs/commands.ts';`,
  ],
  [
    'packages/service/src/main.ts',
    `import './gateway/server.ts';\nimport './executors/local/local-executor.ts';`,
  ],
  [
    'packages/service/src/executors/local/local-executor.ts',
    `import type { Executor } from '../executor.ts';`,
  ],
  [
    'packages/api/src/sigv4.test.ts',
    `import { createHmac } from 'node:crypto';\nimport { test } from 'vitest';`,
  ],
  [
    'tests/e2e/train.test.ts',
    `import { Session } from '@trainyard/sdk';\nimport { until } from '../support/until.ts';`,
  ],
  [
    'tests/e2e/executor-local.test.ts',
    `import { suite } from '../../packages/service/src/executors/executor.contract.ts';`,
  ],
])('%s may import what lies below it', (file, source) => {
  expect(check(file, source)).toEqual([]);
});

test.each([
  ['packages/api/src/client.ts', `import { sign } from 'node:crypto';`, 'also runs in browsers'],
  [
    'packages/sdk/src/session.ts',
    `import type { Config } from '@trainyard/service';`,
    'may import api, not service',
  ],
  [
    'packages/sdk/src/session.ts',
    `export { x } from '../../api/src/s3.ts';`,
    "import '@trainyard/api' by name",
  ],
  [
    'packages/cli/src/train.ts',
    `import { x } from '@trainyard/sdk/dist/session.js';`,
    "only the package's entry",
  ],
  ['packages/cli/src/train.ts', `import chalk from 'chalk';`, 'not among the dependencies'],
  ['packages/launch/src/main.ts', `const c = await import('commander');`, 'no outside dependency'],
  [
    'packages/service/src/jobs/rules.ts',
    `import { x } from '../gateway/server.ts';`,
    'jobs may import store, placement, not gateway',
  ],
  ['packages/service/src/objects/disk.ts', `import { x } from '../main.ts';`, 'main.ts wires'],
  [
    'packages/service/src/executors/local/relay.ts',
    `import { request } from 'node:http';`,
    'knows nothing of HTTP',
  ],
  ['packages/service/src/jobs/rules.ts', `import { readFileSync } from 'fs';`, "write 'node:fs'"],
  ['packages/service/src/surprise/x.ts', `import { x } from '../jobs/rules.ts';`, 'not in the table'],
  [
    'tests/e2e/train.test.ts',
    `import { x } from '../../packages/service/src/main.ts';`,
    'must not reach into',
  ],
])('%s importing against the layers is reported with the way out', (file, source, reason) => {
  const violations = check(file, source);
  expect(violations).toHaveLength(1);
  expect(violations[0]).toContain(`${file}:1 imports`);
  expect(violations[0]).toContain(reason);
});

test('imports are found over several lines and dynamically, but not in comments, strings and templates', () => {
  const source = [
    `import {`,
    `  a,`,
    `  b, // from 'comment-inside'`,
    `} from 'multi-line';`,
    `// import { x } from 'commented';`,
    `/* import 'commented-block'; */`,
    `const url = "https://example.com"; const lazy = await import('lazy');`,
    `const text = \``,
    `import { x } from 'inside-template';`,
    `\`;`,
    `export * from 'again';`,
  ].join('\n');
  expect(importsOf(source)).toEqual([
    { specifier: 'multi-line', line: 4 },
    { specifier: 'lazy', line: 7 },
    { specifier: 'again', line: 11 },
  ]);
});
