import type { Migration } from './index.ts';

/** Index of the embedded object store: what a blob on disk is. All times are epoch milliseconds. */
export const objectsMigration: Migration = {
  id: 2,
  name: 'objects',
  sql: `
CREATE TABLE buckets (
  name       TEXT PRIMARY KEY,
  region     TEXT NOT NULL,
  created_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE objects (
  id                 INTEGER PRIMARY KEY,
  bucket             TEXT NOT NULL REFERENCES buckets (name),
  key                TEXT NOT NULL,              -- compared as UTF-8 bytes, the order in which S3 lists
  size_bytes         INTEGER NOT NULL,
  etag               TEXT NOT NULL,              -- without quotes
  modified_at        INTEGER NOT NULL,
  metadata           TEXT NOT NULL,              -- JSON object of strings, as it was put
  checksum_algorithm TEXT,
  checksum_type      TEXT,                       -- FULL_OBJECT or COMPOSITE
  checksum_value     TEXT,                       -- base64, or base64-N for COMPOSITE
  part_count         INTEGER,                    -- null unless it came from a multipart upload
  upload_id          TEXT UNIQUE,                -- that upload, so that a repeated completion succeeds
  UNIQUE (bucket, key)
);

-- The bytes of an object are its blobs in order; a multipart object keeps one per part.
CREATE TABLE object_blobs (
  object     INTEGER NOT NULL REFERENCES objects (id) ON DELETE CASCADE,
  position   INTEGER NOT NULL,
  blob       TEXT NOT NULL UNIQUE,
  size_bytes INTEGER NOT NULL,
  checksum   TEXT,                               -- of this part, base64
  PRIMARY KEY (object, position)
) WITHOUT ROWID;

CREATE TABLE multipart_uploads (
  id                 TEXT PRIMARY KEY,
  bucket             TEXT NOT NULL REFERENCES buckets (name) ON DELETE CASCADE,
  key                TEXT NOT NULL,
  metadata           TEXT NOT NULL,
  checksum_algorithm TEXT,
  checksum_type      TEXT,
  initiated_at       INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX multipart_uploads_by_key ON multipart_uploads (bucket, key, id);

CREATE TABLE multipart_parts (
  upload      TEXT NOT NULL REFERENCES multipart_uploads (id) ON DELETE CASCADE,
  part_number INTEGER NOT NULL,
  blob        TEXT NOT NULL UNIQUE,
  size_bytes  INTEGER NOT NULL,
  etag        TEXT NOT NULL,
  checksum    TEXT,
  modified_at INTEGER NOT NULL,
  PRIMARY KEY (upload, part_number)
) WITHOUT ROWID;
`,
};
