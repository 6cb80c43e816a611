import { execFile } from 'node:child_process';
import { mkdtempSync, openAsBlob, readFileSync, rmSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { CreateTrainingJobRequest, DescribeTrainingJobResponse } from '@trainyard/api';
import { BUCKET, IMAGE, ROLE, ROOT, type TestService } from './service.ts';
import { until } from './until.ts';

const run = promisify(execFile);
export const SCRIPTS = join(ROOT, 'tests/fixtures/scripts');
let count = 0;

export interface JobOptions {
  name?: string;
  /** A file of `tests/fixtures/scripts`. */
  script: string;
  instances?: number;
  processes?: number;
  distribution?: 'torch_distributed' | 'mpi' | 'pytorchddp' | 'none';
  hyperParameters?: Record<string, string>;
  /** More files for the source archive: name to content. */
  files?: Record<string, string | Buffer>;
  change?: Partial<CreateTrainingJobRequest>;
}

/** Sends a script-mode job as the SageMaker SDK would; every byte by the public calls. */
export async function createJob(service: TestService, options: JobOptions): Promise<string> {
  const name = options.name ?? `job-${process.pid}-${++count}`;
  const key = `${name}/source/sourcedir.tar.gz`;
  await service.s3.putObject({ bucket: BUCKET, key, body: await archive(options) });
  const json = JSON.stringify;
  const distribution = options.distribution ?? 'torch_distributed';
  const flags: Record<string, string> = {
    torch_distributed: 'sagemaker_torch_distributed_enabled',
    mpi: 'sagemaker_mpi_enabled',
    pytorchddp: 'sagemaker_distributed_dataparallel_enabled',
  };
  const flag = flags[distribution];
  const { HyperParameters, ...change } = options.change ?? {};
  await service.aws.sagemaker.call('CreateTrainingJob', {
    TrainingJobName: name,
    RoleArn: ROLE,
    AlgorithmSpecification: { TrainingImage: IMAGE, TrainingInputMode: 'File' },
    OutputDataConfig: { S3OutputPath: `s3://${BUCKET}/out` },
    ResourceConfig: {
      InstanceType: 'ml.m5.xlarge',
      InstanceCount: options.instances ?? 2,
      VolumeSizeInGB: 30,
    },
    StoppingCondition: { MaxRuntimeInSeconds: 600 },
    HyperParameters: {
      sagemaker_program: json(options.script),
      sagemaker_submit_directory: json(`s3://${BUCKET}/${key}`),
      sagemaker_container_log_level: '20',
      sagemaker_job_name: json(name),
      sagemaker_region: json('us-west-2'),
      ...(flag ? { [flag]: 'true' } : {}),
      ...(options.processes ? { sagemaker_mpi_num_of_processes_per_host: String(options.processes) } : {}),
      ...options.hyperParameters,
      ...HyperParameters,
    },
    ...change,
  });
  return name;
}

function archive(options: JobOptions): Promise<Blob> {
  return sourceArchive({
    [options.script]: readFileSync(join(SCRIPTS, options.script)),
    ...options.files,
  });
}

/** The least that a request holds: one host runs a command of the shell. */
export function shellRequest(name: string, command: string): CreateTrainingJobRequest {
  return {
    TrainingJobName: name,
    RoleArn: ROLE,
    AlgorithmSpecification: {
      TrainingImage: IMAGE,
      TrainingInputMode: 'File',
      ContainerEntrypoint: ['/bin/sh', '-c'],
      ContainerArguments: [command],
    },
    OutputDataConfig: { S3OutputPath: `s3://${BUCKET}/out` },
    ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: 1, VolumeSizeInGB: 1 },
  };
}

/** The file that scripts of `tests/fixtures/scripts` wait for when they are told to hold, as the machine sees it. */
export function goOnFile(service: TestService, name: string, host = 'algo-1'): string {
  return join(service.dataDir, 'jobs', name, '1/hosts', host, 'ml/go-on');
}

