import type { Migration } from './index.ts';

/** Jobs, their transitions, hosts and commands; keys; tags; registered folders. All times are epoch milliseconds. */
export const jobsMigration: Migration = {
  id: 1,
  name: 'jobs',
  sql: `
CREATE TABLE jobs (
  name             TEXT PRIMARY KEY,
  arn              TEXT NOT NULL UNIQUE,
  request          TEXT NOT NULL,               -- CreateTrainingJob body as accepted, JSON
  spec             TEXT NOT NULL,               -- compiled JobSpec, JSON
  status           TEXT NOT NULL,               -- TrainingJobStatus
  secondary_status TEXT NOT NULL,               -- SecondaryStatus of the last transition
  stage            TEXT NOT NULL,               -- where the attempt stands; see jobs/lifecycle.ts
  attempt          INTEGER NOT NULL DEFAULT 1,
  wait_reason      TEXT,
  stop_reason      TEXT,                        -- user, max_runtime, max_wait, host_lost, peer_failed, prepare_failed
  outcome          TEXT,                        -- decided but not yet published end, JSON
  failure_reason   TEXT,
  handle           TEXT,                        -- ExecutorHandle of the running attempt, JSON
  created_at       INTEGER NOT NULL,
  modified_at      INTEGER NOT NULL,
  training_start_at INTEGER,
  training_end_at  INTEGER,
  attempt_start_at INTEGER,
  used_ms          INTEGER NOT NULL DEFAULT 0,  -- time on hosts of finished attempts
  stage_since      INTEGER NOT NULL,
  version          INTEGER NOT NULL DEFAULT 0,  -- compare-and-set
  lease_owner      TEXT,
  lease_until      INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX jobs_by_creation ON jobs (created_at, name);
CREATE INDEX jobs_open ON jobs (stage) WHERE stage <> 'done';

CREATE TABLE transitions (
  job        TEXT NOT NULL REFERENCES jobs (name) ON DELETE CASCADE,
  seq        INTEGER NOT NULL,
  status     TEXT NOT NULL,
  message    TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at   INTEGER,
  PRIMARY KEY (job, seq)
);

CREATE TABLE hosts (
  job             TEXT NOT NULL REFERENCES jobs (name) ON DELETE CASCADE,
  attempt         INTEGER NOT NULL,
  host            TEXT NOT NULL,
  token_hash      TEXT NOT NULL UNIQUE,
  plan            TEXT NOT NULL,                -- HostPlan, JSON
  phase           TEXT,                         -- HostPhase; null before register
  log_stream      TEXT,
  registered_at   INTEGER,
  last_seen_at    INTEGER,
  next_report_seq INTEGER NOT NULL DEFAULT 0,
  exited          TEXT,                         -- HostReport kind exited, JSON
  failed          TEXT,                         -- HostReport kind failed, JSON
  gone            TEXT,                         -- why the executor says it is gone
  PRIMARY KEY (job, attempt, host)
);

CREATE TABLE host_commands (
  job     TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  host    TEXT NOT NULL,
  id      INTEGER NOT NULL,
  kind    TEXT NOT NULL,
  body    TEXT NOT NULL,
  PRIMARY KEY (job, attempt, host, id),
  FOREIGN KEY (job, attempt, host) REFERENCES hosts (job, attempt, host) ON DELETE CASCADE
);

CREATE TABLE notices (
  seq     INTEGER PRIMARY KEY AUTOINCREMENT,
  job     TEXT NOT NULL REFERENCES jobs (name) ON DELETE CASCADE,
  attempt INTEGER NOT NULL,
  host    TEXT,
  code    TEXT NOT NULL,
  message TEXT NOT NULL,
  at      INTEGER NOT NULL
);
CREATE INDEX notices_by_job ON notices (job, seq);

CREATE TABLE tags (
  arn   TEXT NOT NULL,
  key   TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (arn, key)
);

CREATE TABLE job_keys (
  access_key_id     TEXT PRIMARY KEY,
  secret_access_key TEXT NOT NULL,
  session_token     TEXT NOT NULL,
  job               TEXT NOT NULL REFERENCES jobs (name) ON DELETE CASCADE,
  attempt           INTEGER NOT NULL,
  expires_at        INTEGER NOT NULL
);

CREATE TABLE file_systems (
  id         TEXT PRIMARY KEY,                  -- fs-0123456789abcdef0
  path       TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL
);
`,
};
