import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CreateTrainingJobRequest } from '@trainyard/api';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { awsCli, boto3 } from '../support/clients.ts';
import {
  createJob,
  finished,
  goOnFile,
  logged,
  logLines,
  shellRequest,
  sourceArchive,
} from '../support/jobs.ts';
import { BUCKET, ROLE, startService, type TestService } from '../support/service.ts';

const GROUP = '/aws/sagemaker/TrainingJobs';
const ARN = 'arn:aws:sagemaker:us-west-2:000000000000:training-job';
const NOT_FOUND =
  'An error occurred (ValidationException) when calling the DescribeTrainingJob operation: Requested resource not found.';
const ORDINARY = ['Starting', 'Starting', 'Downloading', 'Training', 'Uploading', 'Completed'];

let service: TestService;
beforeAll(async () => {
  service = await startService();
  await service.s3.putObject({ bucket: BUCKET, key: 'data/part-1.txt', body: 'one' });
  await service.s3.putObject({ bucket: BUCKET, key: 'data/deep/part-2.txt', body: 'two' });
});
afterAll(() => service?.dispose());

const FULL: CreateTrainingJobRequest = {
  ...shellRequest(
    'full',
    'echo "loss=0.25"; echo "$GREETING" >"$SM_MODEL_DIR/greeting"; ls -R /opt/ml/input/data/train',
  ),
  HyperParameters: { epochs: '3', text: '"quoted"', 'not-json': 'a b {' },
  InputDataConfig: [
    {
      ChannelName: 'train',
      DataSource: {
        S3DataSource: {
          S3DataType: 'S3Prefix',
          S3Uri: `s3://${BUCKET}/data/`,
          S3DataDistributionType: 'FullyReplicated',
        },
      },
      ContentType: 'text/plain',
      CompressionType: 'None',
      RecordWrapperType: 'None',
      InputMode: 'File',
      ShuffleConfig: { Seed: 7 },
    },
  ],
  ResourceConfig: {
    InstanceType: 'ml.m5.xlarge',
    InstanceCount: 1,
    VolumeSizeInGB: 1,
    KeepAlivePeriodInSeconds: 60,
  },
  OutputDataConfig: { S3OutputPath: `s3://${BUCKET}/out/`, CompressionType: 'GZIP', KmsKeyId: 'key' },
  VpcConfig: { SecurityGroupIds: ['sg-1'], Subnets: ['subnet-1'] },
  StoppingCondition: { MaxRuntimeInSeconds: 600 },
  Tags: [{ Key: 'team', Value: 'rails' }],
  EnableNetworkIsolation: false,
  EnableInterContainerTrafficEncryption: true,
  EnableManagedSpotTraining: false,
  CheckpointConfig: { S3Uri: `s3://${BUCKET}/ck`, LocalPath: '/opt/ml/checkpoints' },
  DebugHookConfig: { S3OutputPath: `s3://${BUCKET}/debug` },
  ProfilerConfig: { DisableProfiler: true },
  Environment: { GREETING: 'hello' },
  RetryStrategy: { MaximumRetryAttempts: 1 },
};
FULL.AlgorithmSpecification!.MetricDefinitions = [{ Name: 'loss', Regex: 'loss=([0-9.]+)' }];

const aws = async (...args: string[]): Promise<string> => (await awsCli(service, args)).stdout;
const json = async (...args: string[]): Promise<Record<string, any>> => JSON.parse(await aws(...args));

async function requestFile(request: object): Promise<string> {
  const path = join(service.dataDir, 'request.json');
  await writeFile(path, JSON.stringify(request));
  return `file://${path}`;
}

