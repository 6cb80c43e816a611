import { afterAll, beforeAll, expect, it } from 'vitest';
import { resultsOf, runSdk } from '../lanes/sagemaker-python.ts';
import { BUCKET, startService, type TestService } from '../support/service.ts';

// One `fit` of AWS's own SDK v2, which installs in seconds; every other option is in tests/lanes.
let service: TestService;
beforeAll(async () => {
  service = await startService();
});
afterAll(() => service?.dispose());

it("PyTorch(…).fit() of AWS's SDK v2 uploads, trains on two hosts, shows the log of both, and can be attached to", async () => {
  const { description, output } = await runSdk(
    service,
    'v2',
    `
estimator = PyTorch(entry_point='torch_ranks.py', framework_version='2.3.0', py_version='py311', instance_count=2,
                    instance_type='ml.p4d.24xlarge', distribution={'torch_distributed': {'enabled': True}}, **common)
estimator.fit()
answer(estimator)
attached = PyTorch.attach(estimator.latest_training_job.name, session)
print('ATTACHED', attached.model_data, attached.entry_point, attached.instance_count, attached.framework_version)
`,
  );
  expect(description, output).toMatchObject({ TrainingJobStatus: 'Completed' });
  const results = resultsOf(output).sort((a, b) => Number(a['rank']) - Number(b['rank']));
  expect(results).toMatchObject([
    { rank: 0, world: 2, sum: 3, spread: 0 },
    { rank: 1, world: 2, sum: 3, spread: 0 },
  ]);
  // The SDK colours each host's lines and ends with the times of the job.
  expect(output).toContain('Training seconds: ');
  const { TrainingJobName: name } = description;
  expect(output).toContain(`ATTACHED s3://${BUCKET}/${name}/output/model.tar.gz torch_ranks.py 2 2.3.0`);
  const key = `${name}/output/model.tar.gz`;
  expect((await service.s3.headObject({ bucket: BUCKET, key }))?.sizeBytes).toBeGreaterThan(0);
}, 300_000);
