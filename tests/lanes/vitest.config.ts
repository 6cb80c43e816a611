import { defineConfig } from 'vitest/config';

// Heavier than the test command may be; run by hand: npx vitest run --config tests/lanes/vitest.config.ts
const conditions = ['@trainyard/source', 'node', 'import', 'default'];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ['tests/lanes/**/*.test.ts'],
    root: new URL('../..', import.meta.url).pathname,
    testTimeout: 600_000,
    hookTimeout: 1_800_000,
    pool: 'forks',
    fileParallelism: false,
    maxWorkers: 1,
  },
});