describe('the AWS CLI', () => {
  it('creates a minimal job, waits for it, and reads its description, log, tags and model', async () => {
    // The agent's own line shows the command, so what is looked for must not stand in it.
    const request = shellRequest(
      'cli-minimal',
      'echo first; printf "%s%s\\n" sec ond >&2; echo w >"$SM_MODEL_DIR/w"',
    );
    expect(
      await json('sagemaker', 'create-training-job', '--cli-input-json', await requestFile(request)),
    ).toEqual({
      TrainingJobArn: `${ARN}/cli-minimal`,
    });
    await finished(service, 'cli-minimal');
    expect(
      await aws(
        'sagemaker',
        'wait',
        'training-job-completed-or-stopped',
        '--training-job-name',
        'cli-minimal',
      ),
    ).toBe('');
    const job = await json('sagemaker', 'describe-training-job', '--training-job-name', 'cli-minimal');
    expect(job).toMatchObject({
      ...request,
      TrainingJobStatus: 'Completed',
      SecondaryStatus: 'Completed',
      ModelArtifacts: { S3ModelArtifacts: `s3://${BUCKET}/out/cli-minimal/output/model.tar.gz` },
      OutputDataConfig: { KmsKeyId: '' },
      StoppingCondition: { MaxRuntimeInSeconds: 86_400 },
      EnableNetworkIsolation: false,
    });
    const prefix = ['--log-group-name', GROUP, '--log-stream-name-prefix', 'cli-minimal/'];
    const streams = await json('logs', 'describe-log-streams', ...prefix);
    expect(streams['logStreams'].map((stream: any) => stream.logStreamName)).toEqual([
      expect.stringMatching(/^cli-minimal\/algo-1-\d{10}$/),
    ]);
    const stream = ['--log-group-name', GROUP, '--log-stream-name', streams['logStreams'][0].logStreamName];
    const events = await json('logs', 'get-log-events', '--start-from-head', ...stream);
    const messages: string[] = events['events'].map((event: any) => event.message);
    expect(messages).toEqual(expect.arrayContaining(['first', 'second']));
    const filtered = await json('logs', 'filter-log-events', ...prefix, '--filter-pattern', 'second');
    expect(filtered['events'].map((event: any) => event.message)).toEqual(['second']);
    expect(await aws('s3', 'ls', job['ModelArtifacts'].S3ModelArtifacts)).toContain('model.tar.gz');
  });

  it('gets back what it sent in a full request, with metrics and times after the end', async () => {
    await aws('sagemaker', 'create-training-job', '--cli-input-json', await requestFile(FULL));
    await finished(service, 'full');
    const job = await json('sagemaker', 'describe-training-job', '--training-job-name', 'full');
    const { Tags, ...echoed } = FULL;
    expect(job).toMatchObject(echoed);
    expect(job).not.toHaveProperty('Tags');
    expect(job['FinalMetricDataList']).toEqual([
      { MetricName: 'loss', Value: 0.25, Timestamp: expect.any(Number) },
    ]);
    expect(job['TrainingTimeInSeconds']).toBeGreaterThanOrEqual(1);
    expect(job['BillableTimeInSeconds']).toBe(job['TrainingTimeInSeconds']);
    const transitions: any[] = job['SecondaryStatusTransitions'];
    expect(transitions.map(({ Status, StatusMessage }) => [Status, StatusMessage])).toEqual([
      ['Starting', 'Starting the training job'],
      ['Starting', 'Preparing the instances for training'],
      ['Downloading', 'Downloading input data'],
      ['Training', 'Training image download completed. Training in progress.'],
      ['Uploading', 'Uploading generated training model'],
      ['Completed', 'Training job completed'],
    ]);
    transitions.slice(1).forEach((next, index) => expect(transitions[index].EndTime).toBe(next.StartTime));
    expect(transitions[0].StartTime).toBe(job['CreationTime']);
    expect(job['TrainingEndTime']).toBe(transitions.at(-1).StartTime);
    expect(await json('sagemaker', 'list-tags', '--resource-arn', `${ARN}/full`)).toEqual({ Tags });
    expect(await logLines(service, 'full')).toEqual(
      expect.arrayContaining(['algo-1: part-1.txt', 'algo-1: part-2.txt']),
    );
  });

  it('is told about an unknown job, a name that is taken, and an operation that is not served', async () => {
    const name = ['--training-job-name', 'nobody'];
    await expect(aws('sagemaker', 'describe-training-job', ...name)).rejects.toMatchObject({
      code: 255,
      stderr: expect.stringContaining(NOT_FOUND),
    });
    await expect(
      aws('sagemaker', 'wait', 'training-job-completed-or-stopped', ...name),
    ).rejects.toMatchObject({
      code: 255,
      stderr: expect.stringContaining('Waiter encountered a terminal failure state'),
    });
    await createJob(service, {
      name: 'taken',
      script: 'wait_for_stop.py',
      distribution: 'none',
      instances: 1,
    });
    const again = await requestFile(shellRequest('taken', 'true'));
    await expect(aws('sagemaker', 'create-training-job', '--cli-input-json', again)).rejects.toMatchObject({
      code: 255,
      stderr: expect.stringContaining(
        'An error occurred (ResourceInUse) when calling the CreateTrainingJob operation: Training job names must be ' +
          `unique within an AWS account and region, and a training job with this name already exists (${ARN}/taken)`,
      ),
    });
    await service.aws.sagemaker.call('StopTrainingJob', { TrainingJobName: 'taken' });
    const model = ['--model-name', 'm', '--execution-role-arn', ROLE, '--debug'];
    const refused = await aws('sagemaker', 'create-model', ...model).catch(
      (error: { stderr: string }) => error,
    );
    const { stderr } = refused as { stderr: string };
    expect(stderr).toContain(
      '(ValidationException) when calling the CreateModel operation: sagemaker:CreateModel',
    );
    expect(stderr).toContain('is not served here; docs/compatibility.md lists what is.');
    expect(stderr.match(/Sending http request/g)).toHaveLength(1);
    await finished(service, 'taken', 'Stopped');
  });
});

