import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { finished, sourceArchive, unpacked } from '../support/jobs.ts';
import { BUCKET, ROLE, ROOT, startService, type TestService } from '../support/service.ts';
import { LANE_RUNTIMES } from './runtimes.ts';

// The real torch-xla, whose CPU device forms no group: one process. It takes 7 GB and some minutes to install.
let service: TestService;
beforeAll(async () => {
  await promisify(execFile)(join(ROOT, 'bin/trainyard'), [
    'setup',
    '--runtimes',
    LANE_RUNTIMES,
    '--runtime',
    'xla',
  ]);
  service = await startService({ environment: { TRAINYARD_RUNTIMES: LANE_RUNTIMES } });
}, 1_800_000);
afterAll(() => service?.dispose());

test('a script for a Neuron image runs on the real torch-xla', async () => {
  const script = readFileSync(join(import.meta.dirname, 'scripts/xla_linear.py'), 'utf8');
  await service.s3.putObject({
    bucket: BUCKET,
    key: 'xla/sourcedir.tar.gz',
    body: await sourceArchive({ 'train.py': script }),
  });
  await service.aws.sagemaker.call('CreateTrainingJob', {
    TrainingJobName: 'xla',
    RoleArn: ROLE,
    AlgorithmSpecification: {
      TrainingImage:
        '763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training-neuronx:2.9.0-neuronx-py312-sdk2.26.1-ubuntu22.04',
      TrainingInputMode: 'File',
    },
    HyperParameters: {
      sagemaker_program: '"train.py"',
      sagemaker_submit_directory: `"s3://${BUCKET}/xla/sourcedir.tar.gz"`,
    },
    OutputDataConfig: { S3OutputPath: `s3://${BUCKET}/out` },
    ResourceConfig: { InstanceType: 'ml.trn1.2xlarge', InstanceCount: 1, VolumeSizeInGB: 1 },
    StoppingCondition: { MaxRuntimeInSeconds: 900 },
  });
  const job = await finished(service, 'xla', 'Completed', 600_000);
  const model = await unpacked(service, job.ModelArtifacts!.S3ModelArtifacts!);
  const result = JSON.parse(readFileSync(join(model.directory, 'result.json'), 'utf8')) as Record<
    string,
    unknown
  >;
  model.dispose();
  expect(result['device']).toContain('xla');
  expect(result['loss']).toBeLessThan(0.1);
}, 900_000);
