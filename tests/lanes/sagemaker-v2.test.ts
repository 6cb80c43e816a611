import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BUCKET, startService, type TestService } from '../support/service.ts';
import { LANE_RUNTIMES, makeLaneRuntimes } from './runtimes.ts';
import { resultsOf, runSdk, type Fitted } from './sagemaker-python.ts';

// AWS's SageMaker Python SDK v2, unmodified: one `fit` for each distribution, followed to its end with its logs.
let service: TestService;
let shared: string;
const FILE_SYSTEM = 'fs-0123456789abcdef0';
beforeAll(async () => {
  await makeLaneRuntimes();
  service = await startService({ environment: { TRAINYARD_RUNTIMES: LANE_RUNTIMES } });
  shared = mkdtempSync(join(tmpdir(), 'trainyard-shared-'));
  await service.kill('SIGTERM');
  writeFileSync(
    join(service.dataDir, 'config.json'),
    JSON.stringify({ fileSystems: { [FILE_SYSTEM]: shared } }),
  );
  await service.start();
  for (const key of ['a', 'b', 'c'])
    await service.s3.putObject({ bucket: BUCKET, key: `data/${key}`, body: key });
});
afterAll(async () => {
  await service?.dispose();
  if (shared) rmSync(shared, { recursive: true, force: true });
});

async function fit(estimator: string, inputs = ''): Promise<Fitted & { results: Record<string, unknown>[] }> {
  const fitted = await runSdk(
    service,
    'v2',
    `estimator = ${estimator}\nestimator.fit(${inputs})\nanswer(estimator)\n`,
  );
  expect(fitted.description, fitted.output).toMatchObject({ TrainingJobStatus: 'Completed' });
  expect(fitted.output).toContain('Training seconds: ');
  const key = `${fitted.description.TrainingJobName}/output/model.tar.gz`;
  expect(await service.s3.headObject({ bucket: BUCKET, key })).not.toBeNull();
  return { ...fitted, results: resultsOf(fitted.output) };
}

const ranks = (results: Record<string, unknown>[], name = 'rank'): unknown[] =>
  results.map((each) => each[name]).sort();

test.each([
  ['torch_distributed', '2.3.0', "{'torch_distributed': {'enabled': True}}", 'gloo', 2],
  ['pytorchddp', '2.2.0', "{'pytorchddp': {'enabled': True}}", 'gloo', 2],
  [
    'smdistributed.dataparallel',
    '2.2.0',
    "{'smdistributed': {'dataparallel': {'enabled': True}}}",
    'smddp',
    2,
  ],
])('PyTorch with %s', async (_, version, distribution, backend, world) => {
  const { results } = await fit(
    `PyTorch(entry_point='torch_ranks.py', framework_version='${version}', py_version='${version === '2.2.0' ? 'py310' : 'py311'}', instance_count=2, ` +
      `instance_type='ml.p4d.24xlarge', distribution=${distribution}, hyperparameters={'backend': '${backend}'}, **common)`,
  );
  expect(ranks(results)).toEqual([0, 1]);
  for (const result of results) expect(result).toMatchObject({ world, sum: 3, spread: 0, backend });
});

test('PyTorch with smdistributed.modelparallel, version 1 over mpi', async () => {
  const { results } = await fit(
    "PyTorch(entry_point='smp_pipeline.py', framework_version='1.13.1', py_version='py39', instance_count=2, instance_type='ml.p4d.24xlarge', " +
      "distribution={'smdistributed': {'modelparallel': {'enabled': True, 'parameters': {'partitions': 2, 'microbatches': 2, 'ddp': True}}}, " +
      "'mpi': {'enabled': True, 'processes_per_host': 1}}, **common)",
  );
  expect(ranks(results)).toEqual([0, 1]);
  for (const result of results) expect(result).toMatchObject({ stages: 2, fell: true });
});

test('PyTorch with smdistributed.modelparallel, version 2 over torch_distributed', async () => {
  const { results } = await fit(
    "PyTorch(entry_point='smp_shards.py', framework_version='2.2.0', py_version='py310', instance_count=2, instance_type='ml.p4d.24xlarge', " +
      "distribution={'torch_distributed': {'enabled': True}, " +
      "'smdistributed': {'modelparallel': {'enabled': True, 'parameters': {'hybrid_shard_degree': 2}}}}, **common)",
  );
  expect(ranks(results)).toEqual([0, 1]);
  for (const result of results) expect(result).toMatchObject({ world: 2, shards: 2, fell: true });
});

test('PyTorch with mpi, two processes on each host', async () => {
  const { results } = await fit(
    "PyTorch(entry_point='mpi_ranks.py', framework_version='2.3.0', py_version='py311', instance_count=2, instance_type='ml.m5.xlarge', " +
      "distribution={'mpi': {'enabled': True, 'processes_per_host': 2}}, **common)",
  );
  expect(ranks(results)).toEqual([0, 1, 2, 3]);
  for (const result of results) expect(result).toMatchObject({ world: 4, sum: 10 });
});

test('plain processes, with a channel dealt over the hosts', async () => {
  const { results, description } = await fit(
    "PyTorch(entry_point='plain.py', framework_version='2.3.0', py_version='py311', instance_count=2, instance_type='ml.m5.xlarge', " +
      "tags=[{'Key': 'team', 'Value': 'vision'}], **common)",
    `{'train': TrainingInput('s3://${BUCKET}/data/', distribution='ShardedByS3Key')}`,
  );
  expect(results).toHaveLength(2);
  const seen = results.flatMap((result) => (result['channels'] as { train: string[] }).train);
  expect(seen.sort()).toEqual(['a', 'b', 'c']);
  const { Tags } = await service.aws.sagemaker.call('ListTags', {
    ResourceArn: description['TrainingJobArn'] as string,
  });
  expect(Tags).toEqual([{ Key: 'team', Value: 'vision' }]);
});

