import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { type Database, openDatabase } from '../store/database.ts';
import { objectsMigration } from '../store/migrations/002-objects.ts';
import { DiskObjectStore } from './disk-object-store.ts';

export interface TestStore {
  store: DiskObjectStore;
  directory: string;
  database: Database;
  clock: { now: number };
  /** A second start on the same data, as after a crash. */
  reopen: () => Promise<DiskObjectStore>;
  /** Names of all files below the directory, and of leftovers in `incoming`. */
  files: () => Promise<{ blobs: string[]; incoming: string[] }>;
}

/** A store with the bucket `bucket` in a temporary directory that goes with the test. */
export async function createTestStore(): Promise<TestStore> {
  const directory = await mkdtemp(join(tmpdir(), 'trainyard-objects-'));
  const database = openDatabase(join(directory, 'index.sqlite'), [objectsMigration]);
  onTestFinished(async () => {
    database.close();
    await rm(directory, { recursive: true, force: true });
  });
  const clock = { now: Date.UTC(2026, 10, 5, 12, 0, 0) };
  const objects = join(directory, 'objects');
  const reopen = () =>
    DiskObjectStore.open({ directory: objects, database, region: 'us-west-2', now: () => clock.now });
  const store = await reopen();
  await store.createBucket('bucket');
  return {
    store,
    directory: objects,
    database,
    clock,
    reopen,
    files: async () => {
      const shards = await readdir(join(objects, 'blobs'));
      const blobs = await Promise.all(shards.map((shard) => readdir(join(objects, 'blobs', shard))));
      return { blobs: blobs.flat().toSorted(), incoming: await readdir(join(objects, 'incoming')) };
    },
  };
}

export async function* chunks(...data: (string | Uint8Array)[]): AsyncGenerator<Uint8Array> {
  for (const chunk of data) yield typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
}

export async function readAll(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of stream) parts.push(chunk);
  return Buffer.concat(parts);
}

export async function readObject(store: DiskObjectStore, bucket: string, key: string): Promise<string> {
  const opened = await store.openObject(bucket, key);
  try {
    return (await readAll(await opened.read())).toString();
  } finally {
    await opened.close();
  }
}
