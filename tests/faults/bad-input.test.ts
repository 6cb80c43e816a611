import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type CreateTrainingJobRequest, createAwsClient, createS3Client, signHeaders } from '@trainyard/api';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { boto3 } from '../support/clients.ts';
import { createJob, finished, logLines, unpacked } from '../support/jobs.ts';
import { expectAgentClosed } from '../support/secrets.ts';
import {
  BUCKET,
  IMAGE,
  processesOf,
  ROLE,
  ROOT,
  startService,
  type TestService,
} from '../support/service.ts';
import { until } from '../support/until.ts';

const run = promisify(execFile);

/** A text is the whole message. */
type Refusal = { status: number; code: string; message: string | RegExp };

interface Answer {
  status: number;
  code: string;
  message: string;
}

/** Sends bytes as they are to CreateTrainingJob, signed as any client would. */
async function send(service: TestService, body: string | Uint8Array<ArrayBuffer>): Promise<Answer> {
  const headers = await signHeaders({
    method: 'POST',
    url: `${service.url}/`,
    headers: { 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': 'SageMaker.CreateTrainingJob' },
    payloadHash: createHash('sha256').update(body).digest('hex'),
    credentials: service.credentials,
    region: 'us-west-2',
    service: 'sagemaker',
    now: Date.now(),
  });
  const response = await fetch(service.url, { method: 'POST', headers, body });
  const answer = (await response.json()) as { __type: string; message: string };
  return { status: response.status, code: answer.__type, message: answer.message };
}

function request(change: object = {}): CreateTrainingJobRequest {
  return {
    TrainingJobName: 'refused',
    RoleArn: ROLE,
    AlgorithmSpecification: {
      TrainingImage: IMAGE,
      TrainingInputMode: 'File',
      ContainerEntrypoint: ['/bin/true'],
    },
    OutputDataConfig: { S3OutputPath: `s3://${BUCKET}/out` },
    ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: 1, VolumeSizeInGB: 1 },
    ...change,
  };
}

const channel = (uri: string) => ({
  ChannelName: 'train',
  DataSource: { S3DataSource: { S3DataType: 'S3Prefix', S3Uri: uri } },
});

/** No job, no folder of a job, no process of a job. */
async function expectNothingLeft(service: TestService): Promise<void> {
  const { TrainingJobSummaries } = await service.aws.sagemaker.call('ListTrainingJobs', {});
  expect(TrainingJobSummaries).toEqual([]);
  const jobs = join(service.dataDir, 'jobs');
  expect(existsSync(jobs) ? readdirSync(jobs) : []).toEqual([]);
  expect(processesOf(`${service.dataDir}/jobs/`)).toEqual([]);
}

