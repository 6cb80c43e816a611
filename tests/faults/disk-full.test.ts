import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createJob, finished, goOnFile, logged, reaches, unpacked } from '../support/jobs.ts';
import { BUCKET, processesOf, ROOT, startService, type TestService } from '../support/service.ts';
import { until } from '../support/until.ts';

const MIB = 1 << 20;
const DISK_MIB = 64;

/** A small disk of its own. @returns null with the reason where mounting is not allowed */
function smallDisk(): { path: string } | { skip: string } {
  const path = mkdtempSync(join(tmpdir(), 'trainyard-disk-'));
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MIB}m`, 'trainyard-test', path]);
  if (mounted.status === 0) return { path };
  rmSync(path, { recursive: true });
  return {
    skip: `a file system cannot be mounted here: ${mounted.stderr?.toString().trim() ?? mounted.error}`,
  };
}

const disk = smallDisk();
const skip = 'skip' in disk ? disk.skip : null;
const path = 'path' in disk ? disk.path : '';
const filler = join(path, 'filler');

const freeBytes = (): number => {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
};

/** Takes all space that there is, as another program on the same disk would. */
function fill(): void {
  const file = openSync(filler, 'a');
  const block = Buffer.alloc(4096);
  try {
    for (;;) writeSync(file, block);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  } finally {
    closeSync(file);
  }
}

describe.skipIf(skip !== null)(`when the disk is full${skip === null ? '' : ` (skipped: ${skip})`}`, () => {
  let service: TestService;
  beforeAll(async () => {
    // The log is on the same disk, as that of a service which a client starts.
    service = await startService({ parent: path, logFile: join(path, 'service.log') });
  });
  afterAll(async () => {
    rmSync(filler, { force: true });
    await service?.dispose();
    // Lazily: the file system goes when the last process of the test has gone.
    spawnSync('umount', ['--lazy', path]);
    rmSync(path, { recursive: true, force: true });
  });

  /** The service holds space back in order to write down how things end. */
  const reserveHeld = () =>
    until(
      'the service to hold its reserve',
      () => statSync(join(service.dataDir, 'reserve')).size === 8 * MIB,
    );

  it('an object for which there is no room is refused, and nothing of it stays', async () => {
    await reserveHeld();
    const before = freeBytes();
    await expect(
      service.s3.putObject({ bucket: BUCKET, key: 'large', body: new Uint8Array(DISK_MIB * MIB) }),
    ).rejects.toMatchObject({
      code: 'InsufficientStorage',
      status: 507,
      message:
        'The disk that holds the objects is full; nothing was stored. Delete objects, free disk space or move the data directory, then repeat the request.',
    });
    const files = readdirSync(join(service.dataDir, 'objects'), { recursive: true, withFileTypes: true });
    expect(files.filter((entry) => entry.isFile())).toEqual([]);
    await until('its space to be free again', () => freeBytes() > before - MIB);
    await expect(service.s3.headObject({ bucket: BUCKET, key: 'large' })).rejects.toMatchObject({
      status: 404,
    });
    await service.s3.putObject({ bucket: BUCKET, key: 'small', body: 'fits' });
  });

  it('because of a job, that job fails with this reason, its files go, and the next job runs', async () => {
    await reserveHeld();
    const name = await createJob(service, { script: 'fill_disk.py', distribution: 'none', instances: 1 });
    const job = await finished(service, name, 'Failed');
    expect(job.FailureReason).toMatch(/^AlgorithmError: ExecuteUserScriptError:\nExitCode 1\n/);
    expect(job.FailureReason).toMatch(/No space left on (the disk of this host|device)/);
    await until('its files to be gone', () => freeBytes() > (DISK_MIB - 16) * MIB);
    await until('its processes to be gone', () => processesOf(`jobs/${name}`).length === 0);
    const next = await createJob(service, { script: 'count_lines.py', distribution: 'none', instances: 1 });
    await finished(service, next);
  });

  it('because of others, a model waits for room and is uploaded whole once there is some', async () => {
    await reserveHeld();
    const bytes = 12 * MIB;
    const name = await createJob(service, {
      script: 'fill_disk.py',
      distribution: 'none',
      instances: 1,
      hyperParameters: { bytes: String(bytes), wait: 'yes' },
    });
    await logged(service, name, /weights written/);
    fill();
    writeFileSync(goOnFile(service, name), '');
    await logged(service, name, /No room for the artifacts at s3:.*: the disk of the store is full/);
    await reaches(service, name, 'Uploading');
    rmSync(filler);
    const job = await finished(service, name);
    const model = await unpacked(service, job.ModelArtifacts.S3ModelArtifacts!);
    expect(statSync(join(model.directory, 'weights.bin')).size).toBe(bytes);
    model.dispose();
    await service.s3.deleteObject({ bucket: BUCKET, key: `out/${name}/output/model.tar.gz` });
  });

  it('a service that cannot start says so in one line, and the next start finds everything', async () => {
    const name = await createJob(service, { script: 'wait_for_stop.py', distribution: 'none', instances: 1 });
    await logged(service, name, /waiting/);
    await service.kill('SIGKILL');
    rmSync(join(service.dataDir, 'reserve'), { force: true });
    fill();
    const program = join(ROOT, 'packages/service/dist/trainyard-service.mjs');
    const { status, stderr } = spawnSync(process.execPath, [program, '--data', service.dataDir], {
      timeout: 60_000,
      encoding: 'utf8',
    });
    expect(stderr).toMatch(
      /^trainyard: cannot start: the disk of \S+ is full: \d+ bytes free, \d+ needed\. Free space, then start again\.\n$/,
    );
    expect(status).toBe(4);
    rmSync(filler);
    await service.start();
    expect((await service.describe(name)).TrainingJobStatus).not.toBe('Completed');
    await service.aws.sagemaker
      .call('StopTrainingJob', { TrainingJobName: name })
      .catch((error: { message: string }) => expect(error.message).toContain('is in status Failed'));
    await until('the job to end', async () =>
      ['Stopped', 'Failed'].includes((await service.describe(name)).TrainingJobStatus),
    );
    expect((await service.s3.headObject({ bucket: BUCKET, key: 'small' })).sizeBytes).toBe(4);
  });
});