describe('a request that SageMaker Python SDK v2 made for two ml.p4d.24xlarge', () => {
  it('runs unchanged but for bucket and name, says which accelerators are missing, and gives the model', async () => {
    const text = readFileSync(
      join(import.meta.dirname, '../fixtures/requests/v2-pytorch-torch_distributed.json'),
      'utf8',
    ).replaceAll(/sagemaker-us-west-2-123456789012|my-bucket/g, BUCKET);
    const { request } = JSON.parse(text) as { request: CreateTrainingJobRequest };
    const name = request.TrainingJobName;
    await service.s3.putObject({ bucket: BUCKET, key: 'train/a.csv', body: '1,2\n' });
    const files = {
      'train.py': readFileSync(join(import.meta.dirname, '../fixtures/scripts/ddp_linear.py')),
    };
    await service.s3.putObject({
      bucket: BUCKET,
      key: `${name}/source/sourcedir.tar.gz`,
      body: await sourceArchive(files),
    });
    await aws('sagemaker', 'create-training-job', '--cli-input-json', await requestFile(request));
    const job = await finished(service, name);
    expect(job).toMatchObject(request);
    expect(job.SecondaryStatusTransitions!.map(({ Status }) => Status)).toEqual(ORDINARY);
    const lines = await logLines(service, name);
    for (const rank of [0, 1]) {
      expect(lines).toContain(`algo-${rank + 1}: rank ${rank} of 2 local 0 done`);
    }
    expect((await notices(name)).join('\n')).toMatch(/ml\.p4d\.24xlarge.*GPU/s);
    await service.s3.headObject({ bucket: BUCKET, key: `${name}/output/model.tar.gz` });
  });
});

/** What the service reports about a job beside AWS's description. */
async function notices(name: string): Promise<string[]> {
  const { signHeaders } = await import('@trainyard/api');
  const url = `${service.url}/_trainyard/v1/jobs/${name}`;
  const headers = await signHeaders({
    method: 'GET',
    url,
    headers: {},
    payloadHash: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    credentials: service.credentials,
    region: 'us-west-2',
    service: 'trainyard',
    now: Date.now(),
  });
  const answer = (await (await fetch(url, { headers })).json()) as { notices: { message: string }[] };
  return answer.notices.map(({ message }) => message);
}

