import { parsePythonJson } from './python-json.ts';
import { PythonFloat, type PythonValue } from './python-value.ts';

/**
 * Python's `json.dumps(value)` with its defaults, byte for byte.
 *
 * @throws TypeError for what is not a {@link PythonValue}, naming the path.
 */
export const pythonJson = (value: PythonValue): string => dump(value, ', ', ': ', false, 'value');

/** Python's `json.dumps(value, sort_keys=True, separators=(',', ':'))`: the form of the `SM_*` variables. */
export const compactPythonJson = (value: PythonValue): string => dump(value, ',', ':', true, 'value');

/** {@link pythonJson} of every value: what framework estimators send as HyperParameters. */
export const encodeHyperparameters = (
  values: Readonly<Record<string, PythonValue>>,
): Record<string, string> =>
  Object.fromEntries(
    Object.entries(values).map(([key, value]) => [key, dump(value, ', ', ': ', false, key)]),
  );

/**
 * Decodes one value of `hyperparameters.json` as AWS's toolkit does: Python's `json.loads` once, the raw text
 * when that fails. `1.0` becomes {@link PythonFloat} so that it is printed as Python would.
 */
export function decodeHyperparameter(text: string): PythonValue {
  try {
    return parsePythonJson(text);
  } catch (error) {
    if (error instanceof SyntaxError) return text;
    throw error;
  }
}

function dump(value: PythonValue, comma: string, colon: string, isSorted: boolean, path: string): string {
  if (value === null) return 'null';
  if (typeof value === 'boolean') return String(value);
  if (typeof value === 'string') return quoteJson(value);
  if (isNumeric(value)) return numberText(value, 'NaN', 'Infinity');
  const each = (item: PythonValue, key: string | number) =>
    dump(item, comma, colon, isSorted, `${path}.${key}`);
  if (isList(value)) return `[${value.map(each).join(comma)}]`;
  const keys = keysOf(value, path);
  if (isSorted) keys.sort(compareCodePoints);
  return `{${keys.map((key) => quoteJson(key) + colon + each(value[key]!, key)).join(comma)}}`;
}

/** Python's `repr(value)`. */
export function pythonRepr(value: PythonValue): string {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'string') return quotePython(value);
  if (isNumeric(value)) return numberText(value, 'nan', 'inf');
  if (isList(value)) return `[${value.map(pythonRepr).join(', ')}]`;
  return `{${keysOf(value, 'value')
    .map((key) => `${quotePython(key)}: ${pythonRepr(value[key]!)}`)
    .join(', ')}}`;
}

/** Python's `str(value)`: a string as it is, everything else as {@link pythonRepr}. */
export const pythonStr = (value: PythonValue): string =>
  typeof value === 'string' ? value : pythonRepr(value);

const isNumeric = (value: unknown): value is number | bigint | PythonFloat =>
  typeof value === 'number' || typeof value === 'bigint' || value instanceof PythonFloat;

const isList = (value: PythonValue): value is readonly PythonValue[] => Array.isArray(value);

function keysOf(value: PythonValue, path: string): string[] {
  const prototype = typeof value === 'object' && value !== null ? Object.getPrototypeOf(value) : undefined;
  if (prototype !== null && prototype !== Object.prototype) {
    const found =
      value === undefined ? 'undefined' : typeof value === 'object' ? 'an object of a class' : typeof value;
    throw new TypeError(
      `${path} is ${found}; a hyperparameter is null, boolean, number, string, list or plain object`,
    );
  }
  return Object.keys(value as object);
}

function numberText(value: number | bigint | PythonFloat, nan: string, infinity: string): string {
  if (typeof value === 'bigint') return value.toString();
  if (typeof value === 'number' && Number.isSafeInteger(value))
    return (value + 0).toFixed(0).replace(/^-0$/, '0');
  const float = value instanceof PythonFloat ? value.value : value;
  if (Number.isNaN(float)) return nan;
  if (!Number.isFinite(float)) return float > 0 ? infinity : `-${infinity}`;
  return floatRepr(float);
}

/** Both languages print the shortest digits that read back; only where they switch to exponents differs. */
function floatRepr(float: number): string {
  const sign = float < 0 || Object.is(float, -0) ? '-' : '';
  const [mantissa = '', exponentText] = Math.abs(float).toExponential().split('e');
  const digits = mantissa.replace('.', '');
  const exponent = Number(exponentText);
  if (exponent < -4 || exponent >= 16) {
    const power = String(Math.abs(exponent)).padStart(2, '0');
    return `${sign}${mantissa}e${exponent < 0 ? '-' : '+'}${power}`;
  }
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, '0');
  return `${sign}${whole}.${digits.slice(exponent + 1) || '0'}`;
}

const JSON_ESCAPES: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
};

/** Without the `u` flag, so that a character outside the BMP becomes its two surrogates, as in Python. */
const quoteJson = (text: string): string =>
  `"${text.replace(/["\\]|[^ -~]/g, (unit) => JSON_ESCAPES[unit] ?? `\\u${hexCode(unit.charCodeAt(0), 4)}`)}"`;

const PYTHON_ESCAPES: Readonly<Record<string, string>> = {
  '\\': '\\\\',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
};

/** Not printable for Python: control, format, surrogate, private, unassigned, and all spaces but the plain one. */
function quotePython(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const body = text.replace(/[\\'\n\r\t]|(?! )[\p{C}\p{Z}]/gu, (char) => {
    if (char === "'") return quote === "'" ? "\\'" : char;
    return PYTHON_ESCAPES[char] ?? escapeCodePoint(char.codePointAt(0)!);
  });
  return quote + body + quote;
}

function escapeCodePoint(code: number): string {
  if (code <= 0xff) return `\\x${hexCode(code, 2)}`;
  return code <= 0xffff ? `\\u${hexCode(code, 4)}` : `\\U${hexCode(code, 8)}`;
}

const hexCode = (code: number, width: number) => code.toString(16).padStart(width, '0');

/** UTF-16 order puts U+E000 to U+FFFF behind the characters outside the BMP. */
function compareCodePoints(a: string, b: string): number {
  const [left, right] = [Array.from(a), Array.from(b)];
  for (let at = 0; at < left.length && at < right.length; at++) {
    const difference = left[at]!.codePointAt(0)! - right[at]!.codePointAt(0)!;
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}
