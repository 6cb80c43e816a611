import vm from 'node:vm';

/** Longest part of a line that is searched; AWS states no number. */
export const MAX_SEARCHED_CHARACTERS = 4096;
/** Matches taken from one line: a progress bar arrives as one line with many values. */
const MAX_MATCHES_PER_LINE = 64;
/** Lines searched in one guarded run: far below the budget for any expression that is not hostile. */
const LINES_PER_RUN = 256;
const RUN_BUDGET_MS = 50;

/**
 * An expression of a user can need more steps than there are atoms (`(a+)+$`), and V8 offers no limit of its
 * own. `node:vm` does: its watchdog interrupts a match that runs too long. A worker thread would also keep the
 * event loop free during that time, but lines and the points found in them must go into one transaction, so the
 * caller would wait for it all the same; here the loss is one budget per hostile expression, once per job.
 */
const sandbox = vm.createContext(Object.create(null) as object);
const search = new vm.Script(
  `(lines, regexes, maxMatches) => {
    const found = [];
    for (let line = 0; line < lines.length; line++) {
      for (let index = 0; index < regexes.length; index++) {
        let count = 0;
        for (const match of lines[line].matchAll(regexes[index])) {
          if (count++ === maxMatches) break;
          found.push([line, index, match[1] ?? match[0]]);
        }
      }
    }
    return found;
  }`,
).runInContext(sandbox) as SearchFunction;
const guarded = new vm.Script('result = search(lines, regexes, maxMatches)');

type Found = [line: number, regex: number, text: string];
type SearchFunction = (lines: string[], regexes: RegExp[], maxMatches: number) => Found[];

/** What is wrong with an expression; the text names it. */
export class MetricRegexError extends Error {}

/**
 * Compiles the `Regex` of a metric definition. Inline flags at the start and Python's and Java's group names are
 * understood.
 *
 * @throws MetricRegexError when JavaScript cannot compile it
 */
export function compileMetricRegex(source: string): RegExp {
  const inline = /^\(\?([ims]+)\)/.exec(source);
  const body = source.slice(inline?.[0].length ?? 0).replaceAll('(?P<', '(?<');
  const flags = [...new Set(`g${inline?.[1] ?? ''}`)].join('');
  try {
    return new RegExp(body, flags);
  } catch (error) {
    throw new MetricRegexError(`'${source}' is not a regular expression: ${(error as Error).message}`);
  }
}

export interface SearchResult {
  /** In the order of lines: line, expression, text of the first group or of the whole match. */
  found: Found[];
  /** Expressions that cannot be used any more, by index, with the reason. */
  faults: Map<number, string>;
}

/**
 * Searches every line for every expression; never takes much longer than one budget per hostile expression.
 * An expression with a fault contributes what it found before.
 */
export function searchLines(lines: readonly string[], regexes: readonly RegExp[]): SearchResult {
  const found: Found[] = [];
  const faults = new Map<number, string>();
  for (let start = 0; start < lines.length; start += LINES_PER_RUN) {
    const part = lines
      .slice(start, start + LINES_PER_RUN)
      .map((line) => line.slice(0, MAX_SEARCHED_CHARACTERS));
    const usable = regexes.map((_, index) => index).filter((index) => !faults.has(index));
    const together = run(
      part,
      usable.map((index) => regexes[index] as RegExp),
    );
    // Somebody took too long or broke: ask one by one who it was.
    const runs =
      'found' in together
        ? [{ indexes: usable, outcome: together }]
        : usable.map((index) => ({ indexes: [index], outcome: run(part, [regexes[index] as RegExp]) }));
    const ofPart: Found[] = [];
    for (const { indexes, outcome } of runs) {
      if ('found' in outcome) {
        for (const [line, regex, text] of outcome.found)
          ofPart.push([start + line, indexes[regex] as number, text]);
      } else {
        faults.set(indexes[0] as number, outcome.fault);
      }
    }
    found.push(...(runs.length > 1 ? ofPart.sort((a, b) => a[0] - b[0] || a[1] - b[1]) : ofPart));
  }
  return { found, faults };
}

function run(lines: string[], regexes: RegExp[], retriesLeft = 3): { found: Found[] } | { fault: string } {
  if (regexes.length === 0) return { found: [] };
  Object.assign(sandbox, { search, lines, regexes, maxMatches: MAX_MATCHES_PER_LINE });
  const cpuBefore = process.threadCpuUsage();
  try {
    guarded.runInContext(sandbox, { timeout: RUN_BUDGET_MS });
    return { found: (sandbox as { result: Found[] }).result };
  } catch (error) {
    if ((error as { code?: string }).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') {
      return { fault: `it failed: ${(error as Error).message}` };
    }
    // The watchdog counts wall-clock time. On a machine full of training ranks this thread may simply not have run.
    const { user, system } = process.threadCpuUsage(cpuBefore);
    if (retriesLeft > 0 && (user + system) / 1000 < RUN_BUDGET_MS / 2)
      return run(lines, regexes, retriesLeft - 1);
    return { fault: `it needs more than ${RUN_BUDGET_MS} ms for ${lines.length} lines` };
  } finally {
    Object.assign(sandbox, { lines: null, regexes: null, result: null });
  }
}
