import { writeFileSync } from 'node:fs';
import {
  AddTagsCommand,
  CreateModelCommand,
  CreateTrainingJobCommand,
  DeleteTrainingJobCommand,
  DescribeTrainingJobCommand,
  ListTagsCommand,
  paginateListTrainingJobs,
  ResourceInUse,
  SageMakerClient,
  SageMakerServiceException,
  StopTrainingJobCommand,
  waitUntilTrainingJobCompletedOrStopped,
} from '@aws-sdk/client-sagemaker';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goOnFile, logged } from '../support/jobs.ts';
import { BUCKET, IMAGE, ROLE, startService, type TestService } from '../support/service.ts';

let service: TestService;
let sagemaker: SageMakerClient;
beforeAll(async () => {
  service = await startService();
  sagemaker = new SageMakerClient({
    endpoint: service.url,
    region: 'us-west-2',
    credentials: { ...service.credentials }, // the SDK adds to it
  });
});
afterAll(async () => {
  sagemaker?.destroy();
  await service?.dispose();
});

const job = (name: string, command: string) =>
  new CreateTrainingJobCommand({
    TrainingJobName: name,
    RoleArn: ROLE,
    AlgorithmSpecification: {
      TrainingImage: IMAGE,
      TrainingInputMode: 'File',
      ContainerEntrypoint: ['/bin/sh', '-c', command],
    },
    OutputDataConfig: { S3OutputPath: `s3://${BUCKET}/out` },
    ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: 1, VolumeSizeInGB: 1 },
    StoppingCondition: { MaxRuntimeInSeconds: 600 },
  });
const refusal = (sent: Promise<unknown>): Promise<SageMakerServiceException> =>
  sent.then(
    () => {
      throw new Error('the call was not refused');
    },
    (error) => error as SageMakerServiceException,
  );
const waiting = { minDelay: 1, maxDelay: 1, maxWaitTime: 60 };

describe('the AWS SDK for JavaScript', () => {
  it('creates, waits, describes with real dates, and its waiter tells an unknown job', async () => {
    const { TrainingJobArn } = await sagemaker.send(job('done', 'exit 0'));
    const name = { TrainingJobName: 'done' };
    const waited = await waitUntilTrainingJobCompletedOrStopped({ client: sagemaker, ...waiting }, name);
    expect(waited.state).toBe('SUCCESS');
    const described = await sagemaker.send(new DescribeTrainingJobCommand(name));
    expect(described).toMatchObject({ TrainingJobArn, TrainingJobStatus: 'Completed' });
    expect(described.CreationTime).toBeInstanceOf(Date);
    const times = described.SecondaryStatusTransitions!.map(({ StartTime }) => StartTime!.getTime());
    expect(times).toEqual([...times].sort((a, b) => a - b));
    await expect(
      waitUntilTrainingJobCompletedOrStopped(
        { client: sagemaker, ...waiting },
        { TrainingJobName: 'nobody' },
      ),
    ).rejects.toThrow('Requested resource not found.');
  });

  it('gets typed errors after one request each', async () => {
    await sagemaker.send(job('twice', 'exec sleep 600'));
    const taken = await refusal(sagemaker.send(job('twice', 'exit 0')));
    expect(taken).toBeInstanceOf(ResourceInUse);
    expect(taken.message).toContain(
      'already exists (arn:aws:sagemaker:us-west-2:000000000000:training-job/twice)',
    );
    const empty = await refusal(sagemaker.send(new CreateTrainingJobCommand({} as never)));
    expect([empty.name, empty.message]).toEqual([
      'ValidationException',
      "3 validation errors detected: Value null at 'trainingJobName' failed to satisfy constraint: Member must not be null; " +
        "Value null at 'roleArn' failed to satisfy constraint: Member must not be null; " +
        "Value null at 'outputDataConfig' failed to satisfy constraint: Member must not be null",
    ]);
    const unserved = await refusal(
      sagemaker.send(new CreateModelCommand({ ModelName: 'm', ExecutionRoleArn: ROLE })),
    );
    expect(unserved.name).toBe('ValidationException');
    for (const error of [taken, empty, unserved]) expect(error.$metadata.attempts).toBe(1);
  });

  it('stops idempotently, tags, pages through the list, and deletes', async () => {
    // It ends when told, so that the second stop comes while it stops.
    const command =
      'trap "stopped=yes" TERM; echo ready; until [ "$stopped" ] && [ -e "$SM_MODEL_DIR/../go-on" ]; do sleep 0.1; done';
    await sagemaker.send(job('stopped', command));
    await logged(service, 'stopped', /^algo-1: ready/);
    const name = { TrainingJobName: 'stopped' };
    await sagemaker.send(new StopTrainingJobCommand(name));
    await sagemaker.send(new StopTrainingJobCommand(name));
    writeFileSync(goOnFile(service, 'stopped'), '');
    const waited = await waitUntilTrainingJobCompletedOrStopped({ client: sagemaker, ...waiting }, name);
    expect(waited.state).toBe('SUCCESS');
    const late = await refusal(sagemaker.send(new StopTrainingJobCommand(name)));
    expect(late.message).toBe('The request was rejected because the training job is in status Stopped.');

    const ResourceArn = 'arn:aws:sagemaker:us-west-2:000000000000:training-job/stopped';
    const Tags = [{ Key: 'k', Value: 'v' }];
    await sagemaker.send(new AddTagsCommand({ ResourceArn, Tags }));
    expect((await sagemaker.send(new ListTagsCommand({ ResourceArn }))).Tags).toEqual(Tags);

    const names: string[] = [];
    const pages = paginateListTrainingJobs(
      { client: sagemaker, pageSize: 1 },
      { SortBy: 'Name', SortOrder: 'Ascending' },
    );
    for await (const page of pages)
      names.push(...page.TrainingJobSummaries!.map((found) => found.TrainingJobName!));
    expect(names).toEqual(['done', 'stopped', 'twice']);

    await sagemaker.send(new DeleteTrainingJobCommand(name));
    expect((await refusal(sagemaker.send(new DescribeTrainingJobCommand(name)))).message).toBe(
      'Requested resource not found.',
    );
  });
});
