import { logsModel, logsOperationNames } from './generated/logs-model.ts';
import { sagemakerModel, sagemakerOperationNames } from './generated/sagemaker-model.ts';
import { stsModel, stsOperationNames } from './generated/sts-model.ts';
import type { ServiceModel, Shape } from './model.ts';

export type ServiceName = 'sagemaker' | 'logs' | 'sts';

const MODELS: Readonly<Record<ServiceName, ServiceModel>> = {
  sagemaker: sagemakerModel,
  logs: logsModel,
  sts: stsModel,
};

const KNOWN: Readonly<Record<ServiceName, ReadonlySet<string>>> = {
  sagemaker: new Set(sagemakerOperationNames),
  logs: new Set(logsOperationNames),
  sts: new Set(stsOperationNames),
};

/** The generated table of a service. */
export const modelOf = (service: ServiceName): ServiceModel => MODELS[service];

/** `served`: has a table here. `known`: in AWS's model, not served. `unknown`: not in AWS's model. */
export function operationStatus(service: ServiceName, operation: string): 'served' | 'known' | 'unknown' {
  if (Object.hasOwn(MODELS[service].operations, operation)) return 'served';
  return KNOWN[service].has(operation) ? 'known' : 'unknown';
}

/** @internal @throws TypeError for an operation without a table; undefined when it has no such side. */
export function rootShape(
  service: ServiceName,
  operation: string,
  side: 'input' | 'output',
): string | undefined {
  if (operationStatus(service, operation) !== 'served') {
    throw new TypeError(
      `${service}:${operation} has no generated table; add it to tools/generate-api/generate.py`,
    );
  }
  return MODELS[service].operations[operation]![side];
}

/** @internal */
export function shapeOf(model: ServiceModel, name: string): Shape {
  const shape = model.shapes[name];
  if (!shape) throw new TypeError(`the generated table names the shape ${name} but does not hold it`);
  return shape;
}

/** @internal An object of JSON: not null, not a list. */
export const isJsonObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
