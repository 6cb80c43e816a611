/**
 * Waits for a condition, looking every 20 ms.
 *
 * @throws Error with the last value seen when the deadline passes
 */
export async function until<T>(
  what: string,
  look: () => T | null | undefined | false | Promise<T | null | undefined | false>,
  options: { deadlineMs?: number; show?: () => unknown } = {},
): Promise<T> {
  const { deadlineMs = 60_000, show } = options;
  const end = Date.now() + deadlineMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await look();
      if (value !== null && value !== undefined && value !== false) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) {
      const seen = show ? JSON.stringify(await show(), null, 1) : String(last);
      throw new Error(`Waited ${deadlineMs / 1000} s for ${what}; last seen: ${seen}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
