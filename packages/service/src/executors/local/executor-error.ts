/** What the operator of this machine has to act on: a step of the executor failed. `step` names it, the message says why. */
export class ExecutorError extends Error {
  override name = 'ExecutorError';
  readonly step: string;

  constructor(step: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.step = step;
  }
}
