import type { ProblemId } from './problem-catalogue.ts';

/** One thing that is wrong, or worth knowing, about an option: who reads it can act without reading the docs. */
export interface Problem {
  /** Stable, such as `E-TORCHRUN`; {@link PROBLEMS} says what each is about. */
  id: ProblemId;
  /** Option as the user spelled it: `distribution.torch_distributed`. */
  field: string;
  value: unknown;
  /** What must hold. */
  rule: string;
  nextStep: string;
}

/** Receives what is allowed here but would surprise elsewhere, e.g. what AWS itself would refuse. */
export type WarningHandler = (warning: Problem) => void;

export function describeProblem(problem: Problem): string {
  return `${problem.field} is ${printed(problem.value)}: ${problem.rule} ${problem.nextStep}`;
}

function printed(value: unknown): string {
  if (value === undefined || value === null) return 'not set';
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}

/** Collects the problems of one call, so that a user sees all of them at once. */
export class ProblemList {
  readonly errors: Problem[] = [];
  readonly warnings: Problem[] = [];
  /** The job goes to AWS itself. */
  readonly onAws: boolean;
  /** Refuse exactly what AWS's Python SDK refuses. */
  readonly strict: boolean;

  constructor(mode: { onAws: boolean; strict: boolean }) {
    this.onAws = mode.onAws;
    this.strict = mode.strict;
  }

  refuse(problem: Problem): void {
    this.errors.push(problem);
  }

  /** A rule about hardware or versions that holds on AWS only: elsewhere a warning, unless strict. */
  refuseOnAws(problem: Problem): void {
    (this.onAws || this.strict ? this.errors : this.warnings).push(problem);
  }

  /** A rule of AWS's SDK that AWS's service does not have: a warning everywhere, unless strict. */
  refuseIfStrict(problem: Problem): void {
    (this.strict ? this.errors : this.warnings).push(problem);
  }

  warn(problem: Problem): void {
    this.warnings.push(problem);
  }
}
