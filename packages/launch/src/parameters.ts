import type { PythonValue } from '@trainyard/api';
import {
  decodeHyperparameter,
  FRAMEWORK_HYPERPARAMETER_PREFIX,
  RESERVED_HYPERPARAMETERS,
} from '@trainyard/api';
import type { AttemptPlan } from './plan.ts';

/** Kind of entry point, decided as AWS's toolkit does; also decides what is installed. */
export type EntryKind =
  /** `python name args` */
  | 'program'
  /** The code directory holds a setup.py: installed, then `python -m name args`. */
  | 'package'
  /** `./name args` */
  | 'command';

/** The job's hyperparameters, decoded and sorted into the toolkit's three buckets. */
export interface JobParameters {
  /** What the script gets. */
  user: Record<string, PythonValue>;
  /** Flags of launchers: `SM_FRAMEWORK_PARAMS`. */
  framework: Record<string, PythonValue>;
  /** The script as named in the request; null when the image brings its own command. */
  program: string | null;
  /** `s3://…/sourcedir.tar.gz`, a path in the instance, or the code directory itself. */
  submitDirectory: string | null;
  logLevel: number;
  jobName: string;
  region: string;
}

const RESERVED = new Set<string>(RESERVED_HYPERPARAMETERS);
const DEFAULT_LOG_LEVEL = 20;

export function readParameters(plan: AttemptPlan): JobParameters {
  const decoded = Object.entries(plan.hyperParameters).map(
    ([key, text]) => [key, decodeHyperparameter(text)] as const,
  );
  const all = Object.fromEntries(decoded);
  const pick = (fits: (key: string) => boolean): Record<string, PythonValue> =>
    Object.fromEntries(decoded.filter(([key]) => fits(key)));
  const isFramework = (key: string): boolean =>
    key.startsWith(FRAMEWORK_HYPERPARAMETER_PREFIX) && !RESERVED.has(key);
  const level = all.sagemaker_container_log_level;
  return {
    user: pick((key) => !RESERVED.has(key) && !isFramework(key)),
    framework: pick(isFramework),
    // Images of one's own may name the entry point; the toolkit lets it win.
    program: plan.environment.SAGEMAKER_PROGRAM ?? text(all.sagemaker_program),
    submitDirectory: text(all.sagemaker_submit_directory),
    logLevel: typeof level === 'number' ? level : DEFAULT_LOG_LEVEL,
    jobName: text(all.sagemaker_job_name) ?? plan.jobName,
    region: text(all.sagemaker_region) ?? plan.region,
  };
}

const text = (value: PythonValue | undefined): string | null =>
  typeof value === 'string' && value !== '' ? value : null;

/** First match wins: `.sh`, then setup.py, then `.py`, else a command. */
export function entryKind(program: string, hasSetupFile: boolean): EntryKind {
  if (program.endsWith('.sh')) return 'command';
  if (hasSetupFile) return 'package';
  return program.endsWith('.py') ? 'program' : 'command';
}

/** `train` for `train.py`; `SM_MODULE_NAME`. */
export const moduleName = (program: string): string => program.replaceAll('.py', '');

export const isTrue = (value: PythonValue | undefined): boolean =>
  value === true || (typeof value === 'number' && value !== 0);

/** A positive whole number, else null. */
export function positiveInteger(value: PythonValue | undefined): number | null {
  const number = typeof value === 'string' ? Number(value) : value;
  return typeof number === 'number' && Number.isInteger(number) && number > 0 ? number : null;
}
