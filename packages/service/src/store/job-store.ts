import type { CreateTrainingJobRequest } from '@trainyard/api';
import type { ExecutorHandle } from '../executors/executor.ts';
import type {
  Outcome,
  SecondaryStatus,
  Stage,
  TrainingJobStatus,
  TransitionName,
} from '../jobs/lifecycle.ts';
import { NEXT_STAGES, TRANSITIONS } from '../jobs/lifecycle.ts';
import type { JobSpec } from '../jobs/spec.ts';
import type { Database } from './database.ts';

export type EndReason =
  | 'user'
  | 'max_runtime'
  | 'max_wait'
  | 'peer_failed'
  | 'host_lost'
  | 'prepare_failed'
  | 'script_ended';

export interface Transition {
  seq: number;
  status: SecondaryStatus;
  message: string;
  startedAt: number;
  endedAt: number | null;
}

/** One training job as stored. Times are epoch milliseconds. */
export interface Job {
  name: string;
  arn: string;
  request: CreateTrainingJobRequest;
  spec: JobSpec;
  status: TrainingJobStatus;
  secondaryStatus: SecondaryStatus;
  stage: Stage;
  attempt: number;
  waitReason: string | null;
  endReason: EndReason | null;
  outcome: Outcome | null;
  failureReason: string | null;
  handle: ExecutorHandle | null;
  createdAt: number;
  modifiedAt: number;
  trainingStartAt: number | null;
  trainingEndAt: number | null;
  attemptStartAt: number | null;
  /** Time on hosts of earlier attempts. */
  usedMs: number;
  stageSince: number;
  version: number;
}

/** What one step changes; absent members stay. A transition is closed and opened together with the job row. */
export interface JobChange {
  /** When it happened, where the change names that time itself; otherwise now. */
  at?: number;
  stage?: Stage;
  transition?: TransitionName;
  /** Overrides the table's message. */
  transitionMessage?: string;
  attempt?: number;
  waitReason?: string | null;
  endReason?: EndReason | null;
  outcome?: Outcome | null;
  failureReason?: string | null;
  handle?: ExecutorHandle | null;
  trainingStartAt?: number | null;
  trainingEndAt?: number | null;
  attemptStartAt?: number | null;
  usedMs?: number;
}

export interface ListQuery {
  nameContains: string | null;
  status: TrainingJobStatus | null;
  createdAfter: number | null;
  createdBefore: number | null;
  modifiedAfter: number | null;
  modifiedBefore: number | null;
  sortBy: 'Name' | 'CreationTime' | 'Status';
  ascending: boolean;
  /** Sort key and name of the last row already seen. */
  after: { key: string | number; name: string } | null;
  limit: number;
}

type Row = Record<string, string | number | null>;

/** The jobs table and its transitions: the only place that writes them. */
export class JobStore {
  readonly #db: Database;
  readonly #now: () => number;

  constructor(db: Database, now: () => number = Date.now) {
    this.#db = db;
    this.#now = now;
  }

