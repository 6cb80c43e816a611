import type { TrainingJobEvent } from '@trainyard/sdk';
import { formatDuration } from './duration.ts';
import { LABEL_WIDTH, logLabel, logLine } from './log-line.ts';
import { courseToShow, MetricCourse } from './metric-course.ts';
import { Phases } from './phases.ts';
import type { Terminal } from './terminal.ts';

const SPARKLINE_WIDTH = 24;
/** Every job goes through these; their messages say no more than their names. */
const ORDINARY = new Set(['Starting', 'Downloading', 'Training', 'Uploading']);
const SPINNER = '⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏';

/**
 * A job as lines: its phases, what its ranks print, and on a terminal one line below with the phase, its time and
 * the course of the loss, drawn anew by {@link tick}. Everything else that is written while it runs goes through
 * {@link note}, or it would meet that line.
 */
export class ProgressView {
  readonly #terminal: Terminal;
  readonly #now: () => number;
  readonly #phases = new Phases();
  readonly #courses = new Map<string, MetricCourse>();
  #waitReason = '';
  #labelWidth = LABEL_WIDTH;
  #ticks = 0;
  #hasStatusLine = false;

  constructor(terminal: Terminal, now: () => number = Date.now) {
    this.#terminal = terminal;
    this.#now = now;
  }

  show(event: TrainingJobEvent): void {
    switch (event.type) {
      case 'transition':
        this.#showPhase(event.status, event.at, event.message);
        break;
      case 'log': {
        this.#labelWidth = Math.max(this.#labelWidth, logLabel(event).length);
        this.#line(logLine(this.#terminal, event, this.#labelWidth).trimEnd());
        break;
      }
      case 'notice':
        this.note(event.host === null ? event.message : `${event.host}: ${event.message}`);
        break;
      case 'metric': {
        const course = this.#courses.get(event.name) ?? new MetricCourse(event.name);
        this.#courses.set(event.name, course);
        course.add(event.value);
        break;
      }
      case 'status':
        this.#showWaiting(event);
        break;
    }
  }

  /** Something to know beside the job's own lines. */
  note(message: string): void {
    this.#line(`${this.#terminal.style('yellow', 'note')} ${message}`);
  }

  /** Draws the line below anew; does nothing where lines cannot be rewritten. */
  tick(): void {
    if (!this.#terminal.isInteractive) return;
    this.#ticks += 1;
    this.#drawStatusLine();
  }

  /** Removes the line below; call before anything else writes. */
  clear(): void {
    if (this.#hasStatusLine) this.#terminal.write('\r\x1b[K');
    this.#hasStatusLine = false;
  }

  /** The phases with their times, and the course of the loss; empty lines are left out. */
  summary(): string[] {
    const course = courseToShow(this.#courses.values());
    const total = formatDuration(this.#phases.elapsedMs(this.#phases.current?.startedAt ?? 0));
    const phases = this.#phases.summary();
    return [
      ...(phases ? [`${total}: ${phases}`] : []),
      ...(course ? [`${course.range()}  ${course.bars(SPARKLINE_WIDTH)}`] : []),
    ];
  }

  #showPhase(name: string, startedAt: number, message: string): void {
    const before = this.#phases.current;
    if (!this.#phases.add({ name, startedAt })) return;
    if (this.#phases.isOver) return;
    const since = before ? ` after ${formatDuration(this.#phases.elapsedMs(startedAt))}` : '';
    const detail = message && !ORDINARY.has(name) ? `: ${message}` : '';
    // The reason for waiting comes as the message of its phase, and then again by itself.
    this.#waitReason = detail === '' ? '' : message;
    this.#line(this.#terminal.style('bold', `── ${name}${since}${detail}`));
  }

  /** Why the job has no hosts yet: only Trainyard says so, and it may change while the status does not. */
  #showWaiting(event: TrainingJobEvent & { type: 'status' }): void {
    const reason = 'waitReason' in event && typeof event.waitReason === 'string' ? event.waitReason : '';
    if (reason !== '' && reason !== this.#waitReason) this.note(reason);
    this.#waitReason = reason;
  }

  #line(text: string): void {
    this.clear();
    this.#terminal.write(`${text}\n`);
    if (this.#terminal.isInteractive) this.#drawStatusLine();
  }

  #drawStatusLine(): void {
    const phase = this.#phases.current;
    if (!phase || this.#phases.isOver) return;
    const course = courseToShow(this.#courses.values());
    const text = [
      `${SPINNER[this.#ticks % SPINNER.length]} ${phase.name} ${formatDuration(this.#now() - phase.startedAt)}`,
      ...(course ? [course.line(SPARKLINE_WIDTH)] : [this.#waitReason]),
      'Ctrl-C detaches',
    ]
      .filter(Boolean)
      .join(' · ');
    // A line that wraps could not be taken back.
    this.#terminal.write(
      `\r\x1b[K${this.#terminal.style('dim', truncate(text, this.#terminal.columns() - 1))}`,
    );
    this.#hasStatusLine = true;
  }
}

function truncate(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`;
}
