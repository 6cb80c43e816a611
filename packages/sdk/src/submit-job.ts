import type { CreateTrainingJobRequest } from '@trainyard/api';
import { isServiceError, parseS3Uri } from '@trainyard/api';
import type { Connection } from './connection.ts';
import type { JobPlan } from './job-plan.ts';
import type { Session } from './session.ts';
import { TrainingJob } from './training-job.ts';
import type { PreparedUpload } from './uploads.ts';
import { prepareUpload } from './uploads.ts';

/** How far the clock of the service may be behind ours when it says when a job was made. */
const CLOCK_DIFFERENCE_MS = 1_000;

/** Uploads what a plan needs and makes its job. Local mistakes are found before anything is sent. */
export async function submitJob(plan: JobPlan, session: Session): Promise<TrainingJob> {
  const uploads: PreparedUpload[] = [];
  for (const upload of plan.uploads) {
    uploads.push(await prepareUpload(upload, (warning) => session.warn([warning])));
  }
  if (plan.defaultBucket !== null) await session.ensureDefaultBucket();
  for (const upload of uploads) {
    await session.use(({ s3, kind }) =>
      upload.send(s3, kind === 'aws' ? encryptionHeaders(plan.request, upload.bucket) : {}),
    );
  }
  const startedAt = Date.now();
  await session.use((connection) => createOnce(connection, plan.request, startedAt));
  return new TrainingJob(plan.request.TrainingJobName, session);
}

/** AWS's SDK encrypts code with KMS: with the output's key when it lies in the output's bucket. */
function encryptionHeaders(
  { OutputDataConfig }: CreateTrainingJobRequest,
  bucket: string,
): Record<string, string> {
  const { KmsKeyId, S3OutputPath } = OutputDataConfig;
  const isOutputBucket = parseS3Uri(S3OutputPath).bucket === bucket;
  return {
    'x-amz-server-side-encryption': 'aws:kms',
    ...(KmsKeyId !== undefined &&
      isOutputBucket && { 'x-amz-server-side-encryption-aws-kms-key-id': KmsKeyId }),
  };
}

/** The answer to an earlier try may have been lost: then the job that has this name is this one. */
async function createOnce(
  { sagemaker }: Connection,
  request: CreateTrainingJobRequest,
  startedAt: number,
): Promise<void> {
  try {
    await sagemaker.call('CreateTrainingJob', request);
  } catch (error) {
    if (!isServiceError(error, 'ResourceInUse')) throw error;
    const found = await sagemaker.call('DescribeTrainingJob', { TrainingJobName: request.TrainingJobName });
    const isOurs =
      found.CreationTime.getTime() >= startedAt - CLOCK_DIFFERENCE_MS &&
      JSON.stringify(found.HyperParameters ?? {}) === JSON.stringify(request.HyperParameters ?? {});
    if (!isOurs) throw error;
  }
}
