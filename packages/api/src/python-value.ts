/**
 * What a hyperparameter may be. A `number` that is a safe integer is Python's `int`, any other its `float`;
 * `bigint` is an `int` of any size. Objects give their keys in JavaScript's order: `{ 2: …, b: … }` whatever was
 * written first.
 */
export type PythonValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | PythonFloat
  | readonly PythonValue[]
  | { readonly [key: string]: PythonValue };

/** A number that Python must see as `float` although it has no fraction: `1.0`. */
export class PythonFloat {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}
