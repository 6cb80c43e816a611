import type { Shape } from './model.ts';

/** Beyond this a pattern is not tried, so that no text can make a regular expression slow: its length is refused already. */
const PATTERN_LENGTH_LIMIT = 8192;

const compiled = new Map<string, RegExp>();

/** Published patterns are not anchored and must match the whole value. */
export function compilePattern(shape: Shape): RegExp {
  const source = shape.regex ?? shape.pattern!;
  let pattern = compiled.get(source);
  if (!pattern) compiled.set(source, (pattern = new RegExp(`^(?:${source})$`, 'u')));
  return pattern;
}

/** In code points, as the service counts; `undefined` for values without a size. */
function sizeOf(shape: Shape, value: unknown): number | undefined {
  if (typeof value === 'number') return value;
  return shape.type === 'string' ? codePoints(value as string) : undefined;
}

function codePoints(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

const lengthWord = ({ type }: Shape) =>
  type === 'integer' || type === 'long' || type === 'float' ? 'value' : 'length';

const atMost = (shape: Shape) => `Member must have ${lengthWord(shape)} less than or equal to ${shape.max}`;
const atLeast = (shape: Shape) =>
  `Member must have ${lengthWord(shape)} greater than or equal to ${shape.min}`;
const oneOf = ({ enum: values = [] }: Shape) => `Member must satisfy enum value set: [${values.join(', ')}]`;
const matching = (shape: Shape) =>
  `Member must satisfy regular expression pattern: ${shape.printed ?? shape.pattern}`;

/** Every rule of a shape in AWS's words, in the order AWS lists them. */
export const constraintsOf = (shape: Shape): string[] => [
  ...(shape.enum ? [oneOf(shape)] : []),
  ...(shape.max === undefined ? [] : [atMost(shape)]),
  ...(shape.min === undefined ? [] : [atLeast(shape)]),
  ...(shape.pattern === undefined ? [] : [matching(shape)]),
];

/** The rules that a value breaks: of a list or map give the number of entries. */
export function brokenConstraints(shape: Shape, value: unknown): string[] {
  const broken: string[] = [];
  const size = sizeOf(shape, value);
  if (shape.enum && !shape.enum.includes(value as string)) broken.push(oneOf(shape));
  if (shape.pattern !== undefined && size !== undefined && size <= PATTERN_LENGTH_LIMIT) {
    if (!compilePattern(shape).test(value as string)) broken.push(matching(shape));
  }
  if (size !== undefined && shape.max !== undefined && size > shape.max) broken.push(atMost(shape));
  if (size !== undefined && shape.min !== undefined && size < shape.min) broken.push(atLeast(shape));
  return broken;
}
