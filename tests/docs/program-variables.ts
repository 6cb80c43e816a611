import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../support/service.ts';

const NAME = '(TRAINYARD_[A-Z_]+)';
/** How each language reads a variable of its environment. */
const READS = {
  typescript: [
    new RegExp(`\\b(?:env|environment)(?:\\.|\\[['"])${NAME}`, 'g'),
    new RegExp(`os\\.environb?\\[['"]${NAME}`, 'g'),
  ],
  python: [
    new RegExp(`\\b(?:environb?|environment)(?:\\.get\\(|\\[)b?['"]${NAME}`, 'g'),
    new RegExp(`\\$\\{?${NAME}`, 'g'),
  ],
  shell: [new RegExp(`\\$\\{?${NAME}`, 'g')],
};
const SOURCES: readonly [pattern: string, language: keyof typeof READS][] = [
  ['packages/*/src/**/*.ts', 'typescript'],
  ['packages/launch/init/*.py', 'python'],
  ['bin/trainyard', 'shell'],
  ['script/bootstrap', 'shell'],
  ['script/quickstart', 'shell'],
  ['script/test', 'shell'],
];

/** Names of the variables `TRAINYARD_…` that our programs read, sorted. */
export function variablesRead(): string[] {
  const found = SOURCES.flatMap(([pattern, language]) =>
    globSync(pattern, { cwd: ROOT })
      .filter((path) => !/\.test\.ts$/.test(path))
      .flatMap((path) => {
        const source = readFileSync(join(ROOT, path), 'utf8');
        return READS[language].flatMap((read) => [...source.matchAll(read)].map((match) => match[1]!));
      }),
  );
  return [...new Set(found)].sort();
}
