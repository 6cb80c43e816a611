import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { InvalidOption } from './errors.ts';
import { FileSystemInput, jobInputMode, parseInputs, TrainingInput } from './inputs.ts';
import type { Inputs } from './inputs.ts';
import { placeInputs } from './local-inputs.ts';

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'trainyard-inputs-'));
  mkdirSync(join(directory, 'data'));
  writeFileSync(join(directory, 'data', 'a.csv'), '1\n');
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const place = (inputs: Inputs, registerFolder: ((path: string) => Promise<string>) | null = null) =>
  placeInputs(parseInputs(inputs), {
    jobInputMode: 'File',
    uploadUri: (channel) => Promise.resolve(`s3://bucket/team/job/input/${channel}`),
    registerFolder,
  });

test('no inputs give no channels', () => {
  expect(parseInputs(undefined)).toEqual([]);
});

test('one input is the channel training, a map keeps its names and order', async () => {
  expect((await place('s3://b/k')).channels.map((channel) => channel.ChannelName)).toEqual(['training']);
  const { channels } = await place({ zeta: 's3://b/z', alpha: 's3://b/a' });
  expect(channels.map((channel) => channel.ChannelName)).toEqual(['zeta', 'alpha']);
});

test('a lone TrainingInput chooses the input mode of the job', () => {
  const input = new TrainingInput('s3://b/k', { inputMode: 'FastFile' });
  expect(jobInputMode(input)).toBe('FastFile');
  expect(jobInputMode({ train: input })).toBeUndefined();
});

test('a directory is used in place when the service sees this machine', async () => {
  const { channels, uploads } = await place({ train: join(directory, 'data') }, async (path) => {
    expect(path).toBe(join(directory, 'data'));
    return 'fs-0123456789abcdef0';
  });
  expect(uploads).toEqual([]);
  expect(channels[0]?.DataSource.FileSystemDataSource).toEqual({
    FileSystemId: 'fs-0123456789abcdef0',
    FileSystemType: 'FSxLustre',
    DirectoryPath: '/trainyard',
    FileSystemAccessMode: 'ro',
  });
});

test('otherwise it is uploaded below the job, and so are files and inputs with options of S3', async () => {
  const data = join(directory, 'data');
  const remote = await place({ train: pathToFileURL(data).href });
  expect(remote.uploads).toEqual([
    { kind: 'directory', bucket: 'bucket', key: 'team/job/input/train/', path: data, channel: 'train' },
  ]);
  expect(remote.channels[0]?.DataSource.S3DataSource?.S3Uri).toBe('s3://bucket/team/job/input/train/');

  const embedded = await place(
    { file: join(data, 'a.csv'), shards: new TrainingInput(data, { distribution: 'ShardedByS3Key' }) },
    () => Promise.reject(new Error('must not be registered')),
  );
  expect(embedded.uploads.map(({ kind, key }) => `${kind} ${key}`)).toEqual([
    'file team/job/input/file/a.csv',
    'directory team/job/input/shards/',
  ]);
  expect(embedded.channels[1]?.DataSource.S3DataSource?.S3DataDistributionType).toBe('ShardedByS3Key');
});

test('every missing path is named with its channel', async () => {
  const error = await place({ train: join(directory, 'nope'), val: './neither' }).catch(
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(InvalidOption);
  const { problems } = error as InvalidOption;
  expect(problems.map(({ id, field }) => `${id} ${field}`)).toEqual([
    'E-FILE-INPUT inputs.train',
    'E-FILE-INPUT inputs.val',
  ]);
  expect(problems[0]?.value).toBe(join(directory, 'nope'));
});

test.each(['https://example.com/data', 'gs://bucket/key', ''])(
  '%j is neither an S3 URI nor a path',
  (uri) => {
    expect(() => parseInputs({ train: uri })).toThrow(
      expect.objectContaining({ id: 'E-URI', field: 'inputs.train' }),
    );
  },
);

test('a file system type or access mode that does not exist is refused', () => {
  const options = { fileSystemId: 'fs-0123456789abcdef0', directoryPath: '/x' };
  expect(() => new FileSystemInput({ ...options, fileSystemType: 'NFS' as 'EFS' })).toThrow(
    /fileSystemType is NFS/,
  );
  expect(
    () => new FileSystemInput({ ...options, fileSystemType: 'EFS', fileSystemAccessMode: 'r' as 'ro' }),
  ).toThrow(/fileSystemAccessMode is r/);
});
