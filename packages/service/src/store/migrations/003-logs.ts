import type { Migration } from './index.ts';

/** Log groups, streams, events and the metric points found in them. All times are epoch milliseconds. */
export const logsMigration: Migration = {
  id: 3,
  name: 'logs',
  sql: `
CREATE TABLE log_groups (
  name       TEXT PRIMARY KEY,
  created_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE log_streams (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again, so tokens and event ids stay unique
  group_name       TEXT NOT NULL,
  name             TEXT NOT NULL,
  job              TEXT,                               -- set together with attempt and host for a host's stream
  attempt          INTEGER,
  host             TEXT,
  created_at       INTEGER NOT NULL,
  next_seq         INTEGER NOT NULL DEFAULT 0,         -- never goes back, not even when the stream is deleted
  first_at         INTEGER,
  last_at          INTEGER,
  last_ingested_at INTEGER,
  stored_bytes     INTEGER NOT NULL DEFAULT 0,
  is_deleted       INTEGER NOT NULL DEFAULT 0,         -- hidden and empty; the next line brings it back
  UNIQUE (group_name, name)
);
CREATE INDEX log_streams_by_job ON log_streams (job) WHERE job IS NOT NULL;

CREATE TABLE log_events (
  stream      INTEGER NOT NULL,                        -- log_streams.id
  seq         INTEGER NOT NULL,
  at          INTEGER NOT NULL,
  ingested_at INTEGER NOT NULL,
  source      TEXT NOT NULL,                           -- stdout, stderr, agent; client for PutLogEvents
  rank        INTEGER,
  message     TEXT NOT NULL,
  PRIMARY KEY (stream, seq)
) WITHOUT ROWID;
CREATE INDEX log_events_by_time ON log_events (stream, at);

CREATE TABLE metric_points (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,           -- order of arrival
  job     TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  host    TEXT NOT NULL,
  rank    INTEGER,
  name    TEXT NOT NULL,
  at      INTEGER NOT NULL,
  seq     INTEGER NOT NULL,                            -- of the line in the host's stream
  value   REAL NOT NULL
);
CREATE INDEX metric_points_by_name ON metric_points (job, name, at);
CREATE INDEX metric_points_by_job ON metric_points (job);
`,
};
