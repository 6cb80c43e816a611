import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { decodeHyperparameter } from '@trainyard/api';
import type { Hyperparameters } from '../estimator-options.ts';
import { checkOptions } from '../estimator-rules.ts';
import type { ProblemList } from '../problem.ts';
import { MPI, Torchrun } from './distributed.ts';
import type { ModelTrainerOptions, SourceCode } from './trainer-options.ts';

/** Every rule of a ModelTrainer that needs nothing but its options. Returns its hyperparameters. */
export function checkTrainer(options: ModelTrainerOptions, problems: ProblemList): Hyperparameters {
  checkCommon(options, problems);
  if (options.trainingImage === undefined && (problems.onAws || problems.strict)) {
    problems.refuse({
      id: 'E-VERSION',
      field: 'trainingImage',
      value: undefined,
      rule: 'On AWS a job needs a training image.',
      nextStep: 'Give its address.',
    });
  }
  if (options.sourceCode) checkSourceCode(options.sourceCode, problems);
  checkDistributed(options, problems);
  return readHyperparameters(options.hyperparameters, problems);
}

/** The rules that estimators have too, with the names of this grammar. */
const FIELDS: Readonly<Record<string, string>> = {
  instanceType: 'compute.instanceType',
  instanceCount: 'compute.instanceCount',
  instanceGroups: 'compute.instanceGroups',
  maxRun: 'stoppingCondition.maxRuntimeInSeconds',
  maxWait: 'stoppingCondition.maxWaitTimeInSeconds',
  subnets: 'networking.subnets',
  securityGroupIds: 'networking.securityGroupIds',
  outputPath: 'outputDataConfig.s3OutputPath',
  checkpointS3Uri: 'checkpointConfig.s3Uri',
};

function checkCommon(options: ModelTrainerOptions, problems: ProblemList): void {
  const {
    compute = {},
    networking = {},
    stoppingCondition = {},
    outputDataConfig,
    checkpointConfig,
  } = options;
  const before = problems.errors.length;
  checkOptions(
    {
      role: options.role,
      baseJobName: options.baseJobName?.replaceAll('_', '-'),
      // This grammar has a default on AWS as well.
      instanceType: compute.instanceGroups ? compute.instanceType : (compute.instanceType ?? 'ml.m5.xlarge'),
      instanceCount: compute.instanceCount,
      instanceGroups: compute.instanceGroups,
      useSpotInstances: compute.enableManagedSpotTraining,
      maxRun: stoppingCondition.maxRuntimeInSeconds ?? 3600,
      maxWait: stoppingCondition.maxWaitTimeInSeconds,
      subnets: networking.subnets,
      securityGroupIds: networking.securityGroupIds,
      outputPath: outputDataConfig?.s3OutputPath,
      checkpointS3Uri: checkpointConfig?.s3Uri,
    },
    problems,
  );
  for (const problem of problems.errors.slice(before)) {
    problem.field = problem.field.replace(/^\w+/, (name) => FIELDS[name] ?? name);
  }
}

function checkSourceCode(sourceCode: SourceCode, problems: ProblemList): void {
  const { sourceDir, entryScript, requirements, command } = sourceCode;
  const refuse = (name: string, value: unknown, rule: string, nextStep: string): void =>
    problems.refuse({ id: 'E-SRC', field: `sourceCode.${name}`, value, rule, nextStep });
  if (command === undefined && entryScript === undefined) {
    const rule = 'There is code but neither a script nor a command to start.';
    problems.refuse({
      id: 'E-EP-NONE',
      field: 'sourceCode.entryScript',
      value: undefined,
      rule,
      nextStep: 'Give entryScript or command.',
    });
  }
  if (command !== undefined && entryScript !== undefined) {
    problems.warn({
      id: 'W-COMMAND',
      field: 'sourceCode.entryScript',
      value: entryScript,
      rule: 'It has no effect beside command.',
      nextStep: 'Remove one of them.',
    });
  }
  if (entryScript !== undefined && !/\.(py|sh)$/.test(entryScript))
    refuse('entryScript', entryScript, 'It is a .py or .sh file.', 'Rename it, or use command.');
  const named = Object.entries({ entryScript, requirements }).filter(([, value]) => value !== undefined);
  if (sourceDir === undefined) {
    for (const [name, value] of named) refuse(name, value, 'It is a file in sourceDir.', 'Give sourceDir.');
    return;
  }
  if (sourceDir.startsWith('s3://')) return;
  const found = statSync(sourceDir, { throwIfNoEntry: false });
  const isArchive = sourceDir.endsWith('.tar.gz');
  if (isArchive ? !found?.isFile() : !found?.isDirectory()) {
    refuse(
      'sourceDir',
      sourceDir,
      `There is no such ${isArchive ? 'archive' : 'folder'}.`,
      'Correct the path.',
    );
    return;
  }
  for (const [name, value] of isArchive ? [] : named) {
    if (statSync(join(sourceDir, value ?? ''), { throwIfNoEntry: false })?.isFile()) continue;
    refuse(
      name,
      value,
      `There is no such file in sourceDir ${sourceDir}.`,
      'Give its path relative to sourceDir.',
    );
  }
}

function checkDistributed({ distributed, sourceCode }: ModelTrainerOptions, problems: ProblemList): void {
  if (!distributed) return;
  if (sourceCode?.entryScript === undefined || sourceCode.command !== undefined) {
    problems.refuse({
      id: 'E-EP-NONE',
      field: 'sourceCode.entryScript',
      value: sourceCode?.entryScript,
      rule: 'distributed starts a script, and a command starts itself.',
      nextStep: 'Give entryScript without command, or remove distributed.',
    });
  } else if (distributed instanceof Torchrun && !sourceCode.entryScript.endsWith('.py')) {
    problems.refuse({
      id: 'E-TORCHRUN',
      field: 'sourceCode.entryScript',
      value: sourceCode.entryScript,
      rule: 'torchrun starts python programs (*.py) only.',
      nextStep: 'Name a .py file, or use command.',
    });
  }
  if (!(distributed instanceof Torchrun || distributed instanceof MPI)) return;
  const { processCountPerNode: count } = distributed.options;
  if (count === undefined || (Number.isInteger(count) && count >= 1)) return;
  problems.refuse({
    id: 'E-PROCESSES',
    field: 'distributed.processCountPerNode',
    value: count,
    rule: 'Ranks per host is a whole number of at least 1.',
    nextStep: 'Leave it out for one rank per accelerator.',
  });
}

function readHyperparameters(
  given: ModelTrainerOptions['hyperparameters'],
  problems: ProblemList,
): Hyperparameters {
  if (typeof given !== 'string') return given ?? {};
  const refuse = (rule: string, nextStep: string): Hyperparameters => {
    problems.refuse({ id: 'E-HYPERPARAMETERS', field: 'hyperparameters', value: given, rule, nextStep });
    return {};
  };
  if (!given.endsWith('.json'))
    return refuse('A file of hyperparameters is a .json file.', 'Convert it, or pass an object.');
  let text: string;
  try {
    text = readFileSync(given, 'utf8');
  } catch (error) {
    return refuse(`It cannot be read (${(error as NodeJS.ErrnoException).code}).`, 'Correct the path.');
  }
  const value = decodeHyperparameter(text.trim());
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Hyperparameters;
  return refuse('The file holds no JSON object.', 'Correct the file.');
}