describe('a request that cannot be served is refused with every fault named, and leaves nothing', () => {
  let service: TestService;
  beforeAll(async () => {
    service = await startService();
  });
  afterAll(() => service?.dispose());

  const validation = (message: string | RegExp): Refusal => ({
    status: 400,
    code: 'ValidationException',
    message,
  });
  const json = (change: object): string => JSON.stringify(request(change));
  const serialization = (message: string): Answer => ({
    status: 400,
    code: 'SerializationException',
    message,
  });
  const violation = (path: string, echo: string, rule: string): string =>
    `Value ${echo} at '${path}' failed to satisfy constraint: ${rule}`;
  const noObjects = (uri: string, bucket: string): string =>
    `No S3 objects found under S3 URL "${uri}" given in input data source. Please ensure that the bucket exists in the ` +
    `selected region (us-west-2), that objects exist under that S3 prefix, and that the role "${ROLE}" has ` +
    `"s3:ListBucket" permissions on bucket "${bucket}".`;

  it.each<[what: string, body: string | Uint8Array<ArrayBuffer>, expected: Refusal]>([
    ['a body that is no JSON', '{"TrainingJobName": ', serialization('The body is not JSON in UTF-8.')],
    [
      'a body that is no UTF-8',
      Uint8Array.of(0x7b, 0xff, 0x7d),
      serialization('The body is not JSON in UTF-8.'),
    ],
    ['a list', '[]', serialization('The request body: START_ARRAY can not be converted to a Structure')],
    [
      'a number as name',
      json({ TrainingJobName: 7 }),
      serialization("'trainingJobName': NUMBER_VALUE 7 can not be converted to a String"),
    ],
    [
      'text as count',
      json({ ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: '2', VolumeSizeInGB: 1 } }),
      serialization("'resourceConfig.instanceCount': STRING_VALUE can not be converted to an Integer"),
    ],
    [
      'hyperparameters that are numbers',
      json({ HyperParameters: { lr: 0.1 } }),
      serialization("'hyperParameters.lr': NUMBER_VALUE 0.1 can not be converted to a String"),
    ],
    [
      'violations, all of them',
      json({
        TrainingJobName: 'a_b',
        RoleArn: 'me',
        OutputDataConfig: {},
        ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: -1, VolumeSizeInGB: 1 },
        Tags: [{ Key: '', Value: 'v' }],
      }),
      validation(/^6 validation errors detected: /),
    ],
    [
      'an input mode that does not exist',
      json({ AlgorithmSpecification: { TrainingImage: IMAGE, TrainingInputMode: 'Bogus' } }),
      validation(
        /^1 validation error detected: Value 'Bogus' at 'algorithmSpecification\.trainingInputMode' failed to satisfy constraint: Member must satisfy enum value set: \[.*File.*\]$/,
      ),
    ],
    [
      'a name of 64 characters',
      json({ TrainingJobName: `a${'-'.repeat(62)}b` }),
      validation(
        `1 validation error detected: ${violation('trainingJobName', `'a${'-'.repeat(62)}b'`, 'Member must have length less than or equal to 63')}`,
      ),
    ],
    [
      'more tags than allowed',
      json({ Tags: Array.from({ length: 60 }, (_, index) => ({ Key: `k${index}`, Value: '' })) }),
      validation(
        /^1 validation error detected: Value '\[.*\]' at 'tags' failed to satisfy constraint: Member must have length less than or equal to 50$/,
      ),
    ],
    [
      'a bucket for results that does not exist',
      json({ OutputDataConfig: { S3OutputPath: 's3://no-such-bucket/out' } }),
      validation(
        'OutputDataConfig.S3OutputPath is s3://no-such-bucket/out, but there is no bucket "no-such-bucket"; create it first (aws s3 mb s3://no-such-bucket).',
      ),
    ],
    [
      'a prefix with no object',
      json({ InputDataConfig: [channel(`s3://${BUCKET}/nothing/here`)] }),
      validation(noObjects(`s3://${BUCKET}/nothing/here`, BUCKET)),
    ],
    [
      'two missing things at once',
      json({
        InputDataConfig: [channel('s3://no-such-bucket/x')],
        CheckpointConfig: { S3Uri: 's3://nor-this-one/ck' },
      }),
      validation(
        `${noObjects('s3://no-such-bucket/x', 'no-such-bucket')} CheckpointConfig.S3Uri is s3://nor-this-one/ck, but there is no bucket "nor-this-one"; create it first (aws s3 mb s3://nor-this-one).`,
      ),
    ],
    [
      'a path that no URL can carry',
      json({ OutputDataConfig: { S3OutputPath: `s3://${BUCKET}/../out` } }),
      validation(
        `OutputDataConfig.S3OutputPath is s3://${BUCKET}/../out; a path with '.' or '..' cannot be a key here, choose another.`,
      ),
    ],
    [
      'an image for which there is no runtime',
      json({ AlgorithmSpecification: { TrainingImage: 'my/jax:2', TrainingInputMode: 'File' } }),
      validation(
        /^AlgorithmSpecification\.TrainingImage is my\/jax:2, for which this machine has no runtime\. To name one, add \{"pattern":"jax","runtime":"[\w-]+"\} to "images" in .*config\.json; runtimes here: /,
      ),
    ],
    [
      'more instances than there can ever be',
      json({ ResourceConfig: { InstanceType: 'ml.p4d.24xlarge', InstanceCount: 9, VolumeSizeInGB: 1 } }),
      {
        status: 400,
        code: 'ResourceLimitExceeded',
        message:
          /^The account-level service limit 'ml\.p4d\.24xlarge for training job usage' is 8 Instances, with current utilization of 0 Instances and a request delta of 9 Instances\. .*--hosts/,
      },
    ],
    [
      'rules across members, together',
      json({
        AlgorithmSpecification: { TrainingInputMode: 'File' },
        StoppingCondition: { MaxRuntimeInSeconds: 100, MaxWaitTimeInSeconds: 200 },
        InputDataConfig: [channel(`s3://${BUCKET}/a`), channel(`s3://${BUCKET}/b`)],
        Tags: [
          { Key: 'k', Value: '1' },
          { Key: 'k', Value: '2' },
        ],
      }),
      validation(
        'AlgorithmSpecification has neither TrainingImage nor AlgorithmName; give TrainingImage. ' +
          'Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true ' +
          "InputDataConfig has two channels named 'train'; channel names must be unique. " +
          "Tags has the key 'k' more than once; keys must be unique.",
      ),
    ],
    [
      'a member that nothing here can honour',
      json({
        ResourceConfig: {
          VolumeSizeInGB: 1,
          InstanceType: 'ml.m5.xlarge',
          InstanceCount: 1,
          TrainingPlanArn: `arn:aws:sagemaker:us-west-2:123456789012:training-plan/plan`,
        },
      }),
      validation(/^ResourceConfig\.TrainingPlanArn is not supported: training plans do not exist here/),
    ],
  ])('%s', async (_what, body, expected) => {
    const answer = await send(service, body);
    const { message, ...rest } = expected;
    expect(answer).toMatchObject(rest);
    if (message instanceof RegExp) expect(answer.message).toMatch(message);
    else expect(answer.message).toBe(message);
    await expectNothingLeft(service);
  });

  it('names each of several violations with its path, what was sent and the rule', async () => {
    const { message } = await send(
      service,
      json({
        TrainingJobName: 'a_b',
        RoleArn: 'me',
        OutputDataConfig: {},
        ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: -1, VolumeSizeInGB: 1 },
        HyperParameters: { long: 'x'.repeat(2501) },
      }),
    );
    for (const part of [
      "Value 'a_b' at 'trainingJobName' failed to satisfy constraint: Member must satisfy regular expression pattern: ",
      "Value 'me' at 'roleArn' failed to satisfy constraint: Member must have length greater than or equal to 20",
      violation('outputDataConfig.s3OutputPath', 'null', 'Member must not be null'),
      violation('resourceConfig.instanceCount', "'-1'", 'Member must have value greater than or equal to 0'),
      'Map value must satisfy constraint: [Member must have length less than or equal to 2500',
    ]) {
      expect(message).toContain(part);
    }
    await expectNothingLeft(service);
  });

  it('a wrong secret and an unknown key', async () => {
    const wrong = { ...service.credentials, secretAccessKey: 'x'.repeat(40) };
    const connection = { endpoint: service.url, region: 'us-west-2' };
    await expect(
      createAwsClient({ ...connection, credentials: wrong }).sagemaker.call('CreateTrainingJob', request()),
    ).rejects.toMatchObject({ code: 'InvalidSignatureException', status: 403 });
    const s3 = createS3Client({ ...connection, credentials: wrong });
    await expect(s3.putObject({ bucket: BUCKET, key: 'never', body: 'x' })).rejects.toMatchObject({
      code: 'SignatureDoesNotMatch',
      status: 403,
    });
    const unknown = { accessKeyId: 'AKIANOBODYATALLEXMPL', secretAccessKey: 'x'.repeat(40) };
    await expect(
      createAwsClient({ ...connection, credentials: unknown }).sagemaker.call('CreateTrainingJob', request()),
    ).rejects.toMatchObject({ code: 'UnrecognizedClientException', status: 403 });
    await expect(service.s3.headObject({ bucket: BUCKET, key: 'never' })).rejects.toMatchObject({
      status: 404,
    });
    await expectNothingLeft(service);
  });
});

