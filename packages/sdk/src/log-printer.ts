import type { DescribeTrainingJobResponse } from '@trainyard/api';
import type { TrainingJobEvent } from './follow/job-event.ts';

/** Colours that SageMaker's Python SDK gives to hosts in turn: blue, magenta, green, cyan, yellow. */
const COLOURS = [34, 35, 32, 36, 33] as const;

export interface PrintTarget {
  write(text: string): unknown;
  isTTY?: boolean;
}

/** Writes a job's events as lines, each log line with its host and rank. */
export class LogPrinter {
  readonly #target: PrintTarget;
  readonly #hosts: string[] = [];

  constructor(target: PrintTarget) {
    this.#target = target;
  }

  print(event: TrainingJobEvent): void {
    switch (event.type) {
      case 'transition':
        this.#line(`${clockTime(event.at)} ${event.status} - ${event.message}`);
        break;
      case 'notice':
        this.#line(`${clockTime(event.at)} Note - ${event.message}`);
        break;
      case 'log': {
        const from = event.rank === null ? event.host : `${event.host}[${event.rank}]`;
        this.#line(`${this.#coloured(event.host, from)} ${event.message}`);
        break;
      }
      case 'status':
      case 'metric':
        break;
    }
  }

  /** The last two lines of AWS's SDK, and what spot instances saved. */
  printTimes(description: DescribeTrainingJobResponse): void {
    const { TrainingTimeInSeconds: training, BillableTimeInSeconds: billable, ResourceConfig } = description;
    const hosts = ResourceConfig?.InstanceCount ?? 1;
    if (training !== undefined) this.#line(`Training seconds: ${training * hosts}`);
    if (billable !== undefined) this.#line(`Billable seconds: ${billable * hosts}`);
    if (description.EnableManagedSpotTraining && training && billable !== undefined) {
      this.#line(`Managed Spot Training savings: ${((1 - billable / training) * 100).toFixed(1)}%`);
    }
  }

  #coloured(host: string, text: string): string {
    if (!this.#target.isTTY) return text;
    if (!this.#hosts.includes(host)) this.#hosts.push(host);
    return `\u001B[${COLOURS[this.#hosts.indexOf(host) % COLOURS.length]}m${text}\u001B[0m`;
  }

  #line(text: string): void {
    this.#target.write(`${text}\n`);
  }
}

function clockTime(at: number): string {
  return new Date(at).toISOString().slice(0, 19).replace('T', ' ');
}
