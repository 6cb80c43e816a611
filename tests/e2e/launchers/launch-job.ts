import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { CreateTrainingJobRequest } from '@trainyard/api';
import { signHeaders } from '@trainyard/api';
import { sourceArchive, unpacked } from '../../support/jobs.ts';
import { BUCKET, ROLE, RUNTIMES, type TestService } from '../../support/service.ts';

const run = promisify(execFile);
export const SCRIPTS = join(import.meta.dirname, 'scripts');
const REGISTRY = '763104351884.dkr.ecr.us-west-2.amazonaws.com';

/** The image of each framework, with the version that its runtime has. */
export const IMAGES = {
  pytorch: `${REGISTRY}/pytorch-training:2.13.0-cpu-py311`,
  tensorflow: `${REGISTRY}/tensorflow-training:2.21.0-cpu-py311`,
  mxnet: `${REGISTRY}/mxnet-training:1.9.1-cpu-py311`,
};
/** For a machine that is busy with other things or stands still for a while, beside what the product promises. */
export const SLACK_MS = 10_000;
export type FrameworkName = keyof typeof IMAGES;

export const hasRuntime = (name: FrameworkName): boolean => existsSync(join(RUNTIMES, name, 'runtime.json'));

/** Whether a runtime has a package of that folder name. */
export function hasPackage(runtime: FrameworkName, folder: string): boolean {
  const lib = join(RUNTIMES, runtime, 'lib');
  const versions = existsSync(lib) ? readdirSync(lib) : [];
  return versions.some((version) => existsSync(join(lib, version, 'site-packages', folder)));
}

export interface LaunchOptions {
  framework: FrameworkName;
  /** A file of `scripts/`, or its text. */
  script: string | { text: string };
  /** A folder of `scripts/` whose files lie beside the script. */
  beside?: string;
  instances?: number;
  /** `sagemaker_…` and the user's, as JSON values. */
  hyperParameters?: Record<string, unknown>;
  environment?: Record<string, string>;
  change?: Partial<CreateTrainingJobRequest>;
}

let count = 0;

/** Sends a job as the SageMaker SDK of that framework would. */
export async function launchJob(service: TestService, options: LaunchOptions): Promise<string> {
  const name = `launch-${process.pid}-${++count}`;
  const key = `${name}/source/sourcedir.tar.gz`;
  const program = typeof options.script === 'string' ? options.script : 'train.py';
  const text =
    typeof options.script === 'string' ? readFileSync(join(SCRIPTS, program)) : options.script.text;
  await service.s3.putObject({
    bucket: BUCKET,
    key,
    body: await sourceArchive({ [program]: text, ...filesOf(options.beside) }),
  });
  const parameters = {
    sagemaker_program: program,
    sagemaker_submit_directory: `s3://${BUCKET}/${key}`,
    sagemaker_container_log_level: 20,
    sagemaker_job_name: name,
    sagemaker_region: 'us-west-2',
    ...options.hyperParameters,
  };
  await service.aws.sagemaker.call('CreateTrainingJob', {
    TrainingJobName: name,
    RoleArn: ROLE,
    AlgorithmSpecification: { TrainingImage: IMAGES[options.framework], TrainingInputMode: 'File' },
    OutputDataConfig: { S3OutputPath: `s3://${BUCKET}/out` },
    ResourceConfig: {
      InstanceType: 'ml.m5.xlarge',
      InstanceCount: options.instances ?? 2,
      VolumeSizeInGB: 30,
    },
    StoppingCondition: { MaxRuntimeInSeconds: 600 },
    HyperParameters: Object.fromEntries(
      Object.entries(parameters).map(([member, value]) => [member, JSON.stringify(value)]),
    ),
    ...(options.environment ? { Environment: options.environment } : {}),
    ...options.change,
  });
  return name;
}

function filesOf(folder: string | undefined): Record<string, Buffer> {
  if (folder === undefined) return {};
  const root = join(SCRIPTS, folder);
  const names = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.py'),
  );
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(root, name))]));
}

/** Sentences of the job's description, as `code: message`. */
export async function notices(service: TestService, name: string): Promise<string[]> {
  const url = `${service.url}/_trainyard/v1/jobs/${name}`;
  const headers = await signHeaders({
    method: 'GET',
    url,
    headers: {},
    payloadHash: createHash('sha256').digest('hex'),
    credentials: service.credentials,
    region: 'us-west-2',
    service: 'trainyard',
    now: Date.now(),
  });
  const answer = await fetch(url, { headers });
  const job = (await answer.json()) as { notices: { code: string; message: string }[] };
  return job.notices.map(({ code, message }) => `${code}: ${message}`);
}

/**
 * Largest difference between an array of the job's model and the same from one process: `python SCRIPT --alone FILE`.
 */
export async function differenceFromAlone(
  service: TestService,
  name: string,
  { framework, script, file = 'weights.npy' }: { framework: FrameworkName; script: string; file?: string },
): Promise<number> {
  const job = await service.describe(name);
  const model = await unpacked(service, job.ModelArtifacts.S3ModelArtifacts!);
  const folder = mkdtempSync(join(tmpdir(), 'trainyard-alone-'));
  const python = join(RUNTIMES, framework, 'bin/python');
  try {
    if (!readdirSync(model.directory).includes(file))
      throw new Error(`the model has no ${file}: ${readdirSync(model.directory).join(', ')}`);
    const alone = join(folder, file);
    await run(python, [join(SCRIPTS, script), '--alone', alone], {
      env: { PATH: process.env['PATH'] ?? '', HOME: folder, TF_CPP_MIN_LOG_LEVEL: '3' },
    });
    const program = 'import sys, numpy as n; a, b = map(n.load, sys.argv[1:]); print(abs(a - b).max())';
    const { stdout } = await run(python, ['-c', program, join(model.directory, file), alone]);
    return Number(stdout);
  } finally {
    model.dispose();
    rmSync(folder, { recursive: true, force: true });
  }
}
