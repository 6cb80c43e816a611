// Writes the tables and help texts of docs/ anew from the code and the build. The catalogue of codes in docs/errors.md
// is not written: its advice is a person's.
// usage: npm run build && node --conditions=@trainyard/source tests/docs/update.ts
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../support/service.ts';
import { GENERATED_TABLES, helpOf } from './generated.ts';
import { commandsOfCli, readPage, section } from './markdown.ts';

function rewrite(path: string, heading: string, change: (part: string) => string): void {
  const file = join(ROOT, path);
  const part = section(readPage(path), heading);
  writeFileSync(
    file,
    readFileSync(file, 'utf8').replace(part, () => change(part)),
  );
}

for (const { path, heading, rows } of GENERATED_TABLES) {
  const lines = rows().map((cells) => `| ${cells.join(' | ')} |\n`);
  rewrite(path, heading, (part) =>
    part.replace(/((?:^\| .*\n){2})(?:^\| .*\n)*/m, (_, head: string) => head + lines.join('')),
  );
}
for (const words of commandsOfCli(readPage('docs/cli.md'))) {
  const help = await helpOf(words);
  rewrite('docs/cli.md', `trainyard ${words}`.trim(), (part) =>
    part.replace(/^```text\n[^]*?^```$/m, () => `\`\`\`text\n${help}\n\`\`\``),
  );
}
