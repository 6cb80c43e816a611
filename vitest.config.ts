import { defineConfig } from 'vitest/config';

// Everything that starts processes runs one file at a time: two cores are the smallest machine we support.
const spawning = { pool: 'forks', fileParallelism: false, maxWorkers: 1 } as const;
const resolve = { conditions: ['@trainyard/source', 'node', 'import', 'default'] };
const ssr = { resolve: { conditions: ['@trainyard/source', 'node', 'import', 'default'] } };

export default defineConfig({
  test: {
    projects: [
      { resolve, ssr, test: { name: 'unit', include: ['packages/*/src/**/*.test.ts', 'tools/**/*.test.ts'], testTimeout: 30_000 } },
      { resolve, ssr, test: { name: 'contract', include: ['tests/contract/**/*.test.ts'], testTimeout: 120_000, hookTimeout: 120_000, ...spawning } },
      { resolve, ssr, test: { name: 'e2e', include: ['tests/e2e/**/*.test.ts'], testTimeout: 180_000, hookTimeout: 120_000, ...spawning } },
      { resolve, ssr, test: { name: 'faults', include: ['tests/faults/**/*.test.ts'], testTimeout: 240_000, hookTimeout: 120_000, ...spawning } },
    ],
  },
});
