import { PythonFloat, type PythonValue } from './python-value.ts';

/** Python refuses to read an integer of more digits. */
const MAX_INT_DIGITS = 4300;

const SPACE = /[ \t\n\r]*/y;
const NUMBER = /(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?/y;
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON refuses them inside strings
// oxlint-disable-next-line no-control-regex
const STRING = /"((?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*)"/y;

const CONSTANTS: readonly (readonly [string, PythonValue])[] = [
  ['null', null],
  ['true', true],
  ['false', false],
  ['NaN', Number.NaN],
  ['Infinity', Number.POSITIVE_INFINITY],
  ['-Infinity', Number.NEGATIVE_INFINITY],
];

/**
 * Python's `json.loads`, which differs from JavaScript's: `NaN` and infinities are values, integers keep all
 * digits, and `1.0` is not `1`.
 *
 * @throws SyntaxError where Python raises ValueError.
 */
export function parsePythonJson(text: string): PythonValue {
  let at = 0;

  const fail = (): never => {
    throw new SyntaxError(`no JSON for Python at character ${at}`);
  };
  const match = (pattern: RegExp) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at += found[0].length;
    return found;
  };
  const take = (token: string) => {
    const isThere = text.startsWith(token, at);
    if (isThere) at += token.length;
    return isThere;
  };
  const skipSpace = () => match(SPACE);

  const string = (): string => {
    const found = match(STRING);
    // What the pattern lets through is JSON's own string syntax.
    return found ? (JSON.parse(found[0]) as string) : fail();
  };
  const number = (): PythonValue => {
    const found = match(NUMBER);
    if (!found) return fail();
    const [whole, digits = '', fraction, exponent] = found;
    if (fraction === undefined && exponent === undefined) {
      if (digits.replace('-', '').length > MAX_INT_DIGITS) return fail();
      const integer = Number(digits);
      return Number.isSafeInteger(integer) ? integer + 0 || 0 : BigInt(digits);
    }
    const float = Number(whole);
    return Number.isSafeInteger(float) ? new PythonFloat(float) : float;
  };
  /** Items up to the closing token, separated by commas; a comma before the end is refused. */
  const items = (close: string, item: () => void) => {
    skipSpace();
    if (take(close)) return;
    do {
      skipSpace();
      item();
      skipSpace();
    } while (take(','));
    if (!take(close)) fail();
  };
  const value = (): PythonValue => {
    if (text[at] === '"') return string();
    if (take('[')) {
      const list: PythonValue[] = [];
      items(']', () => list.push(value()));
      return list;
    }
    if (take('{')) {
      const entries: [string, PythonValue][] = [];
      items('}', () => {
        const key = string();
        skipSpace();
        if (!take(':')) fail();
        skipSpace();
        entries.push([key, value()]);
      });
      return Object.fromEntries(entries);
    }
    const constant = CONSTANTS.find(([token]) => take(token));
    return constant ? constant[1] : number();
  };

  skipSpace();
  const result = value();
  skipSpace();
  return at === text.length ? result : fail();
}
