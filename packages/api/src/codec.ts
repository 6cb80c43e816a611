import type { ServiceModel } from './model.ts';
import { isJsonObject, modelOf, rootShape, type ServiceName, shapeOf } from './models.ts';

/**
 * The JSON form of an operation's output: members outside the model are left out, undefined and null too;
 * `Date` becomes epoch seconds with milliseconds as fraction, `NaN` and infinities become text.
 *
 * @throws TypeError when a value does not fit the model: our fault, not the caller's.
 */
export const serializeResponse = (service: ServiceName, operation: string, value: unknown): unknown =>
  serializeRoot(service, operation, 'output', value);

/** The JSON form of a request, for clients. Constraints are left to the service. @throws TypeError as above. */
export const serializeRequest = (service: ServiceName, operation: string, value: unknown): unknown =>
  serializeRoot(service, operation, 'input', value);

function serializeRoot(
  service: ServiceName,
  operation: string,
  side: 'input' | 'output',
  value: unknown,
): unknown {
  const root = rootShape(service, operation, side);
  return root === undefined ? {} : serialize(root, value, operation, modelOf(service));
}

function serialize(name: string, value: unknown, path: string, model: ServiceModel): unknown {
  const shape = shapeOf(model, name);
  const misfit = () =>
    new TypeError(`${path} does not fit ${name}: a ${shape.type} is needed, got ${describe(value)}`);
  switch (shape.type) {
    case 'structure': {
      if (!isJsonObject(value)) throw misfit();
      const entries = Object.entries(shape.members!).flatMap(([member, memberShape]) => {
        const given = Object.hasOwn(value, member) ? value[member] : undefined;
        if (given !== undefined && given !== null) {
          return [[member, serialize(memberShape, given, `${path}.${member}`, model)] as const];
        }
        if (shape.required?.includes(member))
          throw new TypeError(`${path}.${member} is required but missing`);
        return [];
      });
      return Object.fromEntries(entries);
    }
    case 'list':
      if (!Array.isArray(value)) throw misfit();
      return value.map((item, at) => serialize(shape.member!, item, `${path}[${at}]`, model));
    case 'map':
      if (!isJsonObject(value)) throw misfit();
      return Object.fromEntries(
        Object.entries(value).map(([key, item]) => [
          key,
          serialize(shape.value!, item, `${path}.${key}`, model),
        ]),
      );
    case 'timestamp':
      if (!(value instanceof Date) || Number.isNaN(value.getTime())) throw misfit();
      return value.getTime() / 1000;
    case 'float':
      if (typeof value !== 'number') throw misfit();
      return Number.isFinite(value) ? value : String(value);
    case 'integer':
    case 'long':
      if (!Number.isSafeInteger(value)) throw misfit();
      return value;
    default:
      if (typeof value !== shape.type) throw misfit();
      return value;
  }
}

const describe = (value: unknown) =>
  value === null
    ? 'null'
    : Array.isArray(value)
      ? 'a list'
      : value instanceof Date
        ? 'a date'
        : `${typeof value} ${String(value)}`;

/**
 * Reads a response leniently, as AWS clients must: timestamps become `Date`, nulls and unknown members are
 * dropped, values of another type are passed on as they are.
 */
export function parseResponse<T>(service: ServiceName, operation: string, body: unknown): T {
  const root = rootShape(service, operation, 'output');
  return (root === undefined ? {} : read(root, body, modelOf(service))) as T;
}

function read(name: string, value: unknown, model: ServiceModel): unknown {
  const shape = shapeOf(model, name);
  switch (shape.type) {
    case 'structure':
      if (!isJsonObject(value)) return value;
      return Object.fromEntries(
        Object.entries(shape.members!)
          .filter(([member]) => Object.hasOwn(value, member) && value[member] !== null)
          .map(([member, memberShape]) => [member, read(memberShape, value[member], model)]),
      );
    case 'list':
      return Array.isArray(value) ? value.map((item) => read(shape.member!, item, model)) : value;
    case 'map':
      if (!isJsonObject(value)) return value;
      return Object.fromEntries(
        Object.entries(value).map(([key, item]) => [key, read(shape.value!, item, model)]),
      );
    case 'timestamp':
      return typeof value === 'number'
        ? new Date(Math.round(value * 1000))
        : typeof value === 'string'
          ? new Date(value)
          : value;
    case 'float':
      return typeof value === 'string' ? Number(value) : value;
    default:
      return value;
  }
}
