import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT } from '../support/service.ts';
import type { Page } from './markdown.ts';

/**
 * Type-checks the TypeScript of pages against the built packages. The fences of a page are one module, each on the
 * lines where the page has it.
 *
 * @returns the compiler's complaints, empty when there are none
 */
export async function checkTypes(pages: readonly Page[]): Promise<string> {
  const parent = join(ROOT, '.trainyard');
  mkdirSync(parent, { recursive: true });
  // Below the repository, so that the packages are found by their names.
  const folder = mkdtempSync(join(parent, 'docs-types-'));
  try {
    for (const page of pages)
      writeFileSync(join(folder, `${page.path.replaceAll('/', '-')}.mts`), moduleOf(page));
    const compilerOptions = {
      strict: true,
      noUncheckedIndexedAccess: true,
      noEmit: true,
      target: 'es2024',
      lib: ['es2024', 'dom', 'dom.iterable', 'dom.asynciterable'],
      module: 'nodenext',
      types: ['node'],
      skipLibCheck: true,
    };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.mts'] }));
    const run = promisify(execFile)(
      join(ROOT, 'node_modules/.bin/tsc'),
      ['-p', folder, '--pretty', 'false'],
      { cwd: folder },
    );
    return await run.then(
      () => '',
      (error: { stdout?: string; message: string }) => error.stdout || error.message,
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function moduleOf({ text, fences }: Page): string {
  const lines = text.split('\n').map(() => '');
  for (const { language, body, line } of fences) {
    if (language !== 'ts') continue;
    for (const [offset, code] of body.trimEnd().split('\n').entries()) lines[line - 1 + offset] = code;
  }
  return `${lines.join('\n')}\nexport {};\n`;
}
