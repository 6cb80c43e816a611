import type { PythonValue } from '@trainyard/api';
import { PythonFloat, pythonStr } from '@trainyard/api';

/**
 * User hyperparameters as command line, in the words of AWS's toolkit: keys sorted by code point, `--key` (or `-k`
 * for one letter), then the value; always two items each. AWS joins them and hands them to a shell; here every
 * item reaches the script as it stands.
 */
export function scriptArguments(parameters: Readonly<Record<string, PythonValue>>): string[] {
  return sortedEntries(parameters).flatMap(([key, value]) => [argumentName(key), argumentValue(value)]);
}

const argumentName = (key: string): string =>
  key === '' ? '' : Array.from(key).length > 1 ? `--${key}` : `-${key}`;

function argumentValue(value: PythonValue): string {
  if (value === null) return '';
  if (isObject(value)) {
    return sortedEntries(value)
      .map(([key, member]) => `${key}=${pythonStr(member)}`)
      .join(',');
  }
  return pythonStr(value);
}

function isObject(value: PythonValue): value is { readonly [key: string]: PythonValue } {
  return (
    typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof PythonFloat)
  );
}

/** Python sorts strings by code point, JavaScript by UTF-16 unit. */
function sortedEntries(values: Readonly<Record<string, PythonValue>>): [string, PythonValue][] {
  return Object.entries(values).sort(([a], [b]) => compareCodePoints(a, b));
}

export function compareCodePoints(a: string, b: string): number {
  const left = Array.from(a);
  const right = Array.from(b);
  for (let index = 0; index < Math.min(left.length, right.length); index += 1) {
    const difference = left[index]!.codePointAt(0)! - right[index]!.codePointAt(0)!;
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}
