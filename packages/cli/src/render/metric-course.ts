import { sparkline } from './sparkline.ts';

/** A course longer than this is thinned by joining neighbours, so a job of a week needs no more memory. */
const MOST_VALUES = 2048;

/** The values of one metric over the job. */
export class MetricCourse {
  readonly name: string;
  #values: number[] = [];
  /** How many points one kept value stands for. */
  #perValue = 1;
  #pending: number[] = [];
  first: number | null = null;
  last: number | null = null;

  constructor(name: string) {
    this.name = name;
  }

  add(value: number): void {
    this.first ??= value;
    this.last = value;
    this.#pending.push(value);
    if (this.#pending.length < this.#perValue) return;
    this.#values.push(mean(this.#pending));
    this.#pending = [];
    if (this.#values.length <= MOST_VALUES) return;
    this.#values = Array.from({ length: this.#values.length >> 1 }, (_, index) =>
      mean(this.#values.slice(2 * index, 2 * index + 2)),
    );
    this.#perValue *= 2;
  }

  /** `loss ▇▅▃▂▁ 0.0123`; empty before the first value. */
  line(width: number): string {
    return this.last === null ? '' : `${this.name} ${this.bars(width)} ${formatMetric(this.last)}`;
  }

  bars(width: number): string {
    return sparkline(this.#values, width);
  }

  /** `loss 2.075 → 0.00621`. */
  range(): string {
    return `${this.name} ${formatMetric(this.first ?? Number.NaN)} → ${formatMetric(this.last ?? Number.NaN)}`;
  }
}

/** The course worth showing in one line: a loss if there is one, else the first metric. */
export function courseToShow(courses: Iterable<MetricCourse>): MetricCourse | null {
  const all = [...courses];
  return all.find(({ name }) => /loss/i.test(name)) ?? all[0] ?? null;
}

export function formatMetric(value: number): string {
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-4 || size >= 1e6)
    ? value.toExponential(2)
    : String(Number(value.toPrecision(4)));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
