import { afterAll, beforeAll, expect, it } from 'vitest';
import { resultsOf, runSdk } from '../lanes/sagemaker-python.ts';
import { BUCKET, startService, type TestService } from '../support/service.ts';

// One `fit` of AWS's own SDK v2, which installs in seconds; every other option is in tests/lanes.
let service: TestService;
beforeAll(async () => {
  service = await startService();
});
afterAll(() => service?.dispose());

it("PyTorch(…).fit() of AWS's SDK v2 uploads, trains on two hosts and shows the log of both", async () => {
  const { description, output } = await runSdk(
    service,
    'v2',
    `
estimator = PyTorch(entry_point='torch_ranks.py', framework_version='2.3.0', py_version='py311', instance_count=2,
                    instance_type='ml.p4d.24xlarge', distribution={'torch_distributed': {'enabled': True}}, **common)
estimator.fit()
answer(estimator)
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
  const key = `${description.TrainingJobName}/output/model.tar.gz`;
  expect((await service.s3.headObject({ bucket: BUCKET, key }))?.sizeBytes).toBeGreaterThan(0);
}, 300_000);
