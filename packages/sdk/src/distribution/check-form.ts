import type { ProblemList } from '../problem.ts';
import type { AnyDistribution, StrategyName } from './distribution.ts';

const MPI_OPTIONS = ['custom_mpi_options', 'customMpiOptions'];

/** Options of each strategy. */
const OPTIONS: Readonly<Record<StrategyName, readonly string[]>> = {
  torch_distributed: ['enabled'],
  pytorchddp: ['enabled', ...MPI_OPTIONS],
  mpi: ['enabled', 'processes_per_host', 'processesPerHost', ...MPI_OPTIONS],
  parameter_server: ['enabled'],
  multi_worker_mirrored_strategy: ['enabled'],
  pytorchxla: ['enabled'],
  smdistributed: ['dataparallel', 'modelparallel'],
};

const LIBRARIES: Readonly<Record<string, readonly string[]>> = {
  dataparallel: ['enabled', ...MPI_OPTIONS],
  modelparallel: ['enabled', 'parameters'],
};

export const STRATEGIES = Object.keys(OPTIONS) as readonly StrategyName[];

/**
 * Names and types inside `distribution`. AWS's SDK ignores unknown names, so they warn; what it cannot read is refused.
 * @returns false when there is a problem that later checks would stumble over
 */
export function checkForm(distribution: AnyDistribution, problems: ProblemList): boolean {
  const before = problems.errors.length;
  for (const [strategy, value] of Object.entries(distribution)) {
    const field = `distribution.${strategy}`;
    if (strategy === 'instance_groups') {
      if (!Array.isArray(value))
        refuseType(field, value, 'It is a list of groups or of their names.', problems);
    } else if (strategy === 'smdistributed') {
      checkLibraries(value, problems);
    } else if (isStrategy(strategy)) {
      checkStrategy(field, value, OPTIONS[strategy], problems);
    } else if (value !== undefined) {
      problems.warn({
        id: 'W-DIST-UNKNOWN',
        field,
        value,
        rule: `It is not a strategy and has no effect, here as on AWS. Known are ${STRATEGIES.join(', ')}.`,
        nextStep: 'Correct the name or remove it.',
      });
    }
  }
  return problems.errors.length === before;
}

function isStrategy(name: string): name is StrategyName {
  return name in OPTIONS;
}

function checkLibraries(value: unknown, problems: ProblemList): void {
  const field = 'distribution.smdistributed';
  if (value === undefined) return;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    problems.refuse({
      id: 'E-SMD-TYPE',
      field,
      value,
      rule: 'It is an object with the library as its only member.',
      nextStep: 'Write { dataparallel: { enabled: true } }.',
    });
    return;
  }
  const libraries = Object.keys(value);
  if (libraries.length > 1) {
    problems.refuse({
      id: 'E-SMD-MULTI',
      field,
      value: libraries.join(', '),
      rule: 'One job uses one of the libraries dataparallel and modelparallel.',
      nextStep: 'Remove the others.',
    });
  }
  for (const [library, options] of Object.entries(value)) {
    const known = LIBRARIES[library];
    if (known) checkStrategy(`${field}.${library}`, options, known, problems);
    else {
      problems.refuse({
        id: 'E-SMD-UNKNOWN',
        field: `${field}.${library}`,
        value: options,
        rule: 'The libraries are dataparallel and modelparallel.',
        nextStep: 'Correct the name.',
      });
    }
  }
}

function checkStrategy(field: string, value: unknown, known: readonly string[], problems: ProblemList): void {
  if (value === undefined) return;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    refuseType(field, value, 'A strategy is an object such as { enabled: true }.', problems);
    return;
  }
  for (const [key, option] of Object.entries(value)) {
    if (!known.includes(key)) {
      problems.warn({
        id: 'W-DIST-UNKNOWN',
        field: `${field}.${key}`,
        value: option,
        rule: `It has no effect, here as on AWS. Known are ${known.join(', ')}.`,
        nextStep: 'Correct the name or remove it.',
      });
      continue;
    }
    if (key === 'parameters') continue;
    const type = key === 'enabled' ? 'boolean' : key.startsWith('processes') ? 'number' : 'string';
    if (option !== undefined && typeof option !== type)
      refuseType(`${field}.${key}`, option, `It must be a ${type}.`, problems);
  }
}

function refuseType(field: string, value: unknown, rule: string, problems: ProblemList): void {
  problems.refuse({ id: 'E-DIST-TYPE', field, value, rule, nextStep: 'Correct the value.' });
}