test('a heterogeneous cluster: ranks in one group, a plain process in the other, channels for one', async () => {
  const { results } = await fit(
    "(lambda loader, trainer: PyTorch(entry_point='groups.py', framework_version='2.3.0', py_version='py311', instance_groups=[loader, trainer], " +
      "distribution={'mpi': {'enabled': True, 'processes_per_host': 1}, 'instance_groups': [trainer]}, **common))" +
      "(InstanceGroup('loader', 'ml.c5.xlarge', 1), InstanceGroup('trainer', 'ml.m5.xlarge', 2))",
    `{'train': TrainingInput('s3://${BUCKET}/data/', instance_groups=['loader'])}`,
  );
  const plain = results.filter((result) => 'hosts' in result);
  const trained = results.filter((result) => 'rank' in result);
  expect(plain).toEqual([
    { host: 'algo-1', hosts: 3, channels: { train: ['a', 'b', 'c'] }, group: 'loader' },
  ]);
  expect(ranks(trained)).toEqual([0, 1]);
  expect(ranks(trained, 'host')).toEqual(['algo-2', 'algo-3']);
  for (const result of trained) expect(result).toMatchObject({ world: 2, sum: 3, group: 'trainer' });
});

test('TensorFlow with mpi', async () => {
  const { results } = await fit(
    "TensorFlow(entry_point='mpi_ranks.py', framework_version='2.19.0', py_version='py312', instance_count=2, instance_type='ml.m5.xlarge', " +
      "distribution={'mpi': {'enabled': True, 'processes_per_host': 1, 'custom_mpi_options': '--verbose'}}, **common)",
  );
  expect(ranks(results)).toEqual([0, 1]);
  for (const result of results) expect(result).toMatchObject({ world: 2, sum: 3 });
});

test('TensorFlow with parameter servers', async () => {
  const { results, output } = await fit(
    "TensorFlow(entry_point='tf_parameter_server.py', framework_version='2.19.0', py_version='py312', instance_count=2, instance_type='ml.m5.xlarge', " +
      "distribution={'parameter_server': {'enabled': True}}, **common)",
  );
  expect(output).toContain('"ps"');
  const chief = results.find((result) => result['role'] === 'chief')!;
  expect(chief['slope']).toBeCloseTo(3, 1);
  expect(chief['on']).toMatch(/job:ps/);
});

test('TensorFlow 2.14 with parameter servers and tf.estimator, over a file system that all hosts share', async () => {
  const { results } = await fit(
    "TensorFlow(entry_point='tf_estimator.py', framework_version='2.14.1', py_version='py310', instance_count=2, instance_type='ml.m5.xlarge', " +
      "subnets=['subnet-1'], security_group_ids=['sg-1'], distribution={'parameter_server': {'enabled': True}}, **common)",
    `{'shared': FileSystemInput('${FILE_SYSTEM}', 'FSxLustre', '/fsx', 'rw')}`,
  );
  const master = results.find((result) => result['type'] === 'master')!;
  expect(master['loss']).toBeLessThan(0.05);
});

test('TensorFlow with multi_worker_mirrored_strategy', async () => {
  const { results } = await fit(
    "TensorFlow(entry_point='tf_mirrored.py', framework_version='2.19.0', py_version='py312', instance_count=2, instance_type='ml.m5.xlarge', " +
      "distribution={'multi_worker_mirrored_strategy': {'enabled': True}}, **common)",
  );
  expect(ranks(results, 'index')).toEqual([0, 1]);
  for (const result of results) expect(result).toMatchObject({ replicas: 2, sum: 3, fell: true });
  // Replicas of one model have one loss.
  expect(results[0]!['loss']).toBe(results[1]!['loss']);
});

test('MXNet with parameter servers', async () => {
  const { results } = await fit(
    "MXNet(entry_point='mxnet_parameter_server.py', framework_version='1.9.0', py_version='py38', instance_count=2, instance_type='ml.m5.xlarge', " +
      "distribution={'parameter_server': {'enabled': True}}, **common)",
  );
  expect(ranks(results)).toEqual([0, 1]);
  for (const result of results) expect(result).toMatchObject({ workers: 2, sum: 3 });
});

test('Hugging Face with torch_distributed', async () => {
  const { results } = await fit(
    "HuggingFace(entry_point='huggingface_trainer.py', transformers_version='4.49.0', pytorch_version='2.5.1', py_version='py311', instance_count=2, " +
      "instance_type='ml.p4d.24xlarge', distribution={'torch_distributed': {'enabled': True}}, **common)",
  );
  expect(ranks(results)).toEqual([0, 1]);
  for (const result of results) expect(result).toMatchObject({ world: 2 });
});

test('a script that fails: the SDK raises with the reason of the job', async () => {
  const failure = runSdk(
    service,
    'v2',
    `PyTorch(entry_point='torch_ranks.py', framework_version='2.3.0', py_version='py311', instance_count=1, instance_type='ml.m5.xlarge', **common).fit()`,
  );
  await expect(failure).rejects.toThrow(/UnexpectedStatusException[^]*AlgorithmError/);
});