describe('boto3', () => {
  it('stops a job once and again, is refused when it has ended, and its waiter follows', async () => {
    const name = await createJob(service, {
      script: 'wait_for_stop.py',
      distribution: 'none',
      instances: 1,
      hyperParameters: { hold: 'yes' },
    });
    await logged(service, name, /waiting/);
    const answer = (await boto3(
      service,
      `
sm = client('sagemaker')
def code(action, **given):
    try: return getattr(sm, action)(**given)['ResponseMetadata']['HTTPStatusCode']
    except ClientError as e: return [e.response['Error']['Code'], e.response['Error']['Message'], e.response['ResponseMetadata']['HTTPStatusCode'], e.response['ResponseMetadata']['RetryAttempts']]
name = '${name}'
running = code('delete_training_job', TrainingJobName=name)
stops = [code('stop_training_job', TrainingJobName=name) for _ in range(3)]
stopping = sm.describe_training_job(TrainingJobName=name)
open('${goOnFile(service, name)}', 'w').close()
waiter = sm.get_waiter('training_job_completed_or_stopped')
waiter.wait(TrainingJobName=name, WaiterConfig={'Delay': 1, 'MaxAttempts': 60})
ended = sm.describe_training_job(TrainingJobName=name)
late = code('stop_training_job', TrainingJobName=name)
arn = ended['TrainingJobArn']
tags = [sm.add_tags(ResourceArn=arn, Tags=[{'Key': 'a', 'Value': '1'}, {'Key': 'b', 'Value': '2'}])['Tags']]
tags.append(sm.add_tags(ResourceArn=arn, Tags=[{'Key': 'a', 'Value': '3'}])['Tags'])
sm.delete_tags(ResourceArn=arn, TagKeys=['b', 'unknown'])
tags.append(sm.list_tags(ResourceArn=arn, MaxResults=50)['Tags'])
too_many = code('add_tags', ResourceArn=arn, Tags=[{'Key': f'k{n}', 'Value': ''} for n in range(50)])
no_such_tags = code('list_tags', ResourceArn=arn + '-no')[0]
deleted = code('delete_training_job', TrainingJobName=name)
gone = code('describe_training_job', TrainingJobName=name)
unknown_stop = code('stop_training_job', TrainingJobName='nobody')
unknown_delete = code('delete_training_job', TrainingJobName='nobody')
model = code('create_model', ModelName='m', ExecutionRoleArn='${ROLE}')
from botocore.exceptions import WaiterError
try: waiter.wait(TrainingJobName='nobody', WaiterConfig={'Delay': 1}); waited = None
except WaiterError as e: waited = e.last_response['Error']['Message']
answer(dict(running=running, stops=stops, stopping=[stopping['TrainingJobStatus'], [t['Status'] for t in stopping['SecondaryStatusTransitions']].count('Stopping')],
    ended=[ended['TrainingJobStatus'], ended['SecondaryStatus']], late=late, tags=tags, too_many=too_many[0], no_such_tags=no_such_tags, deleted=deleted, gone=gone,
    unknown_stop=unknown_stop, unknown_delete=unknown_delete, model=model, waited=waited))
`,
    )) as Record<string, unknown>;
    const notFound = ['ValidationException', 'Requested resource not found.', 400, 0];
    expect(answer).toEqual({
      running: ['ResourceInUse', expect.stringContaining('InProgress'), 400, 0],
      stops: [200, 200, 200],
      stopping: ['Stopping', 1],
      ended: ['Stopped', 'Stopped'],
      late: [
        'ValidationException',
        'The request was rejected because the training job is in status Stopped.',
        400,
        0,
      ],
      tags: [
        [
          { Key: 'a', Value: '1' },
          { Key: 'b', Value: '2' },
        ],
        [
          { Key: 'a', Value: '3' },
          { Key: 'b', Value: '2' },
        ],
        [{ Key: 'a', Value: '3' }],
      ],
      too_many: 'ResourceLimitExceeded',
      no_such_tags: 'ResourceNotFound',
      deleted: 200,
      gone: notFound,
      unknown_stop: notFound,
      unknown_delete: notFound,
      // Not retried: the answer would be the same.
      model: [
        'ValidationException',
        expect.stringContaining('sagemaker:CreateModel is not served here'),
        400,
        0,
      ],
      waited: 'Requested resource not found.',
    });
    // The name is free again, and what the first job of the name left in S3 stays.
    await createJob(service, { name, script: 'count_lines.py', distribution: 'none', instances: 1 });
    await finished(service, name);
  });

  it('lists in pages without a job twice while others are added, by every filter and order', async () => {
    const other = await startService({ hosts: 1 });
    try {
      // One job holds the only host; all others wait, so that the list changes only as the test says.
      const request = { ...shellRequest('holder', 'exec sleep 600') };
      await other.aws.sagemaker.call('CreateTrainingJob', request);
      const answer = (await boto3(
        other,
        `
import datetime, time
sm = client('sagemaker')
request = json.loads(r'''${JSON.stringify(shellRequest('NAME', 'true'))}''')
def create(name):
    time.sleep(0.02)  # times are kept in milliseconds: no two jobs may share one
    sm.create_training_job(**{**request, 'TrainingJobName': name})
def next_second():
    # Older boto3 sends whole seconds, so what lies between two times must lie between two seconds.
    second = int(time.time()) + 1
    while time.time() <= second: time.sleep(0.01)
    return datetime.datetime.fromtimestamp(second, datetime.timezone.utc)
for n in (3, 1): create(f'job-{n}')
after = next_second()
for n in (4, 2): create(f'job-{n}')
before = next_second()
for n in (5, 9, 8, 7, 6): create(f'job-{n}')
pages = sm.get_paginator('list_training_jobs')
def listed(between=None, **filters):
    names, count = [], 0
    for page in pages.paginate(PaginationConfig={'PageSize': 2}, **filters):
        names += [job['TrainingJobName'] for job in page['TrainingJobSummaries']]
        count += 1
        if between and count <= 3: between(count)
    return names
result = {}
result['newest'] = listed(lambda n: create(f'new-{n}'), NameContains='job-')
result['newest_all'] = listed(lambda n: create(f'newer-{n}'))
result['by_name'] = listed(lambda n: create(f'a-late-{n}'), SortBy='Name', SortOrder='Ascending')
result['by_name_down'] = listed(NameContains='JOB', SortBy='Name', SortOrder='Descending')
for name in ('job-2', 'job-7'):
    sm.stop_training_job(TrainingJobName=name)
    # A stop is taken at once and carried out a moment later.
    while sm.describe_training_job(TrainingJobName=name)['TrainingJobStatus'] != 'Stopped': time.sleep(0.02)
result['stopped'] = sorted(listed(StatusEquals='Stopped'))
result['by_status'] = listed(SortBy='Status', SortOrder='Descending', NameContains='job-')[:2]
result['between'] = listed(CreationTimeAfter=after, CreationTimeBefore=before)
result['modified'] = sorted(listed(LastModifiedTimeAfter=before, StatusEquals='Stopped'))
result['none'] = listed(NameContains='nothing-like-it')
first = sm.list_training_jobs(MaxResults=2)
result['default_page'] = len(sm.list_training_jobs()['TrainingJobSummaries'])
try: sm.list_training_jobs(NextToken=first['NextToken'], NameContains='job'); result['token'] = None
except ClientError as e: result['token'] = str(e)
result['summary'] = sorted(first['TrainingJobSummaries'][0])
answer(result)
`,
      )) as Record<string, any>;
      expect(answer['newest']).toEqual(['6', '7', '8', '9', '5', '2', '4', '1', '3'].map((n) => `job-${n}`));
      const all = answer['newest_all'] as string[];
      expect(all).toEqual([
        'new-3',
        'new-2',
        'new-1',
        ...['6', '7', '8', '9', '5', '2', '4', '1', '3'].map((n) => `job-${n}`),
        'holder',
      ]);
      const byName = answer['by_name'] as string[];
      expect(byName).toEqual([...byName].sort());
      expect(new Set(byName).size).toBe(byName.length);
      // `a-late-…` came up before the place that had been reached.
      expect(byName).toEqual(expect.arrayContaining([...all, 'newer-1', 'newer-2', 'newer-3']));
      expect(answer['by_name_down']).toEqual(
        ['9', '8', '7', '6', '5', '4', '3', '2', '1'].map((n) => `job-${n}`),
      );
      expect(answer['stopped']).toEqual(['job-2', 'job-7']);
      expect([...answer['by_status']].sort()).toEqual(['job-2', 'job-7']);
      expect(answer['between']).toEqual(['job-2', 'job-4']);
      expect(answer['modified']).toEqual(['job-2', 'job-7']);
      expect(answer['none']).toEqual([]);
      const created = async (name: string) => (await other.describe(name)).CreationTime!;
      const between = await other.aws.sagemaker.call('ListTrainingJobs', {
        CreationTimeAfter: await created('job-4'),
        CreationTimeBefore: await created('job-5'),
      });
      // To the millisecond, and without the two themselves.
      expect(between.TrainingJobSummaries!.map((job) => job.TrainingJobName)).toEqual(['job-2']);
      expect(answer['default_page']).toBe(10);
      expect(answer['token']).toContain('NextToken was not made by a call with the same filters and order');
      expect(answer['summary']).toEqual([
        'CreationTime',
        'LastModifiedTime',
        'SecondaryStatus',
        'TrainingJobArn',
        'TrainingJobName',
        'TrainingJobStatus',
      ]);
    } finally {
      await other.dispose();
    }
  });
});
