/** One row of a generated table. Names in `members`, `member`, `key` and `value` are keys of `ServiceModel.shapes`. */
export interface Shape {
  type: 'structure' | 'list' | 'map' | 'string' | 'boolean' | 'integer' | 'long' | 'float' | 'timestamp';
  required?: readonly string[];
  members?: Readonly<Record<string, string>>;
  member?: string;
  key?: string;
  value?: string;
  /** Length of a string in code points, of a list or map in entries; value of a number. */
  min?: number;
  max?: number;
  /** As published; must match the whole value. */
  pattern?: string;
  /** The same language in JavaScript's spelling, where the published one does not compile. */
  regex?: string;
  /** As AWS's messages show it, where that differs. */
  printed?: string;
  enum?: readonly string[];
}

export interface Operation {
  input?: string;
  output?: string;
  errors: readonly string[];
}

export interface ServiceModel {
  apiVersion: string;
  /** First half of `X-Amz-Target`; empty for services without JSON. */
  targetPrefix: string;
  /** Service name in the credential scope. */
  signingName: string;
  /** First label of the host name on AWS. */
  endpointPrefix: string;
  operations: Readonly<Record<string, Operation>>;
  shapes: Readonly<Record<string, Shape>>;
}
