import { formatDuration } from './duration.ts';

/** One line for each step of a set-up, with its time, as `script/bootstrap` prints them. */
export async function printStep<T>(
  out: NodeJS.WritableStream,
  name: string,
  work: () => Promise<T>,
): Promise<T> {
  const startedAt = performance.now();
  const took = (): string => formatDuration(performance.now() - startedAt);
  out.write(`  ${name.padEnd(33)} `);
  try {
    const result = await work();
    out.write(`${took()}\n`);
    return result;
  } catch (error) {
    out.write(`failed after ${took()}\n`);
    throw error;
  }
}

export function printDone(out: NodeJS.WritableStream, name: string, text: string): void {
  out.write(`  ${name.padEnd(33)} ${text}\n`);
}
