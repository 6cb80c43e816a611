import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../support/service.ts';

/** A member of an options interface as its doc comment tells it: cells of a table row. */
export type OptionRow = [name: string, defaultValue: string, text: string];

/** The members of an interface in a source file, in their order. @throws Error when there is no such interface */
export function optionRows(file: string, name: string): OptionRow[] {
  const source = readFileSync(join(ROOT, file), 'utf8');
  const body = new RegExp(`^export interface ${name}\\b[^{]*\\{\\n([^]*?)^\\}`, 'm').exec(source)?.[1];
  if (body === undefined) throw new Error(`${file} has no interface ${name}`);
  const members = body.matchAll(/(?: {2}\/\*\*([^]*?)\*\/\n)? {2}(\w+)(\??): /g);
  return [...members].map(([, comment = '', member = '', optional]) => {
    const words = comment
      .replace(/^ *\*? ?/gm, '')
      .replace(/\s+/g, ' ')
      .replace(/\{@link (\w+)\}/g, '`$1`');
    const [text = '', defaultValue = ''] = words.split('@default').map((part) => part.trim());
    return [`\`${member}\``, defaultValue || (optional ? '' : 'required'), text];
  });
}
