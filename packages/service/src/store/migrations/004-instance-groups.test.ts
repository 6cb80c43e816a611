import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openDatabase } from '../database.ts';
import { JobStore } from '../job-store.ts';
import { MIGRATIONS } from './index.ts';

test('a job that was stored before there were groups is one group, and its channels are for all', () => {
  const folder = mkdtempSync(join(tmpdir(), 'trainyard-migration-'));
  const path = join(folder, 'trainyard.sqlite');
  try {
    const earlier = openDatabase(
      path,
      MIGRATIONS.filter(({ id }) => id < 4),
    );
    const s3 = { kind: 's3', uri: 's3://bucket/data', distribution: 'FullyReplicated' };
    const folderSource = { kind: 'file_system', fileSystemId: 'fs-1', readOnly: true };
    const spec = {
      name: 'old',
      instanceType: 'ml.m5.xlarge',
      instanceCount: 2,
      channels: [
        { name: 'train', source: s3, contentType: null },
        { name: 'val', source: folderSource, contentType: null },
      ],
    };
    earlier.sql
      .prepare(
        `INSERT INTO jobs (name, arn, request, spec, status, secondary_status, stage, created_at, modified_at, stage_since)
         VALUES ('old', 'arn', '{}', ?, 'InProgress', 'Starting', 'queued', 1, 1, 1)`,
      )
      .run(JSON.stringify(spec));
    earlier.close();

    const now = openDatabase(path);
    expect(new JobStore(now).get('old')?.spec).toEqual({
      ...spec,
      instanceGroups: [{ name: 'homogeneousCluster', instanceType: 'ml.m5.xlarge', instanceCount: 2 }],
      channels: [
        { name: 'train', source: { ...s3, instanceGroups: null }, contentType: null },
        { name: 'val', source: folderSource, contentType: null },
      ],
    });
    now.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
