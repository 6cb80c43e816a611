const LIBRARIES = 'trainyard setup --libraries';
const HUGGING_FACE = 'trainyard setup --with huggingface';

/** Modules that AWS's images have and a runtime here has only when it was asked for. */
const COMMANDS: Readonly<Record<string, string>> = {
  smdistributed: LIBRARIES,
  'torch.sagemaker': LIBRARIES,
  trainyard_collective: LIBRARIES,
  trainyard_parallel: LIBRARIES,
  transformers: HUGGING_FACE,
  accelerate: HUGGING_FACE,
  datasets: HUGGING_FACE,
};

/**
 * What to do about an exception that says that a module is missing; null for any other, and for modules that are the
 * script's own affair.
 */
export function adviceForMissingModule(exception: string): string | null {
  const name = /^(?:ModuleNotFoundError|ImportError): No module named '([^']+)'/.exec(exception)?.[1];
  if (name === undefined) return null;
  const known = Object.keys(COMMANDS).find((module) => name === module || name.startsWith(`${module}.`));
  return known === undefined ? null : `bring it with: ${COMMANDS[known]}`;
}
