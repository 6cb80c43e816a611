import { brokenConstraints, constraintsOf } from './constraints.ts';
import { jsonError } from './errors.ts';
import type { ServiceModel, Shape } from './model.ts';
import { isJsonObject, modelOf, rootShape, type ServiceName, shapeOf } from './models.ts';

export interface ParseOptions {
  /**
   * Value sets that replace those of the model, by shape name: `{ TrainingInstanceType: ['ml.local'] }`.
   * Without one, `TrainingInstanceType` takes every well-formed name.
   */
  enums?: Readonly<Record<string, readonly string[]>>;
}

interface Context {
  model: ServiceModel;
  enums: NonNullable<ParseOptions['enums']>;
  violations: string[];
}

/**
 * Checks the parsed JSON body of a request against the model and copies the members that the model has; unknown
 * members and nulls are dropped. Timestamps become `Date`. The result shares nothing with the body.
 *
 * @throws ServiceError `SerializationException` for the first value of the wrong JSON type, else
 * `ValidationException` with all violated constraints in AWS's words; `data.violations` lists them.
 */
export function parseRequest<T>(
  service: ServiceName,
  operation: string,
  body: unknown,
  options: ParseOptions = {},
): T {
  const context: Context = { model: modelOf(service), enums: options.enums ?? {}, violations: [] };
  const root = rootShape(service, operation, 'input');
  const parsed = root === undefined ? {} : parseValue(root, body, '', context);
  const { violations } = context;
  if (violations.length > 0) {
    const count = `${violations.length} validation error${violations.length === 1 ? '' : 's'} detected`;
    throw jsonError('ValidationException', { message: `${count}: ${violations.join('; ')}`, violations });
  }
  return parsed as T;
}

function parseValue(shapeName: string, value: unknown, path: string, context: Context): unknown {
  const shape = effectiveShape(shapeName, context);
  switch (shape.type) {
    case 'structure':
      return parseStructure(shape, value, path, context);
    case 'list':
      return parseList(shape, value, path, context);
    case 'map':
      return parseMap(shape, value, path, context);
    default: {
      const parsed = parseScalar(shape, value, path);
      report(brokenConstraints(shape, parsed), value, path, context);
      return parsed;
    }
  }
}

function parseStructure(shape: Shape, value: unknown, path: string, context: Context): unknown {
  if (!isJsonObject(value)) throw wrongType(value, 'Structure', path);
  const parsed: Record<string, unknown> = {};
  for (const [member, memberShape] of Object.entries(shape.members!)) {
    const memberPath = path === '' ? lowerFirst(member) : `${path}.${lowerFirst(member)}`;
    const given = Object.hasOwn(value, member) ? value[member] : undefined;
    if (given !== undefined && given !== null) {
      parsed[member] = parseValue(memberShape, given, memberPath, context);
    } else if (shape.required?.includes(member)) {
      context.violations.push(violation('null', memberPath, 'Member must not be null'));
    }
  }
  return parsed;
}

function parseList(shape: Shape, value: unknown, path: string, context: Context): unknown {
  if (!Array.isArray(value)) throw wrongType(value, 'List', path);
  report(brokenConstraints(shape, value.length), value, path, context);
  const item = effectiveShape(shape.member!, context);
  if (isNested(item)) {
    return value.map((entry, at) => {
      const itemPath = `${path}.${at + 1}.member`;
      if (entry !== null) return parseValue(shape.member!, entry, itemPath, context);
      context.violations.push(violation('null', itemPath, 'Member must not be null'));
      return undefined;
    });
  }
  const parsed = value.map((entry, at) =>
    entry === null ? null : parseScalar(item, entry, `${path}.${at + 1}.member`),
  );
  reportAll('Member', item, parsed, value, path, context);
  return parsed;
}

/** `__proto__` is a key like any other: `fromEntries` defines it as the map's own. */
function parseMap(shape: Shape, value: unknown, path: string, context: Context): unknown {
  if (!isJsonObject(value)) throw wrongType(value, 'Map', path);
  const keys = Object.keys(value);
  report(brokenConstraints(shape, keys.length), value, path, context);
  const item = effectiveShape(shape.value!, context);
  const entryPath = (key: string) => `${path}.${key}`;
  const parsed = keys.map((key) => {
    if (value[key] === null) return null;
    return isNested(item)
      ? parseValue(shape.value!, value[key], entryPath(key), context)
      : parseScalar(item, value[key], entryPath(key));
  });
  reportAll('Map keys', effectiveShape(shape.key!, context), keys, value, path, context);
  if (!isNested(item) || parsed.includes(null)) reportAll('Map value', item, parsed, value, path, context);
  return Object.fromEntries(keys.map((key, at) => [key, parsed[at]]));
}

