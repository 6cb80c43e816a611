import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CreateTrainingJobRequest, FileSystemDataSource } from '@trainyard/api';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { finished, logLines, shellRequest } from '../support/jobs.ts';
import { BUCKET, startService, type TestService } from '../support/service.ts';

const NAMED = 'fs-0123456789abcdef0';
const READ_ONLY = 'fs-0123456789abcdef1';

let service: TestService;
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'trainyard-folders-'));
  chmodSync(folder, 0o755);
  mkdirSync(join(folder, 'train'));
  writeFileSync(join(folder, 'train', 'image'), 'pixels');
  service = await startService();
  for (const key of ['1', '2', '3', '4', '5']) {
    await service.s3.putObject({ bucket: BUCKET, key: `data/${key}`, body: key });
  }
  // What the operator names is read at the start.
  await service.kill('SIGTERM');
  const fileSystems = { [NAMED]: folder, [READ_ONLY]: { path: folder, readOnly: true } };
  writeFileSync(join(service.dataDir, 'config.json'), JSON.stringify({ fileSystems }));
  await service.start();
});
afterAll(async () => {
  await service?.dispose();
  rmSync(folder, { recursive: true, force: true });
});

function request(
  name: string,
  command: string,
  change: Partial<CreateTrainingJobRequest>,
): CreateTrainingJobRequest {
  return {
    ...shellRequest(name, command),
    StoppingCondition: { MaxRuntimeInSeconds: 600 },
    ...change,
  };
}
const create = (...of: Parameters<typeof request>) =>
  service.aws.sagemaker.call('CreateTrainingJob', request(...of));

describe('a heterogeneous cluster', () => {
  const groups = [
    { InstanceGroupName: 'load', InstanceType: 'ml.c5.xlarge', InstanceCount: 2 },
    { InstanceGroupName: 'train', InstanceType: 'ml.g5.xlarge', InstanceCount: 1 },
  ] as const;
  const channel = (name: string, ...names: string[]) => ({
    ChannelName: name,
    DataSource: {
      S3DataSource: {
        S3DataType: 'S3Prefix' as const,
        S3Uri: `s3://${BUCKET}/data/`,
        S3DataDistributionType: 'ShardedByS3Key' as const,
        InstanceGroupNames: names,
      },
    },
  });

  it('numbers its hosts over the groups, tells each its own, and deals channels over the groups they name', async () => {
    const resources = { InstanceGroups: [...groups], VolumeSizeInGB: 1 };
    await create(
      'groups',
      "cd /opt/ml/input; python3 -c \"import json; print('CONFIG', json.dumps(json.load(open('config/resourceconfig.json'))))\"; " +
        'for c in data/*; do [ ! -d $c ] || echo "DATA $c: $(echo $(ls $c))"; done',
      {
        ResourceConfig: resources,
        InputDataConfig: [channel('raw', 'load'), channel('all', 'load', 'train')],
      },
    );
    const { ResourceConfig } = await finished(service, 'groups');
    expect(ResourceConfig).toEqual(resources);
    const lines = await logLines(service, 'groups');
    const of = (host: string, mark: string): string[] =>
      lines.flatMap((line) => {
        const start = `${host}: ${mark} `;
        return line.startsWith(start) ? [line.slice(start.length)] : [];
      });
    expect(JSON.parse(of('algo-3', 'CONFIG')[0]!)).toMatchObject({
      current_host: 'algo-3',
      current_group_name: 'train',
      current_instance_type: 'ml.g5.xlarge',
      hosts: ['algo-1', 'algo-2', 'algo-3'],
      instance_groups: [
        { instance_group_name: 'load', instance_type: 'ml.c5.xlarge', hosts: ['algo-1', 'algo-2'] },
        { instance_group_name: 'train', instance_type: 'ml.g5.xlarge', hosts: ['algo-3'] },
      ],
    });
    expect(of('algo-1', 'DATA')).toEqual(['data/all: 1 4', 'data/raw: 1 3 5']);
    expect(of('algo-2', 'DATA')).toEqual(['data/all: 2 5', 'data/raw: 2 4']);
    expect(of('algo-3', 'DATA')).toEqual(['data/all: 3']);
  });

  it('is refused with every problem at once, in the words of AWS where those are known', async () => {
    const sent = create('bad-groups', 'true', {
      ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceGroups: [...groups], VolumeSizeInGB: 1 },
      InputDataConfig: [channel('a', 'nobody'), channel('b')],
    });
    await expect(sent).rejects.toThrow(
      /InstanceType is ml\.m5\.xlarge, but InstanceGroups are given too[^]*has 'nobody'; the groups of ResourceConfig\.InstanceGroups are load, train[^]*Some channels have assigned instance groups: \[a\] while others not: \[b\]/,
    );
  });

  it('counts the hosts of all groups against the limit', async () => {
    const sent = create('too-many', 'true', {
      ResourceConfig: {
        InstanceGroups: [
          { ...groups[0], InstanceCount: 7 },
          { ...groups[1], InstanceCount: 2 },
        ],
        VolumeSizeInGB: 1,
      },
    });
    await expect(sent).rejects.toThrow(
      /'ml\.c5\.xlarge \+ ml\.g5\.xlarge for training job usage' is 8 Instances/,
    );
  });
});

describe('a file system that the operator named', () => {
  const source = (change: Partial<FileSystemDataSource>): Partial<CreateTrainingJobRequest> => ({
    InputDataConfig: [
      {
        ChannelName: 'train',
        DataSource: {
          FileSystemDataSource: {
            FileSystemId: NAMED,
            FileSystemType: 'FSxLustre',
            FileSystemAccessMode: 'ro',
            DirectoryPath: '/fsx/train',
            ...change,
          },
        },
      },
    ],
  });
  const look =
    'cat /opt/ml/input/data/train/image; echo; touch /opt/ml/input/data/train/mine && echo WRITTEN || echo REFUSED';

  it.each([
    ['FSxLustre', '/fsx/train', 'ro', 'REFUSED'],
    ['EFS', '/train', 'rw', 'WRITTEN'],
  ] as const)('%s at %s with %s', async (FileSystemType, DirectoryPath, FileSystemAccessMode, outcome) => {
    const name = `folder-${FileSystemType.toLowerCase()}`;
    await create(name, look, source({ FileSystemType, DirectoryPath, FileSystemAccessMode }));
    await finished(service, name);
    expect(await logLines(service, name)).toEqual(
      expect.arrayContaining(['algo-1: pixels', `algo-1: ${outcome}`]),
    );
  });

  it('is not written where the operator forbids it, and another id is refused with the place to name it', async () => {
    await expect(
      create('rw', 'true', source({ FileSystemId: READ_ONLY, FileSystemAccessMode: 'rw' })),
    ).rejects.toThrow(/FileSystemAccessMode is rw, but the operator offers fs-0123456789abcdef1 read-only/);
    await expect(create('unknown', 'true', source({ FileSystemId: 'fs-00000000000000000' }))).rejects.toThrow(
      /fs-00000000000000000 is not known here; name its folder in "fileSystems" of config\.json/,
    );
  });
});

it('an image whose runtime was not made is refused with the command that makes it', async () => {
  const sent = create('neuron', 'true', {
    AlgorithmSpecification: { TrainingImage: 'x/pytorch-training-neuronx:2.1', TrainingInputMode: 'File' },
  });
  await expect(sent).rejects.toThrow(/runs in the runtime "xla"[^]*trainyard setup --runtime xla/);
});
