import { randomBytes } from 'node:crypto';
import type { AccessCredentials } from '@trainyard/api';
import type { Database } from './database.ts';

export interface JobKey extends AccessCredentials {
  job: string;
  attempt: number;
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

/** An access key id of AWS's shape: `AKIA…` long-lived, `ASIA…` temporary; 80 random bits. */
export function newAccessKeyId(prefix: 'AKIA' | 'ASIA'): string {
  return prefix + Array.from(randomBytes(16), (byte) => ALPHABET[byte & 31]).join('');
}

export function newSecret(bytes: number): string {
  return randomBytes(bytes).toString('base64url');
}

/** Expiring credentials, each of one job and attempt. */
export class KeyStore {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  mint(job: string, attempt: number, expiresAt: number): AccessCredentials {
    const key = {
      accessKeyId: newAccessKeyId('ASIA'),
      secretAccessKey: newSecret(30),
      sessionToken: newSecret(48),
      expiresAt,
    };
    this.#db.sql
      .prepare(
        'INSERT INTO job_keys (access_key_id, secret_access_key, session_token, job, attempt, expires_at) VALUES (?, ?, ?, ?, ?, ?)',
      )
      .run(key.accessKeyId, key.secretAccessKey, key.sessionToken, job, attempt, expiresAt);
    return key;
  }

  find(accessKeyId: string): JobKey | null {
    const row = this.#db.sql.prepare('SELECT * FROM job_keys WHERE access_key_id = ?').get(accessKeyId) as
      | Record<string, string | number>
      | undefined;
    if (!row) return null;
    return {
      accessKeyId,
      secretAccessKey: row.secret_access_key as string,
      sessionToken: row.session_token as string,
      job: row.job as string,
      attempt: row.attempt as number,
      expiresAt: row.expires_at as number,
    };
  }

  /** The keys of an attempt end with it. */
  revoke(job: string, attempt: number): void {
    this.#db.sql.prepare('DELETE FROM job_keys WHERE job = ? AND attempt = ?').run(job, attempt);
  }
}
