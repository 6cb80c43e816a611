import { jobsMigration } from './001-jobs.ts';
import { objectsMigration } from './002-objects.ts';
import { logsMigration } from './003-logs.ts';
import { instanceGroupsMigration } from './004-instance-groups.ts';

/** A numbered step of the schema; once released it never changes. */
export interface Migration {
  id: number;
  name: string;
  sql: string;
}

/** Every folder that owns tables adds its step here. */
export const MIGRATIONS: readonly Migration[] = [
  jobsMigration,
  objectsMigration,
  logsMigration,
  instanceGroupsMigration,
];
