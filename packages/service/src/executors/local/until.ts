import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Asks until the answer is not null, at most for `deadlineMs`; the pause between questions grows from 2 to 50 ms.
 * @returns the answer, or null at the deadline
 */
export async function askUntil<T>(question: () => Promise<T | null>, deadlineMs: number): Promise<T | null> {
  const end = performance.now() + deadlineMs;
  for (let pauseMs = 2; ; pauseMs = Math.min(pauseMs * 1.5, 50)) {
    const answer = await question();
    if (answer !== null) return answer;
    if (performance.now() > end) return null;
    await sleep(pauseMs);
  }
}
