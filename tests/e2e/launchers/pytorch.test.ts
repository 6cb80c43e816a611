import { afterAll, beforeAll, expect, test } from 'vitest';
import { finished, logged, logLines, reaches } from '../../support/jobs.ts';
import { startService, type TestService } from '../../support/service.ts';
import { until } from '../../support/until.ts';
import { differenceFromAlone, launchJob, notices } from './launch-job.ts';

let service: TestService;
beforeAll(async () => {
  service = await startService({ hosts: 3 });
});
afterAll(() => service?.dispose());

test('parameter_server of PyTorch starts plain processes, and the description says so', async () => {
  const script = 'plain_ranks.py';
  const name = await launchJob(service, {
    framework: 'pytorch',
    script,
    hyperParameters: { sagemaker_parameter_server_enabled: true },
  });
  await finished(service, name);
  // Bound: sums of two float64 gradients, over 10 steps.
  expect(await differenceFromAlone(service, name, { framework: 'pytorch', script })).toBeLessThan(1e-12);
  expect(await notices(service, name)).toContain(
    "ignored_distribution: The job asks for parameter_server, which starts nothing with this image, as in AWS's toolkit: the script runs once on every host.",
  );
});

test('torchrun with the backend xla runs a script for Trainium on the stand-in for torch_xla', async () => {
  const script = 'trainium.py';
  const name = await launchJob(service, {
    framework: 'pytorch',
    script,
    beside: 'xla-stand-in',
    hyperParameters: {
      sagemaker_torch_distributed_enabled: true,
      sagemaker_instance_type: 'ml.trn1.2xlarge',
      // What the two NeuronCores of this type would give; the test machine has none.
      sagemaker_mpi_num_of_processes_per_host: 2,
    },
    change: { ResourceConfig: { InstanceType: 'ml.trn1.2xlarge', InstanceCount: 2, VolumeSizeInGB: 30 } },
  });
  await finished(service, name);
  expect(await differenceFromAlone(service, name, { framework: 'pytorch', script })).toBeLessThan(1e-12);
  expect((await logLines(service, name)).join('\n')).toContain('ordinal 3 of 4 cores 0');
  expect((await notices(service, name)).join('\n')).toMatch(
    /ml\.trn1\.2xlarge has Neuron cores but none was found/,
  );
});

test('a heterogeneous cluster runs mpi on the chosen group and the script alone on the other', async () => {
  const group = (
    InstanceGroupName: string,
    InstanceType: 'ml.m5.xlarge' | 'ml.c5.xlarge',
    InstanceCount: number,
  ) => ({
    InstanceGroupName,
    InstanceType,
    InstanceCount,
  });
  const name = await launchJob(service, {
    framework: 'pytorch',
    script: 'groups.py',
    hyperParameters: {
      sagemaker_mpi_enabled: true,
      sagemaker_mpi_num_of_processes_per_host: 2,
      sagemaker_distribution_instance_groups: ['train'],
    },
    change: {
      ResourceConfig: {
        InstanceGroups: [group('data', 'ml.c5.xlarge', 1), group('train', 'ml.m5.xlarge', 2)],
        VolumeSizeInGB: 30,
      },
    },
  });
  await finished(service, name);
  const lines = (await logLines(service, name)).join('\n');
  expect(lines).toContain(
    'algo-1: group data ml.c5.xlarge all ["data","train"] distributed ["train"] hetero true',
  );
  expect(lines).toContain('algo-1: handed out 40');
  expect(lines).toMatch(/algo-2: .*group train ml\.m5\.xlarge all/);
  expect(lines).toMatch(/rank 3 of 4 on algo-3 total 780/);
});

test('when a script ends on one host while another goes on then the job goes on and says who waits for whom', async () => {
  const name = await launchJob(service, {
    framework: 'pytorch',
    script: {
      text: `import os, time
if os.environ["SM_CURRENT_HOST"] == "algo-2":
    print("going on", flush=True)
    time.sleep(600)
`,
    },
  });
  await logged(service, name, /algo-2: going on/);
  const notice = await until(
    'the notice',
    async () => (await notices(service, name)).find((text) => text.startsWith('awaits_hosts')),
    { deadlineMs: 30_000 },
  );
  expect(notice).toMatch(
    /^awaits_hosts: The script on algo-1 ended at \d\d:\d\d:\d\d UTC with exit code 0; the job goes on until the script on algo-2 ends\.$/,
  );
  await reaches(service, name, 'Training');
  await service.aws.sagemaker.call('StopTrainingJob', { TrainingJobName: name });
  await finished(service, name, 'Stopped');
});
