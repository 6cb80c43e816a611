import { createHash } from 'node:crypto';
import type { HostCommand, HostPhase, HostPlan, HostReport } from '@trainyard/api';
import type { Database } from './database.ts';

export type ExitedReport = Extract<HostReport, { kind: 'exited' }>;
export type FailedReport = Extract<HostReport, { kind: 'failed' }>;

/** One host of one attempt, as far as its agent and the executor have told. */
export interface Host {
  job: string;
  attempt: number;
  host: string;
  plan: HostPlan;
  phase: HostPhase | null;
  logStream: string | null;
  registeredAt: number | null;
  lastSeenAt: number | null;
  nextReportSeq: number;
  exited: ExitedReport | null;
  failed: FailedReport | null;
  gone: string | null;
}

export interface Notice {
  seq: number;
  attempt: number;
  host: string | null;
  code: string;
  message: string;
  at: number;
}

type Row = Record<string, string | number | null>;

/** A command without its number, of each kind. */
export type NewCommand = HostCommand extends infer C
  ? C extends HostCommand
    ? Omit<C, 'id'>
    : never
  : never;

export function hashToken(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

/** Hosts, their commands and the notices of a job. Tokens are kept as SHA-256 only. */
export class HostStore {
  readonly #db: Database;
  readonly #now: () => number;

  constructor(db: Database, now: () => number = Date.now) {
    this.#db = db;
    this.#now = now;
  }

  insert(job: string, attempt: number, hosts: { plan: HostPlan; token: string }[]): void {
    this.#db.transaction(() => {
      for (const { plan, token } of hosts) {
        this.#db.sql
          .prepare(
            'INSERT OR REPLACE INTO hosts (job, attempt, host, token_hash, plan) VALUES (?, ?, ?, ?, ?)',
          )
          .run(job, attempt, plan.host, hashToken(token), JSON.stringify(plan));
      }
    });
  }

  byToken(token: string): Host | null {
    const row = this.#db.sql.prepare('SELECT * FROM hosts WHERE token_hash = ?').get(hashToken(token)) as
      | Row
      | undefined;
    return row ? toHost(row) : null;
  }

  ofAttempt(job: string, attempt: number): Host[] {
    return (
      this.#db.sql
        .prepare('SELECT * FROM hosts WHERE job = ? AND attempt = ? ORDER BY host')
        .all(job, attempt) as Row[]
    ).map(toHost);
  }

  registered(host: Host, logStream: string): void {
    this.#db.sql
      .prepare(
        `UPDATE hosts SET registered_at = COALESCE(registered_at, ?), last_seen_at = ?, log_stream = COALESCE(log_stream, ?),
         phase = COALESCE(phase, 'registered') WHERE job = ? AND attempt = ? AND host = ?`,
      )
      .run(this.#now(), this.#now(), logStream, host.job, host.attempt, host.host);
  }

  seen(host: Host): void {
    this.#db.sql
      .prepare('UPDATE hosts SET last_seen_at = ? WHERE job = ? AND attempt = ? AND host = ?')
      .run(this.#now(), host.job, host.attempt, host.host);
  }

  /**
   * Applies reports in order, each number once.
   *
   * @returns the next number expected
   */
  applyReports(host: Host, reports: HostReport[]): number {
    return this.#db.transaction(() => {
      let next = (
        this.#db.sql
          .prepare('SELECT next_report_seq AS next FROM hosts WHERE job = ? AND attempt = ? AND host = ?')
          .get(host.job, host.attempt, host.host) as { next: number }
      ).next;
      const set = (column: 'phase' | 'exited' | 'failed', value: string): void => {
        this.#db.sql
          .prepare(`UPDATE hosts SET ${column} = ? WHERE job = ? AND attempt = ? AND host = ?`)
          .run(value, host.job, host.attempt, host.host);
      };
      for (const report of reports) {
        if (report.seq !== next) continue;
        next++;
        switch (report.kind) {
          case 'phase':
            set('phase', report.phase);
            break;
          case 'exited':
            set('exited', JSON.stringify(report));
            set('phase', 'exited');
            break;
          case 'failed':
            set('failed', JSON.stringify(report));
            set('phase', 'failed');
            break;
          case 'notice':
            this.notice(host.job, host.attempt, host.host, report.code, report.message);
            break;
        }
      }
      this.#db.sql
        .prepare(
          'UPDATE hosts SET next_report_seq = ?, last_seen_at = ? WHERE job = ? AND attempt = ? AND host = ?',
        )
        .run(next, this.#now(), host.job, host.attempt, host.host);
      return next;
    });
  }

  gone(job: string, attempt: number, host: string, detail: string): void {
    this.#db.sql
      .prepare('UPDATE hosts SET gone = ? WHERE job = ? AND attempt = ? AND host = ? AND gone IS NULL')
      .run(detail, job, attempt, host);
  }

  /** Adds a command unless one of the same kind was given to this host before: steps may be repeated. */
  command(job: string, attempt: number, host: string, command: NewCommand): void {
    this.#db.sql
      .prepare(
        `INSERT INTO host_commands (job, attempt, host, id, kind, body)
         SELECT :job, :attempt, :host, (SELECT COALESCE(MAX(id), -1) + 1 FROM host_commands WHERE job = :job AND attempt = :attempt AND host = :host), :kind, :body
         WHERE NOT EXISTS (SELECT 1 FROM host_commands WHERE job = :job AND attempt = :attempt AND host = :host AND kind = :kind)`,
      )
      .run({ job, attempt, host, kind: command.kind, body: JSON.stringify(command) });
  }

  commandsAfter(host: Host, acked: number): HostCommand[] {
    return (
      this.#db.sql
        .prepare(
          'SELECT id, body FROM host_commands WHERE job = ? AND attempt = ? AND host = ? AND id > ? ORDER BY id',
        )
        .all(host.job, host.attempt, host.host, acked) as Row[]
    ).map((row) => ({ ...(JSON.parse(row.body as string) as object), id: row.id as number }) as HostCommand);
  }

  notice(job: string, attempt: number, host: string | null, code: string, message: string): void {
    const known = this.#db.sql
      .prepare(
        'SELECT 1 FROM notices WHERE job = ? AND attempt = ? AND host IS ? AND code = ? AND message = ?',
      )
      .get(job, attempt, host, code, message);
    if (known) return;
    this.#db.sql
      .prepare('INSERT INTO notices (job, attempt, host, code, message, at) VALUES (?, ?, ?, ?, ?, ?)')
      .run(job, attempt, host, code, message, this.#now());
  }

  notices(job: string, afterSeq = 0): Notice[] {
    return (
      this.#db.sql
        .prepare('SELECT * FROM notices WHERE job = ? AND seq > ? ORDER BY seq')
        .all(job, afterSeq) as Row[]
    ).map((row) => ({
      seq: row.seq as number,
      attempt: row.attempt as number,
      host: row.host as string | null,
      code: row.code as string,
      message: row.message as string,
      at: row.at as number,
    }));
  }
}

function toHost(row: Row): Host {
  const json = <T>(value: string | number | null | undefined): T | null =>
    value === null || value === undefined ? null : (JSON.parse(value as string) as T);
  return {
    job: row.job as string,
    attempt: row.attempt as number,
    host: row.host as string,
    plan: json<HostPlan>(row.plan)!,
    phase: row.phase as HostPhase | null,
    logStream: row.log_stream as string | null,
    registeredAt: row.registered_at as number | null,
    lastSeenAt: row.last_seen_at as number | null,
    nextReportSeq: row.next_report_seq as number,
    exited: json<ExitedReport>(row.exited),
    failed: json<FailedReport>(row.failed),
    gone: row.gone as string | null,
  };
}