  /** @returns false when a job of this name exists */
  insert(job: {
    arn: string;
    request: CreateTrainingJobRequest;
    spec: JobSpec;
    tags: { Key: string; Value: string }[];
  }): boolean {
    const now = this.#now();
    const first = TRANSITIONS.accepted;
    return this.#db.transaction(() => {
      const inserted = this.#db.sql
        .prepare(
          `INSERT INTO jobs (name, arn, request, spec, status, secondary_status, stage, created_at, modified_at, stage_since)
           VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?) ON CONFLICT DO NOTHING`,
        )
        .run(
          job.spec.name,
          job.arn,
          JSON.stringify(job.request),
          JSON.stringify(job.spec),
          first.status,
          first.secondary,
          now,
          now,
          now,
        );
      if (inserted.changes === 0) return false;
      this.#db.sql
        .prepare('INSERT INTO transitions (job, seq, status, message, started_at) VALUES (?, 0, ?, ?, ?)')
        .run(job.spec.name, first.secondary, first.message, now);
      for (const tag of job.tags) {
        this.#db.sql
          .prepare('INSERT OR REPLACE INTO tags (arn, key, value) VALUES (?, ?, ?)')
          .run(job.arn, tag.Key, tag.Value);
      }
      return true;
    });
  }

  get(name: string): Job | null {
    const row = this.#db.sql.prepare('SELECT * FROM jobs WHERE name = ?').get(name) as Row | undefined;
    return row ? toJob(row) : null;
  }

  getByArn(arn: string): Job | null {
    const row = this.#db.sql.prepare('SELECT * FROM jobs WHERE arn = ?').get(arn) as Row | undefined;
    return row ? toJob(row) : null;
  }

  /** Jobs that the loop still has to do with, oldest first. */
  open(): Job[] {
    return (
      this.#db.sql
        .prepare("SELECT * FROM jobs WHERE stage <> 'done' ORDER BY created_at, name")
        .all() as Row[]
    ).map(toJob);
  }

  transitions(name: string): Transition[] {
    return (
      this.#db.sql.prepare('SELECT * FROM transitions WHERE job = ? ORDER BY seq').all(name) as Row[]
    ).map((row) => ({
      seq: row.seq as number,
      status: row.status as SecondaryStatus,
      message: row.message as string,
      startedAt: row.started_at as number,
      endedAt: row.ended_at as number | null,
    }));
  }

  /**
   * Applies one step if the job is still at `version` (compare and set).
   *
   * @returns the job as it is now, or null when somebody else was faster and nothing changed
   */
  apply(job: Pick<Job, 'name' | 'version'>, change: JobChange): Job | null {
    return this.#db.transaction(() => {
      const current = this.get(job.name);
      if (!current || current.version !== job.version) return null;
      if (
        change.stage &&
        change.stage !== current.stage &&
        !NEXT_STAGES[current.stage].includes(change.stage)
      ) {
        throw new Error(`Job ${job.name} cannot go from stage ${current.stage} to ${change.stage}`);
      }
      const now = change.at ?? this.#now();
      const sets: string[] = ['version = version + 1', 'modified_at = :now'];
      const values: Record<string, string | number | null> = { now, name: job.name };
      const set = (column: string, value: string | number | null): void => {
        sets.push(`${column} = :${column}`);
        values[column] = value;
      };
      if (change.stage && change.stage !== current.stage) {
        set('stage', change.stage);
        set('stage_since', now);
      }
      if (change.transition) {
        const to = TRANSITIONS[change.transition];
        set('status', to.status);
        set('secondary_status', to.secondary);
        const message = change.transitionMessage ?? to.message;
        this.#db.sql
          .prepare('UPDATE transitions SET ended_at = ? WHERE job = ? AND ended_at IS NULL')
          .run(now, job.name);
        const isEnd = to.status === 'Completed' || to.status === 'Failed' || to.status === 'Stopped';
        this.#db.sql
          .prepare(
            `INSERT INTO transitions (job, seq, status, message, started_at, ended_at)
             SELECT ?, COALESCE(MAX(seq), -1) + 1, ?, ?, ?, ? FROM transitions WHERE job = ?`,
          )
          .run(job.name, to.secondary, message, now, isEnd ? now : null, job.name);
      }
      if (change.attempt !== undefined) set('attempt', change.attempt);
      if (change.waitReason !== undefined) set('wait_reason', change.waitReason);
      if (change.endReason !== undefined) set('stop_reason', change.endReason);
      if (change.outcome !== undefined)
        set('outcome', change.outcome === null ? null : JSON.stringify(change.outcome));
      if (change.failureReason !== undefined) set('failure_reason', change.failureReason);
      if (change.handle !== undefined)
        set('handle', change.handle === null ? null : JSON.stringify(change.handle));
      if (change.trainingStartAt !== undefined) set('training_start_at', change.trainingStartAt);
      if (change.trainingEndAt !== undefined) set('training_end_at', change.trainingEndAt);
      if (change.attemptStartAt !== undefined) set('attempt_start_at', change.attemptStartAt);
      if (change.usedMs !== undefined) set('used_ms', change.usedMs);
      this.#db.sql.prepare(`UPDATE jobs SET ${sets.join(', ')} WHERE name = :name`).run(values);
      return this.get(job.name);
    });
  }

  /**
   * The right to do slow work for a job, for `ms`. Held by one owner at a time; an owner that died loses it when
   * the time is over.
   */
  lease(name: string, owner: string, ms: number): boolean {
    const now = this.#now();
    const result = this.#db.sql
      .prepare(
        'UPDATE jobs SET lease_owner = ?, lease_until = ? WHERE name = ? AND (lease_owner IS NULL OR lease_owner = ? OR lease_until < ?)',
      )
      .run(owner, now + ms, name, owner, now);
    return result.changes === 1;
  }

  /** For the start of a service that holds its directory's lock: every earlier owner is dead. */
  breakLeases(): void {
    this.#db.sql.prepare('UPDATE jobs SET lease_owner = NULL WHERE lease_owner IS NOT NULL').run();
  }

  release(name: string, owner: string): void {
    this.#db.sql
      .prepare('UPDATE jobs SET lease_owner = NULL WHERE name = ? AND lease_owner = ?')
      .run(name, owner);
  }

  list(query: ListQuery): Job[] {
    const column = { Name: 'name', CreationTime: 'created_at', Status: 'status' }[query.sortBy];
    const direction = query.ascending ? 'ASC' : 'DESC';
    const than = query.ascending ? '>' : '<';
    const where: string[] = ['1 = 1'];
    const values: (string | number)[] = [];
    const filter = (condition: string, ...parameters: (string | number)[]): void => {
      where.push(condition);
      values.push(...parameters);
    };
    if (query.nameContains !== null) filter('instr(lower(name), lower(?)) > 0', query.nameContains);
    if (query.status !== null) filter('status = ?', query.status);
    if (query.createdAfter !== null) filter('created_at > ?', query.createdAfter);
    if (query.createdBefore !== null) filter('created_at < ?', query.createdBefore);
    if (query.modifiedAfter !== null) filter('modified_at > ?', query.modifiedAfter);
    if (query.modifiedBefore !== null) filter('modified_at < ?', query.modifiedBefore);
    if (query.after !== null) {
      filter(
        `(${column} ${than} ? OR (${column} = ? AND name ${than} ?))`,
        query.after.key,
        query.after.key,
        query.after.name,
      );
    }
    return (
      this.#db.sql
        .prepare(
          `SELECT * FROM jobs WHERE ${where.join(' AND ')} ORDER BY ${column} ${direction}, name ${direction} LIMIT ?`,
        )
        .all(...values, query.limit) as Row[]
    ).map(toJob);
  }

  /** Removes a finished job's record; artifacts and logs stay. */
  delete(name: string): void {
    this.#db.transaction(() => {
      const job = this.get(name);
      if (!job) return;
      this.#db.sql.prepare('DELETE FROM tags WHERE arn = ?').run(job.arn);
      this.#db.sql.prepare('DELETE FROM jobs WHERE name = ?').run(name);
    });
  }

  tags(arn: string): { Key: string; Value: string }[] {
    return (
      this.#db.sql.prepare('SELECT key, value FROM tags WHERE arn = ? ORDER BY key').all(arn) as Row[]
    ).map((row) => ({
      Key: row.key as string,
      Value: row.value as string,
    }));
  }

  setTags(arn: string, tags: { Key: string; Value: string }[]): void {
    this.#db.transaction(() => {
      for (const tag of tags) {
        this.#db.sql
          .prepare('INSERT OR REPLACE INTO tags (arn, key, value) VALUES (?, ?, ?)')
          .run(arn, tag.Key, tag.Value);
      }
    });
  }

  deleteTags(arn: string, keys: string[]): void {
    for (const key of keys) this.#db.sql.prepare('DELETE FROM tags WHERE arn = ? AND key = ?').run(arn, key);
  }
}

function toJob(row: Row): Job {
  const json = <T>(value: string | number | null | undefined): T | null =>
    value === null || value === undefined ? null : (JSON.parse(value as string) as T);
  return {
    name: row.name as string,
    arn: row.arn as string,
    request: json<CreateTrainingJobRequest>(row.request)!,
    spec: json<JobSpec>(row.spec)!,
    status: row.status as TrainingJobStatus,
    secondaryStatus: row.secondary_status as SecondaryStatus,
    stage: row.stage as Stage,
    attempt: row.attempt as number,
    waitReason: row.wait_reason as string | null,
    endReason: row.stop_reason as EndReason | null,
    outcome: json<Outcome>(row.outcome),
    failureReason: row.failure_reason as string | null,
    handle: json<ExecutorHandle>(row.handle),
    createdAt: row.created_at as number,
    modifiedAt: row.modified_at as number,
    trainingStartAt: row.training_start_at as number | null,
    trainingEndAt: row.training_end_at as number | null,
    attemptStartAt: row.attempt_start_at as number | null,
    usedMs: row.used_ms as number,
    stageSince: row.stage_since as number,
    version: row.version as number,
  };
}