describe('with hosts that are plain processes, an archive of somebody else', () => {
  let service: TestService;
  let outside: string;
  beforeAll(async () => {
    // On this rung an archive that gets out of its folder writes to the machine itself, so that it would be seen.
    service = await startService({ environment: { TRAINYARD_ISOLATION: 'processes' } });
    outside = mkdtempSync(join(tmpdir(), 'trainyard-outside-'));
  });
  afterAll(async () => {
    await service?.dispose();
    rmSync(outside, { recursive: true, force: true });
  });

  const CASES: [kind: string, reason: RegExp][] = [
    [
      'parent',
      /has the entry "a\/\.\.\/\.\.\/\.\.\/escaped\.py", which leaves the folder it is unpacked in\.$/,
    ],
    ['parent-by-long-name', /escaped\.py", which leaves the folder it is unpacked in\.$/],
    ['parent-by-pax', /has the entry "\.\.\/escaped\.py", which leaves the folder it is unpacked in\.$/],
    ['absolute', /has the entry ".*\/escaped\.py" with an absolute path\.$/],
    ['symlink', /has the entry "link", which is a symbolic link; only files and directories are allowed\.$/],
    ['hardlink', /has the entry "link", which is a hard link; only files and directories are allowed\.$/],
    ['device', /has the entry "disk", which is a block device; only files and directories are allowed\.$/],
    ['fifo', /has the entry "pipe", which is a named pipe; only files and directories are allowed\.$/],
    ['bomb', /unpacks to more than 17179869184 bytes\.$/],
    ['many', /has more than 100000 entries\.$/],
    ['cut', /is cut off in the middle of a file\.$/],
    ['not-gzip', /is not gzip or is damaged: incorrect header check\.$/],
    [
      'no-script',
      /^ClientError: The entry point train\.py is not in the source folder; it holds more\.txt, other\.py\./,
    ],
  ];

  it('is refused as ClientError naming the entry, and nothing of it is left', async () => {
    const archive = join(outside, 'archive.tar.gz');
    for (const [kind] of CASES) {
      const script = join(ROOT, 'tests/fixtures/bad_archive.py');
      await run('python3', [script, kind, archive, join(outside, 'escaped.py')]);
      const key = `bad/${kind}.tar.gz`;
      await service.s3.putObject({ bucket: BUCKET, key, body: readFileSync(archive) });
      const { AlgorithmSpecification: _, ...base } = request();
      await service.aws.sagemaker.call('CreateTrainingJob', {
        ...base,
        TrainingJobName: `archive-${kind}`,
        AlgorithmSpecification: { TrainingImage: IMAGE, TrainingInputMode: 'File' },
        HyperParameters: {
          sagemaker_program: '"train.py"',
          sagemaker_submit_directory: JSON.stringify(`s3://${BUCKET}/${key}`),
        },
      });
    }
    rmSync(archive);
    for (const [kind, reason] of CASES) {
      const job = await finished(service, `archive-${kind}`, 'Failed');
      expect(job.FailureReason, kind).toMatch(/^ClientError: /);
      if (kind !== 'no-script') expect(job.FailureReason).toContain(`s3://${BUCKET}/bad/${kind}.tar.gz`);
      expect(job.FailureReason, kind).toMatch(reason);
      expect((await logLines(service, `archive-${kind}`)).join('\n')).not.toContain('must not run');
    }
    expect(readdirSync(outside)).toEqual([]);
    await until(
      'the folders of all jobs to be gone',
      () => readdirSync(join(service.dataDir, 'jobs')).length === 0,
    );
    await until('their processes to be gone', () => processesOf(`${service.dataDir}/jobs/`).length === 0);
  });

  it('network isolation, which such hosts cannot have, is refused', async () => {
    const answer = await send(service, JSON.stringify(request({ EnableNetworkIsolation: true })));
    expect(answer.code).toBe('ValidationException');
    expect(answer.message).toMatch(
      /^EnableNetworkIsolation is true, but hosts here are plain processes with the network of this machine\. /,
    );
  });

  it('and a channel whose keys would leave its folder is refused by every host', async () => {
    await service.s3.putObject({ bucket: BUCKET, key: 'odd/fine.txt', body: 'x' });
    // Our own client refuses to make such a key; boto3 does not.
    const put = `client('s3').put_object(Bucket='${BUCKET}', Key='odd/../../escaped.txt', Body=b'x')`;
    await boto3(service, `${put}\nanswer(True)`);
    const manifest = JSON.stringify([{ prefix: `s3://${BUCKET}/odd/` }, 'fine.txt', '../../escaped.txt']);
    await service.s3.putObject({ bucket: BUCKET, key: 'manifest', body: manifest });
    const name = await createJob(service, {
      script: 'echo_input.py',
      distribution: 'none',
      change: { InputDataConfig: [channel(`s3://${BUCKET}/odd/`)] } as Partial<CreateTrainingJobRequest>,
    });
    const job = await finished(service, name, 'Failed');
    expect(job.FailureReason).toBe(
      'ClientError: Failed to download data. Channel train: the key "odd/../../escaped.txt" has a "." or ".." in its path, so it cannot become a file. Rename or remove the object.',
    );
    const { DataSource } = channel(`s3://${BUCKET}/manifest`);
    const listed = { ...DataSource.S3DataSource, S3DataType: 'ManifestFile' };
    const second = await createJob(service, {
      script: 'echo_input.py',
      distribution: 'none',
      change: {
        InputDataConfig: [{ ChannelName: 'train', DataSource: { S3DataSource: listed } }],
      } as Partial<CreateTrainingJobRequest>,
    });
    expect((await finished(service, second, 'Failed')).FailureReason).toMatch(
      /^ClientError: Failed to download data\. .*\.\.\/\.\.\/escaped\.txt/,
    );
  });
});

describe('odd but allowed input reaches the script as it was sent', () => {
  let service: TestService;
  beforeAll(async () => {
    service = await startService();
  });
  afterAll(() => service?.dispose());

  it('hyperparameters that are no JSON stay text; values of Environment may have lines', async () => {
    const raw = {
      broken: '{broken',
      half: '"half',
      words: 'a b  c',
      empty: '',
      zeros: '007',
      unicode: 'ü🚆',
    };
    const environment = {
      LINES: 'first\nsecond\n\nfourth=4\n',
      QUOTES: `'"$HOME\`id\`\\`,
      EMPTY: '',
      UNICODE: 'ü🚆',
    };
    const name = await createJob(service, {
      script: 'echo_input.py',
      distribution: 'none',
      instances: 1,
      hyperParameters: raw,
      change: { Environment: environment },
    });
    const job = await finished(service, name);
    expect(job.HyperParameters).toMatchObject(raw);
    expect(job.Environment).toEqual(environment);
    const model = await unpacked(service, job.ModelArtifacts.S3ModelArtifacts!);
    try {
      const seen = JSON.parse(readFileSync(join(model.directory, 'seen.json'), 'utf8'));
      expect(seen.file).toMatchObject(raw);
      expect(seen.hps).toEqual(raw);
      expect(seen.environment).toMatchObject(environment);
      const argv = Object.entries(raw)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .flatMap(([key, value]) => [`--${key}`, value]);
      expect(seen.argv).toEqual(argv);
    } finally {
      model.dispose();
    }
  });

  it('a requirement that does not exist fails the job with the words of pip', async () => {
    const name = await createJob(service, {
      script: 'echo_input.py',
      distribution: 'none',
      instances: 1,
      files: { 'requirements.txt': '--no-index\nno-such-package-of-ours==1.2.3\n' },
    });
    const { FailureReason } = await finished(service, name, 'Failed');
    expect(FailureReason).toMatch(/^ClientError: InstallRequirementsError:\nExitCode 1\nErrorMessage "/);
    expect(FailureReason).toContain(
      'ERROR: No matching distribution found for no-such-package-of-ours==1.2.3',
    );
  });

  describe('network isolation', () => {
    let seen: Record<string, any>[];
    beforeAll(async () => {
      const name = await createJob(service, {
        script: 'isolated_network.py',
        distribution: 'none',
        change: { EnableNetworkIsolation: true, Environment: { PORTS: new URL(service.url).port } },
      });
      const job = await finished(service, name);
      const model = await unpacked(service, job.ModelArtifacts.S3ModelArtifacts!);
      seen = ['algo-1', 'algo-2'].map((host) =>
        JSON.parse(readFileSync(join(model.directory, `${host}.json`), 'utf8')),
      );
      model.dispose();
    });

    it('leaves no way out and gives no keys, and peers reach each other', () => {
      for (const host of seen) {
        expect(host).toMatchObject({ internet: 'OSError', keys: [], peers: ['algo-1', 'algo-2'] });
        expect(host.machine).not.toContain('yes');
        // The agent's own door to the service opens to nobody without a key.
        expect(host.endpoint).toBe(403);
      }
    });

    it.skipIf(process.getuid?.() !== 0)('keeps everything of the agent from a script', () =>
      expectAgentClosed(service, 'none', ['algo-1'], false),
    );

    it.skipIf(process.getuid?.() !== 0)('keeps everything of the agent from forked ranks', () =>
      expectAgentClosed(service, 'torch_distributed', ['0', '1'], true),
    );
  });
});