/** A `sourcedir.tar.gz` of the files: name to content. */
export async function sourceArchive(files: Record<string, string | Buffer>): Promise<Blob> {
  const directory = mkdtempSync(join(tmpdir(), 'trainyard-source-'));
  try {
    await mkdir(join(directory, 'source'));
    for (const [name, text] of Object.entries(files)) {
      await mkdir(dirname(join(directory, 'source', name)), { recursive: true });
      await writeFile(join(directory, 'source', name), text);
    }
    await run('tar', ['-czf', join(directory, 'source.tar.gz'), '-C', join(directory, 'source'), '.']);
    return new Blob([readFileSync(join(directory, 'source.tar.gz'))]);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

export const TERMINAL = ['Completed', 'Failed', 'Stopped'];

/** Waits for the job's end. @throws Error with description and logs when it takes too long or ends otherwise */
export async function finished(
  service: TestService,
  name: string,
  expected: 'Completed' | 'Failed' | 'Stopped' = 'Completed',
  deadlineMs = 90_000,
): Promise<DescribeTrainingJobResponse> {
  const job = await until(
    `${name} to end`,
    async () => {
      const found = await service.describe(name);
      return TERMINAL.includes(found.TrainingJobStatus) ? found : null;
    },
    {
      deadlineMs,
      show: async () => ({
        job: await service.describe(name),
        logs: await logLines(service, name),
        service: service.log(),
      }),
    },
  );
  if (job.TrainingJobStatus !== expected) {
    const lines = await logLines(service, name);
    throw new Error(
      `${name} is ${job.TrainingJobStatus}, not ${expected}: ${job.FailureReason}\n${lines.join('\n')}\n${service.log()}`,
    );
  }
  return job;
}

/** Waits until the job has a secondary status. */
export async function reaches(
  service: TestService,
  name: string,
  status: string,
  deadlineMs = 60_000,
): Promise<void> {
  await until(
    `${name} to reach ${status}`,
    async () => {
      const job = await service.describe(name);
      if (TERMINAL.includes(job.TrainingJobStatus) && job.SecondaryStatus !== status) {
        throw new Error(`it ended: ${job.TrainingJobStatus} ${job.FailureReason}`);
      }
      return job.SecondaryStatus === status;
    },
    {
      deadlineMs,
      show: async () => ({ job: await service.describe(name), logs: await logLines(service, name) }),
    },
  );
}

/** All lines of a job by CloudWatch Logs, host by host, each as `algo-1: text`. */
export async function logLines(service: TestService, name: string): Promise<string[]> {
  const group = '/aws/sagemaker/TrainingJobs';
  const lines: string[] = [];
  const { logStreams = [] } = await service.aws.logs
    .call('DescribeLogStreams', { logGroupName: group, logStreamNamePrefix: `${name}/` })
    .catch(() => ({ logStreams: [] }));
  for (const { logStreamName } of logStreams) {
    let token: string | undefined;
    for (;;) {
      const page = await service.aws.logs.call('GetLogEvents', {
        logGroupName: group,
        logStreamName: logStreamName!,
        startFromHead: true,
        ...(token ? { nextToken: token } : {}),
      });
      const host = logStreamName!.slice(name.length + 1).replace(/-\d+$/, '');
      lines.push(...(page.events ?? []).map((event) => `${host}: ${event.message}`));
      if (!page.events?.length || page.nextForwardToken === token) break;
      token = page.nextForwardToken;
    }
  }
  return lines;
}

/** Waits until some line of the job matches. */
export async function logged(
  service: TestService,
  name: string,
  pattern: RegExp,
  deadlineMs = 60_000,
): Promise<string> {
  return until(
    `a line that matches ${pattern}`,
    async () => {
      const line = (await logLines(service, name)).find((text) => pattern.test(text));
      if (line) return line;
      const job = await service.describe(name);
      if (TERMINAL.includes(job.TrainingJobStatus))
        throw new Error(`it ended: ${job.TrainingJobStatus} ${job.FailureReason}`);
      return null;
    },
    {
      deadlineMs,
      show: async () => ({ job: await service.describe(name), logs: await logLines(service, name) }),
    },
  );
}

/** Downloads and unpacks an artifact archive into a new directory. */
export async function unpacked(
  service: TestService,
  uri: string,
): Promise<{ directory: string; dispose: () => void }> {
  const directory = mkdtempSync(join(tmpdir(), 'trainyard-model-'));
  const [, bucket, key] = /^s3:\/\/([^/]+)\/(.*)$/.exec(uri)!;
  const { body } = await service.s3.getObject({ bucket: bucket!, key: key! });
  await writeFile(join(directory, 'archive.tar.gz'), body as unknown as AsyncIterable<Uint8Array>);
  await run('tar', ['-xzf', join(directory, 'archive.tar.gz'), '-C', directory]);
  return { directory, dispose: () => rmSync(directory, { recursive: true, force: true }) };
}

export async function upload(service: TestService, key: string, path: string): Promise<void> {
  await service.s3.putObject({ bucket: BUCKET, key, body: await openAsBlob(path) });
}
