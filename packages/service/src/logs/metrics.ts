import type { Database } from '../store/database.ts';
import type { NewEvent } from './events.ts';
import { compileMetricRegex, MetricRegexError, searchLines } from './metric-regex.ts';
import type { LogStreamRow } from './streams.ts';

/** `AlgorithmSpecification.MetricDefinitions[]` as the request spells it. */
export interface MetricDefinition {
  Name: string;
  /** The first group, or the whole match, must be a number: `loss=([0-9.]+)`. */
  Regex: string;
}

export interface MetricPoint {
  /** Order of arrival over all jobs; a cursor for {@link Metrics.pointsAfter}. */
  id: number;
  name: string;
  value: number;
  /** Epoch milliseconds of the line. */
  at: number;
  attempt: number;
  host: string;
  rank: number | null;
}

/** A definition that finds nothing (any more), and why. */
export interface MetricFault {
  name: string;
  message: string;
}

/** Faults of definitions that could never work, for the moment a job is created. */
export function checkMetricDefinitions(definitions: readonly MetricDefinition[]): MetricFault[] {
  return compile(definitions).faults;
}

const COLUMNS = 'id, name, value, at, attempt, host, rank';
/** Jobs whose compiled definitions are kept; more than a service runs at once. */
const MAX_CACHED_JOBS = 64;

/**
 * Numbers that a job's metric definitions find in its lines. As on SageMaker, every line of every host counts,
 * and text that is not a finite number is passed over.
 */
export function createMetrics(
  { sql }: Database,
  definitionsOf: (jobName: string) => readonly MetricDefinition[],
) {
  const insert = sql.prepare(
    'INSERT INTO metric_points (job, attempt, host, rank, name, at, seq, value) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
  );
  const selectSeries = sql.prepare(
    `SELECT ${COLUMNS} FROM metric_points WHERE job = ? AND name = ? AND at >= ? AND at < ? ORDER BY at, id`,
  );
  const selectAfter = sql.prepare(
    `SELECT ${COLUMNS} FROM metric_points WHERE job = ? AND id > ? ORDER BY id LIMIT ?`,
  );
  const selectNames = sql.prepare('SELECT DISTINCT name FROM metric_points WHERE job = ? ORDER BY name');
  const selectLast = sql.prepare(
    `SELECT ${COLUMNS} FROM metric_points WHERE job = ? AND name = ? ORDER BY at DESC, id DESC LIMIT 1`,
  );
  const deleteOfJob = sql.prepare('DELETE FROM metric_points WHERE job = ?');
  const compiledByJob = new Map<string, CompiledDefinitions>();

  function compiledOf(jobName: string): CompiledDefinitions {
    const compiled = compiledByJob.get(jobName) ?? compile(definitionsOf(jobName));
    compiledByJob.delete(jobName); // most recently used last
    compiledByJob.set(jobName, compiled);
    const [oldest] = compiledByJob.keys();
    if (compiledByJob.size > MAX_CACHED_JOBS && oldest !== undefined) compiledByJob.delete(oldest);
    return compiled;
  }

  return {
    /**
     * Stores what the lines of a host hold; the caller holds the transaction that appends them, so that a line
     * that is sent twice gives its points once.
     *
     * @param firstSeq number of the first event in its stream
     * @returns how many points were stored
     */
    extract(stream: LogStreamRow, events: readonly NewEvent[], firstSeq: number): number {
      if (stream.jobName === null) return 0;
      const compiled = compiledOf(stream.jobName);
      if (compiled.usable.length === 0) return 0;
      const lines = events.map(({ source, message }) => (source === 'agent' ? '' : message));
      const { found, faults } = searchLines(
        lines,
        compiled.usable.map(({ regex }) => regex),
      );
      let count = 0;
      for (const [line, index, text] of found) {
        const value = parseMetricValue(text);
        const event = events[line];
        const name = compiled.usable[index]?.name;
        if (value === null || event === undefined || name === undefined) continue;
        const { jobName, attempt, host } = stream;
        insert.run(jobName, attempt, host, event.rank, name, event.at, firstSeq + line, value);
        count++;
      }
      for (const [index, message] of faults) {
        compiled.faults.push({ name: compiled.usable[index]?.name ?? '', message });
      }
      if (faults.size > 0) compiled.usable = compiled.usable.filter((_, index) => !faults.has(index));
      return count;
    },

    /** Points of one metric by time, within [startAt, endAt). */
    series(jobName: string, name: string, window: { startAt?: number; endAt?: number } = {}): MetricPoint[] {
      const { startAt = 0, endAt = Number.MAX_SAFE_INTEGER } = window;
      return selectSeries.all(jobName, name, startAt, endAt) as unknown as MetricPoint[];
    },
    /** Points of all metrics of a job in order of arrival, after the id `cursor` (0 for all). */
    pointsAfter: (jobName: string, cursor: number, limit: number): MetricPoint[] =>
      selectAfter.all(jobName, cursor, limit) as unknown as MetricPoint[],
    /** The last value of each metric: `FinalMetricDataList`. */
    finalValues: (jobName: string): MetricPoint[] =>
      (selectNames.all(jobName) as { name: string }[]).map(
        ({ name }) => selectLast.get(jobName, name) as unknown as MetricPoint,
      ),
    /** Definitions that are out of use; those found while lines arrive are known until the service restarts. */
    faults: (jobName: string): readonly MetricFault[] => compiledOf(jobName).faults,
    forgetJob(jobName: string): void {
      deleteOfJob.run(jobName);
      compiledByJob.delete(jobName);
    },
  };
}

export type Metrics = ReturnType<typeof createMetrics>;

interface CompiledDefinitions {
  usable: { name: string; regex: RegExp }[];
  faults: MetricFault[];
}

function compile(definitions: readonly MetricDefinition[]): CompiledDefinitions {
  const compiled: CompiledDefinitions = { usable: [], faults: [] };
  for (const { Name: name, Regex } of definitions) {
    try {
      compiled.usable.push({ name, regex: compileMetricRegex(Regex) });
    } catch (error) {
      if (!(error instanceof MetricRegexError)) throw error;
      compiled.faults.push({ name, message: error.message });
    }
  }
  return compiled;
}

function parseMetricValue(text: string): number | null {
  if (!/^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$/.test(text)) return null;
  const value = Number(text);
  return Number.isFinite(value) ? value : null;
}
