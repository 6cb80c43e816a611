import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { ChannelPlan, ChannelSource, ListEntry, S3Client } from '@trainyard/api';
import { channelManifestPath, parseS3Uri, ServiceError } from '@trainyard/api';
import type { AgentLog } from './agent-log.ts';
import { replaceFile } from './atomic-file.ts';
import { formatBytes, formatSeconds, plural } from './clock.ts';
import { downloadFiles, isFinal } from './download.ts';
import { HostFailure } from './host-failure.ts';
import type { Layout } from './layout.ts';
import type { ObjectFile } from './object-paths.ts';
import { filesOf, pathOfKey, readManifest, shardOf } from './object-paths.ts';
import { mapPool } from './pool.ts';
import { retryForever } from './retry.ts';
import type { AttemptPlan } from './plan.ts';

const HEAD_CONCURRENCY = 16;

export interface ChannelDeps {
  plan: AttemptPlan;
  layout: Layout;
  s3: Pick<S3Client, 'listObjects' | 'getObject' | 'headObject'>;
  log: AgentLog;
  signal: AbortSignal;
}

/** Makes one channel's data be there. May be repeated; files that are whole stay. @throws HostFailure */
export async function prepareChannel(channel: ChannelPlan, deps: ChannelDeps): Promise<void> {
  const { source } = channel;
  const directory = deps.layout.channel(channel.name);
  if (source.kind === 'mounted') return checkMount(channel.name, deps.layout.localise(source.directory));
  const started = performance.now();
  const { bucket, files } = await resolve(source, channel.name, deps);
  const result = await asClientError(source.uri, 'GetObject', () =>
    downloadFiles(files, {
      s3: deps.s3,
      bucket,
      directory,
      partialDirectory: join(deps.layout.of('input'), '.partial', channel.name),
      signal: deps.signal,
    }),
  );
  const manifest = files.map(({ path }) => path);
  await replaceFile(join(deps.layout.root, channelManifestPath(channel.name)), JSON.stringify(manifest));
  const took = formatSeconds(performance.now() - started);
  deps.log.say(
    `Downloaded channel ${channel.name}: ${plural(result.files, 'file')}, ${formatBytes(result.sizeBytes)} in ${took}`,
  );
}

async function checkMount(name: string, directory: string): Promise<void> {
  const found = await stat(directory).catch(() => null);
  if (found?.isDirectory()) return;
  throw new HostFailure(
    'InternalServerError',
    `Channel ${name} should be mounted at ${directory}, but nothing is there.`,
  );
}

type S3Source = Extract<ChannelSource, { kind: 's3' }>;

/** The objects that belong to this host, and where they go. */
async function resolve(
  source: S3Source,
  channel: string,
  deps: ChannelDeps,
): Promise<{ bucket: string; files: ObjectFile[] }> {
  const where = `Channel ${channel}`;
  const { bucket, all } =
    source.dataType === 'S3Prefix' ? await listPrefix(source, deps) : await listManifest(source, deps);
  if (all.length === 0) {
    throw new HostFailure(
      'ClientError',
      `Failed to download data. ${where}: no objects found under ${source.uri}. Please ensure that there is at least one object under this prefix.`,
    );
  }
  const sorted = all.toSorted((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)));
  const { host } = deps.plan;
  const sharing = source.shardHosts ?? deps.plan.hosts;
  const mine =
    source.distribution === 'ShardedByS3Key'
      ? shardOf(sorted, sharing.indexOf(host), sharing.length)
      : sorted;
  // Every object is checked on every host, so that all hosts refuse a channel together.
  const paths = filesOf(sorted, pathOf(sorted), where);
  const keys = new Set(mine.map(({ key }) => key));
  return { bucket, files: paths.filter(({ key }) => keys.has(key)) };
}

interface ListedObject {
  key: string;
  sizeBytes: number;
  etag: string;
  path: string;
}

function pathOf(objects: readonly ListedObject[]): (key: string) => string {
  const paths = new Map(objects.map(({ key, path }) => [key, path]));
  return (key) => paths.get(key)!;
}

async function listPrefix(
  source: S3Source,
  deps: ChannelDeps,
): Promise<{ bucket: string; all: ListedObject[] }> {
  const { bucket, key: prefix } = parseS3Uri(source.uri);
  const entries = await asClientError(source.uri, 'ListObjectsV2', () =>
    retryForever(() => listAll(deps, bucket, prefix), { signal: deps.signal, isFinal }),
  );
  return { bucket, all: entries.map((entry) => ({ ...entry, path: pathOfKey(prefix, entry.key) })) };
}

export async function listAll(
  { s3, signal }: Pick<ChannelDeps, 'signal'> & { s3: Pick<S3Client, 'listObjects'> },
  bucket: string,
  prefix: string,
): Promise<Extract<ListEntry, { kind: 'object' }>[]> {
  const found: Extract<ListEntry, { kind: 'object' }>[] = [];
  for await (const entry of s3.listObjects({ bucket, prefix, signal })) {
    if (entry.kind === 'object') found.push(entry);
  }
  return found;
}

async function listManifest(
  source: S3Source,
  deps: ChannelDeps,
): Promise<{ bucket: string; all: ListedObject[] }> {
  const { s3, signal } = deps;
  const at = parseS3Uri(source.uri);
  const text = await asClientError(source.uri, 'GetObject', () =>
    retryForever(async () => new Response((await s3.getObject({ ...at, signal })).body).text(), {
      signal,
      isFinal,
    }),
  );
  const { prefix, names } = readManifest(text, source.uri);
  const base = parseS3Uri(prefix);
  const all = await mapPool(names, HEAD_CONCURRENCY, (name) => {
    const key = base.key + name;
    const head = async (): Promise<ListedObject> => {
      const { sizeBytes, etag } = await s3.headObject({ bucket: base.bucket, key, signal });
      return { key, sizeBytes, etag, path: name };
    };
    return asClientError(`s3://${base.bucket}/${key}`, 'HeadObject', () =>
      retryForever(head, { signal, isFinal }),
    );
  });
  return { bucket: base.bucket, all };
}

/** An answer of the store about the user's data is the user's to mend. */
async function asClientError<T>(uri: string, operation: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    const message = `Failed to download data. ${operation} failed for ${uri}: ${error.code}: ${error.message}`;
    throw new HostFailure('ClientError', message, error);
  }
}
