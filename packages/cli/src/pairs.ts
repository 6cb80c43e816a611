import { decodeHyperparameter, type PythonValue } from '@trainyard/api';
import { UserError } from './user-error.ts';

/**
 * `NAME=VALUE` arguments of an option that may be repeated, in their order.
 * @throws UserError for one without `=`, without a name, or with a name that came before
 */
export function parsePairs(option: string, texts: readonly string[] = []): Record<string, string> {
  const pairs: Record<string, string> = {};
  for (const text of texts) {
    const equals = text.indexOf('=');
    if (equals < 1) throw new UserError(`${option} is ${text}; write ${option} NAME=VALUE.`);
    const name = text.slice(0, equals);
    if (name in pairs)
      throw new UserError(`${option} ${name} is given twice: ${pairs[name]} and ${text.slice(equals + 1)}.`);
    pairs[name] = text.slice(equals + 1);
  }
  return pairs;
}

/** A value is JSON if it reads as JSON, else text; so the script sees what the user typed: `1.0` stays `1.0`. */
export function parseHyperparameters(option: string, texts?: readonly string[]): Record<string, PythonValue> {
  const pairs = Object.entries(parsePairs(option, texts));
  return Object.fromEntries(pairs.map(([name, text]) => [name, decodeHyperparameter(text)]));
}

/** @throws UserError unless the text is a whole number of at least `least` */
export function wholeNumber(option: string, least: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (Number.isSafeInteger(value) && value >= least && text.trim() !== '') return value;
    throw new UserError(`${option} is ${text}; it must be a whole number of at least ${least}.`);
  };
}

/** For commander: collects the values of an option that may be repeated. */
export function collect(text: string, earlier: readonly string[] = []): string[] {
  return [...earlier, text];
}
