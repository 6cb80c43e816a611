import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PROBLEMS } from './problem-catalogue.ts';

test('the catalogue has every id that the code uses and no other', () => {
  const used = new Set<string>();
  for (const name of readdirSync(import.meta.dirname, { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.ts') || /\.test(-d)?\.ts$|problem-catalogue/.test(name)) continue;
    const text = readFileSync(join(import.meta.dirname, name), 'utf8');
    for (const [, id = ''] of text.matchAll(/'([EW]-[A-Z0-9-]+)'/g)) used.add(id);
  }
  expect([...used].sort()).toEqual(Object.keys(PROBLEMS));
});
