import { Readable } from 'node:stream';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { constants, createGzip } from 'node:zlib';
import type { ArtifactFile, S3Client } from '@trainyard/api';
import { isServiceError, parseS3Uri, ServiceError } from '@trainyard/api';
import type { AgentLog } from './agent-log.ts';
import { formatBytes, formatSeconds, plural } from './clock.ts';
import type { ArtifactKind, ControlChannel } from './control-channel.ts';
import { isFinal } from './download.ts';
import { HostFailure } from './host-failure.ts';
import type { Layout } from './layout.ts';
import { mapPool } from './pool.ts';
import { retryForever } from './retry.ts';
import type { StateStore, UploadCommand } from './state.ts';
import { TAR_END, tarEntries } from './tar-writer.ts';
import { uploadFile, uploadStream } from './upload.ts';
import { walkFiles } from './walk.ts';
import type { AttemptPlan } from './plan.ts';

export interface ArtifactDeps {
  plan: AttemptPlan;
  layout: Layout;
  s3: Pick<S3Client, 'putObject' | 'uploadMultipart'>;
  channel: Pick<ControlChannel, 'putPart' | 'getPart'>;
  state: StateStore;
  log: AgentLog;
}

const CONCURRENCY = 4;

/** How long an upload waits for room in the store before the job ends without it. */
const STORE_FULL_PATIENCE_MS = 10 * 60_000;

/**
 * A full store gets time to be emptied: the model is not thrown away at once. What a failed script left is not
 * waited for, since it may itself be what fills the disk.
 */
function uploadEnds(state: StateStore): (error: unknown) => boolean {
  const started = performance.now();
  return (error) =>
    isFinal(error) ||
    (isServiceError(error, 'InsufficientStorage') &&
      (state.current.hasFailed || performance.now() - started > STORE_FULL_PATIENCE_MS));
}

const folderOf = (layout: Layout, kind: ArtifactKind): string =>
  layout.of(kind === 'model' ? 'model' : 'outputData');

/** What this host has to offer. */
export async function listArtifacts(
  layout: Layout,
): Promise<{ model: ArtifactFile[]; output: ArtifactFile[] }> {
  const list = async (kind: ArtifactKind): Promise<ArtifactFile[]> =>
    (await walkFiles(folderOf(layout, kind))).map(({ path, sizeBytes }) => ({ path, sizeBytes }));
  const [model, output] = await Promise.all([list('model'), list('output')]);
  return { model, output };
}

/**
 * This host's share of the upload. May be repeated: what is in the store already is not sent again.
 *
 * @throws HostFailure when the store refuses
 */
export async function uploadArtifacts(command: UploadCommand, deps: ArtifactDeps): Promise<void> {
  for (const note of command.notes) deps.log.say(note);
  const share =
    deps.plan.outputCompression === 'NONE' ? uploadPlain : command.lead ? uploadArchive : sendPart;
  try {
    await Promise.all((['model', 'output'] as const).map((kind) => share(kind, command, deps)));
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    const message = `Artifact upload failed: ${deps.plan.outputS3Uri}: ${error.code}: ${error.message}`;
    throw new HostFailure('ClientError', message, error);
  }
}

/** Does a piece of work once over all lives of the agent. */
async function once(name: string, { state }: ArtifactDeps, work: () => Promise<void>): Promise<void> {
  if (state.current.uploaded.includes(name)) return;
  await work();
  await state.update(({ uploaded }) => uploaded.push(name));
}

function sayStoreFull(error: unknown, { log, plan }: ArtifactDeps): void {
  if (!isServiceError(error, 'InsufficientStorage')) return;
  log.say(
    `No room for the artifacts at ${plan.outputS3Uri}: the disk of the store is full. Free space within ${STORE_FULL_PATIENCE_MS / 60_000} minutes; the upload is tried again until then.`,
  );
}

/** The lead's archive: its own files, then the other hosts' parts as they are, then the end. */
function uploadArchive(kind: ArtifactKind, command: UploadCommand, deps: ArtifactDeps): Promise<void> {
  return once(kind, deps, async () => {
    const started = performance.now();
    const { bucket, key } = parseS3Uri(deps.plan.outputS3Uri);
    const name = `${kind}.tar.gz`;
    const own = command[kind].own;
    async function* archive(): AsyncGenerator<Uint8Array> {
      yield* tarEntries(folderOf(deps.layout, kind), own);
      for (const host of command.parts[kind]) yield* await deps.channel.getPart(kind, host);
      yield TAR_END;
    }
    const send = (): Promise<{ sizeBytes: number }> =>
      uploadStream(deps.s3, { bucket, key: key + name }, compress(archive()));
    const { sizeBytes } = await retryForever(send, {
      isFinal: uploadEnds(deps.state),
      onTrouble: (error) => sayStoreFull(error, deps),
    });
    const others = command.parts[kind].length;
    const parts = others === 0 ? '' : ` and the parts of ${plural(others, 'host')}`;
    const took = formatSeconds(performance.now() - started);
    deps.log.say(
      `Uploaded ${name}: ${plural(own.length, 'file')}${parts}, ${formatBytes(sizeBytes)} in ${took}`,
    );
  });
}

/** Fastest level: weights hardly shrink, and the upload of a large model should not wait for a core. */
async function* compress(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const gzip = createGzip({ level: constants.Z_BEST_SPEED });
  const done = pipeline(Readable.from(source, { objectMode: false }), gzip);
  // A failure of the source shows when the pipeline is awaited; until then it must not count as unhandled.
  done.catch(() => {});
  for await (const chunk of gzip as AsyncIterable<Buffer>) yield chunk;
  await done;
}

function sendPart(kind: ArtifactKind, command: UploadCommand, deps: ArtifactDeps): Promise<void> {
  const own = command[kind].own;
  if (own.length === 0) return Promise.resolve();
  return once(kind, deps, async () => {
    const folder = folderOf(deps.layout, kind);
    await deps.channel.putPart(
      kind,
      () => Readable.toWeb(Readable.from(tarEntries(folder, own))) as ReadableStream,
    );
    deps.log.say(`Handed over ${plural(own.length, `${kind} file`)} to ${deps.plan.hosts[0]}`);
  });
}

/** Uncompressed: every host writes its own files, the model below `model/`, other output below `data/`. */
async function uploadPlain(kind: ArtifactKind, command: UploadCommand, deps: ArtifactDeps): Promise<void> {
  const { bucket, key } = parseS3Uri(deps.plan.outputS3Uri);
  const folder = kind === 'model' ? 'model' : 'data';
  await mapPool(command[kind].own, CONCURRENCY, (path) =>
    once(`${kind}/${path}`, deps, async () => {
      const target = { bucket, key: `${key}${folder}/${path}` };
      const send = (): Promise<string> =>
        uploadFile(deps.s3, target, join(folderOf(deps.layout, kind), path));
      await retryForever(send, {
        isFinal: uploadEnds(deps.state),
        onTrouble: (error) => sayStoreFull(error, deps),
      });
      deps.log.say(`Uploaded ${folder}/${path}`);
    }),
  );
}