const isNested = ({ type }: Shape) => type === 'structure' || type === 'list' || type === 'map';

function parseScalar(shape: Shape, value: unknown, path: string): unknown {
  switch (shape.type) {
    case 'string':
      if (typeof value === 'string') return value;
      throw wrongType(value, 'String', path);
    case 'boolean':
      if (typeof value === 'boolean') return value;
      throw wrongType(value, 'Boolean', path);
    case 'integer':
      if (Number.isInteger(value) && Math.abs(value as number) <= 0x7fffffff) return value;
      throw wrongType(value, 'Integer', path);
    case 'long':
      if (Number.isSafeInteger(value)) return value;
      throw wrongType(value, 'Long', path);
    case 'float':
      if (typeof value === 'number') return value;
      if (value === 'NaN' || value === 'Infinity' || value === '-Infinity') return Number(value);
      throw wrongType(value, 'Float', path);
    case 'timestamp': {
      const at = new Date(
        typeof value === 'number' ? Math.round(value * 1000) : typeof value === 'string' ? value : Number.NaN,
      );
      if (!Number.isNaN(at.getTime())) return at;
      throw wrongType(value, 'Timestamp', path);
    }
    default:
      throw new TypeError(`${shape.type} is not a scalar`);
  }
}

function effectiveShape(name: string, { model, enums }: Context): Shape {
  const replaced = Object.hasOwn(enums, name) ? enums[name] : undefined;
  return replaced ? { type: 'string', enum: replaced } : shapeOf(model, name);
}

function report(broken: string[], value: unknown, path: string, { violations }: Context): void {
  for (const constraint of broken) violations.push(violation(echo(value), path, constraint));
}

/** Of a list's or map's entries AWS names neither the place nor the broken rule: one violation with all rules. */
function reportAll(
  subject: 'Member' | 'Map keys' | 'Map value',
  shape: Shape,
  entries: readonly unknown[],
  whole: unknown,
  path: string,
  { violations }: Context,
): void {
  const hasNull = entries.includes(null);
  if (!hasNull && !entries.some((entry) => brokenConstraints(shape, entry).length > 0)) return;
  const rules = [...constraintsOf(shape), ...(hasNull ? ['Member must not be null'] : [])];
  violations.push(violation(echo(whole), path, `${subject} must satisfy constraint: [${rules.join(', ')}]`));
}

const violation = (text: string, path: string, constraint: string) =>
  `Value ${text} at '${path}' failed to satisfy constraint: ${constraint}`;

/** Coral, AWS's server framework, names members after Java fields. */
const lowerFirst = (member: string) => member.charAt(0).toLowerCase() + member.slice(1);

const echo = (value: unknown) => `'${java(value)}'`;

/** Far deeper than any shape; unknown members may nest further and must not exhaust the stack. */
const ECHO_DEPTH = 12;

/** As Java's toString prints lists and maps. */
function java(value: unknown, depth = 0): string {
  if (depth > ECHO_DEPTH) return '…';
  if (Array.isArray(value)) return `[${value.map((item) => java(item, depth + 1)).join(', ')}]`;
  if (!isJsonObject(value)) return String(value);
  return `{${Object.keys(value)
    .map((key) => `${key}=${java(value[key], depth + 1)}`)
    .join(', ')}}`;
}

const JSON_TOKENS: Readonly<Record<string, string>> = {
  string: 'STRING_VALUE',
  number: 'NUMBER_VALUE',
  boolean: 'BOOLEAN_VALUE',
};

function wrongType(value: unknown, wanted: string, path: string) {
  const found = Array.isArray(value) ? 'START_ARRAY' : (JSON_TOKENS[typeof value] ?? 'START_OBJECT');
  const shown = typeof value === 'number' ? ` ${value}` : '';
  const where = path === '' ? 'The request body' : `'${path}'`;
  return jsonError('SerializationException', {
    message: `${where}: ${found}${shown} can not be converted to ${/^[AEIOU]/.test(wanted) ? 'an' : 'a'} ${wanted}`,
    path,
    expected: wanted,
  });
}
