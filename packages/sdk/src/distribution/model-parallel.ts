import { readFileSync } from 'node:fs';
import type { PythonValue } from '@trainyard/api';
import { decodeHyperparameter, PythonFloat } from '@trainyard/api';
import type { ProblemList } from '../problem.ts';
import type { ModelParallel } from './distribution.ts';

export type Parameters = Readonly<Record<string, PythonValue>>;

const FIELD = 'distribution.smdistributed.modelparallel.parameters';

/**
 * The parameters of an enabled `modelparallel`, checked by AWS's rules.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/fw_utils.py (`validate_mp_config`)
 * @returns null when there are none, or when a problem was added
 */
export function modelParallelParameters(library: ModelParallel, problems: ProblemList): Parameters | null {
  if (!library.enabled || library.parameters === undefined) return null;
  const read =
    typeof library.parameters === 'string' ? readFile(library.parameters, problems) : library.parameters;
  if (read === null) return null;
  const parameters = Object.fromEntries(
    Object.entries(read).filter((entry): entry is [string, PythonValue] => entry[1] !== undefined),
  );
  checkParameters(parameters, problems);
  return Object.keys(parameters).length > 0 ? parameters : null;
}

function readFile(path: string, problems: ProblemList): Parameters | null {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const rule = `It is the path of a JSON file, and this one cannot be read (${(error as NodeJS.ErrnoException).code}).`;
    problems.refuse({
      id: 'E-MP-PATH',
      field: FIELD,
      value: path,
      rule,
      nextStep: 'Correct the path, or pass an object.',
    });
    return null;
  }
  const value = decodeHyperparameter(text.trim());
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Parameters;
  const rule = 'The file holds no JSON object.';
  problems.refuse({ id: 'E-MP-JSON', field: FIELD, value: path, rule, nextStep: 'Correct the file.' });
  return null;
}

const CHOICES: Readonly<Record<string, readonly PythonValue[]>> = {
  pipeline: ['simple', 'interleaved', '_only_forward'],
  optimize: ['speed', 'memory'],
};
const WHOLE_NUMBERS = ['microbatches', 'partitions', 'active_microbatches'];
const FLAGS = ['auto_partition', 'contiguous', 'load_partition', 'horovod', 'ddp', 'deterministic_server'];

function checkParameters(parameters: Parameters, problems: ProblemList): void {
  const refuse = (name: string, rule: string, nextStep = 'Correct the value.'): void =>
    problems.refuse({ id: 'E-MP-VALUE', field: `${FIELD}.${name}`, value: parameters[name], rule, nextStep });
  const has = (name: string): boolean => name in parameters;

  for (const [name, choices] of Object.entries(CHOICES)) {
    if (has(name) && !choices.includes(parameters[name]!))
      refuse(name, `It must be one of ${choices.join(', ')}.`);
  }
  checkPlacement(parameters, problems);
  for (const name of WHOLE_NUMBERS) {
    if (has(name) && !isWhole(parameters[name], 1)) refuse(name, 'It must be a whole number of at least 1.');
  }
  for (const name of FLAGS) {
    if (has(name) && typeof parameters[name] !== 'boolean') refuse(name, 'It must be true or false.');
  }
  if (has('partition_file') && typeof parameters['partition_file'] !== 'string')
    refuse('partition_file', 'It must be a path.');
  const { auto_partition, default_partition, partitions, memory_weight, horovod, ddp } = parameters;
  if (auto_partition === false && !has('default_partition'))
    refuse('default_partition', 'It is needed when auto_partition is false.', 'Add it.');
  if (has('default_partition') && !(Number(default_partition) < Number(partitions)))
    refuse('default_partition', `It must be less than partitions (${String(partitions ?? 'not set')}).`);
  const weight = memory_weight instanceof PythonFloat ? memory_weight.value : Number(memory_weight);
  if (has('memory_weight') && !(weight >= 0 && weight <= 1))
    refuse('memory_weight', 'It must be between 0.0 and 1.0.');
  for (const name of ['ddp_port', 'ddp_dist_backend']) {
    if (has(name) && !has('ddp'))
      refuse(name, 'It needs ddp to be set as well.', 'Add ddp: true, or remove it.');
  }
  if (has('ddp_port') && !isWhole(parameters['ddp_port'], 0)) refuse('ddp_port', 'It must be a port number.');
  if (horovod === true && ddp === true)
    refuse('horovod', 'horovod and ddp exclude each other.', 'Set one of them to false.');
}

/** AWS's documentation also has orders of the letters D, P and T, which its own SDK refuses. */
function checkPlacement({ placement_strategy: placement }: Parameters, problems: ProblemList): void {
  if (placement === undefined || placement === 'cluster' || placement === 'spread') return;
  const isOrder = typeof placement === 'string' && placement.split('').sort().join('') === 'DPT';
  const problem = {
    id: 'E-MP-VALUE',
    field: `${FIELD}.placement_strategy`,
    value: placement,
    rule: `It must be cluster or spread${isOrder ? " in AWS's SDK" : ', or an order of the letters D, P and T'}.`,
    nextStep: isOrder ? 'For AWS use cluster (DPT) or spread (TPD).' : 'Correct the value.',
  } as const;
  if (isOrder) problems.refuseOnAws(problem);
  else problems.refuse(problem);
}

function isWhole(value: PythonValue | undefined, least: number): boolean {
  return typeof value === 'number' && Number.isInteger(value) && value >= least;
}
