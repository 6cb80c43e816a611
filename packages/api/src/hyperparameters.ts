/** What a hyperparameter may be. `bigint` is Python's `int` of any size. A `number` without fraction is Python's `int`. */
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

/** Python's `json.dumps(value)` with its defaults, byte for byte. */
export function pythonJson(_value: PythonValue): string {
  throw new Error('follows');
}

/** Python's `repr(value)`. */
export function pythonRepr(_value: PythonValue): string {
  throw new Error('follows');
}

/** Python's `str(value)`. */
export function pythonStr(_value: PythonValue): string {
  throw new Error('follows');
}

/** Python's `json.dumps(value, sort_keys=True, separators=(',', ':'))`: the form of the `SM_*` variables. */
export function compactPythonJson(_value: PythonValue): string {
  throw new Error('follows');
}

/**
 * Decodes one value of `hyperparameters.json` as AWS's toolkit does: one pass of Python's `json.loads`, the raw
 * string when that fails. `1.0` becomes {@link PythonFloat} so that it is printed as Python would.
 */
export function decodeHyperparameter(_text: string): PythonValue {
  throw new Error('follows');
}

/** {@link pythonJson} of every value: what framework estimators send. */
export function encodeHyperparameters(
  _values: Readonly<Record<string, PythonValue>>,
): Record<string, string> {
  throw new Error('follows');
}
