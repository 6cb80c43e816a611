import type { ServiceModel } from './model.ts';

export type ServiceName = 'sagemaker' | 'logs' | 'sts';

export interface ParseOptions {
  /**
   * Value sets that replace those of the model, by shape name: `{ TrainingInstanceType: ['ml.local'] }`.
   * Without one, `TrainingInstanceType` takes every well-formed name.
   */
  enums?: Readonly<Record<string, readonly string[]>>;
}

/** The generated table of a service. */
export function modelOf(_service: ServiceName): ServiceModel {
  throw new Error('follows');
}

/** `served`: has a table here. `known`: in AWS's model, not served. `unknown`: not in AWS's model. */
export function operationStatus(_service: ServiceName, _operation: string): 'served' | 'known' | 'unknown' {
  throw new Error('follows');
}

/**
 * Checks the parsed JSON body of a request against the model and copies the members that the model has; unknown
 * members and nulls are dropped. Timestamps become `Date`.
 *
 * @throws ServiceError `SerializationException` for a value of the wrong JSON type, `ValidationException` with
 * all violated constraints in AWS's words.
 */
export function parseRequest<T>(
  _service: ServiceName,
  _operation: string,
  _body: unknown,
  _options?: ParseOptions,
): T {
  throw new Error('follows');
}

/**
 * The JSON form of an operation's output: members outside the model are left out, undefined and null too;
 * `Date` becomes epoch seconds with milliseconds as fraction.
 *
 * @throws TypeError when a value does not fit the model: our fault, not the caller's.
 */
export function serializeResponse(_service: ServiceName, _operation: string, _value: unknown): unknown {
  throw new Error('follows');
}

/** The JSON form of a request: like {@link serializeResponse}, for clients. Constraints are left to the service. */
export function serializeRequest(_service: ServiceName, _operation: string, _value: unknown): unknown {
  throw new Error('follows');
}

/** Reads a response leniently, as AWS clients must: timestamps become `Date`, nulls and unknown members are dropped. */
export function parseResponse<T>(_service: ServiceName, _operation: string, _body: unknown): T {
  throw new Error('follows');
}
