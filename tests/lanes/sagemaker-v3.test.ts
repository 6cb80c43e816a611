import { afterAll, beforeAll, expect, test } from 'vitest';
import { BUCKET, startService, type TestService } from '../support/service.ts';
import { LANE_RUNTIMES, makeLaneRuntimes } from './runtimes.ts';
import { resultsOf, runSdk } from './sagemaker-python.ts';

// AWS's SageMaker Python SDK v3, unmodified: ModelTrainer with each of its distributions.
let service: TestService;
beforeAll(async () => {
  await makeLaneRuntimes();
  service = await startService({ environment: { TRAINYARD_RUNTIMES: LANE_RUNTIMES } });
  for (const key of ['a', 'b']) await service.s3.putObject({ bucket: BUCKET, key: `data/${key}`, body: key });
});
afterAll(() => service?.dispose());

async function train(entryScript: string, options: string, call = ''): Promise<Record<string, unknown>[]> {
  const { description, output } = await runSdk(
    service,
    'v3',
    `
trainer = ModelTrainer(
    training_image='763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training:2.3.0-cpu-py311', role=role,
    source_code=SourceCode(source_dir=scripts, entry_script='${entryScript}'), ${options})
trainer.train(${call})
answer(trainer)
`,
  );
  expect(description, output).toMatchObject({ TrainingJobStatus: 'Completed' });
  return resultsOf(output);
}

const compute = "compute=Compute(instance_type='ml.m5.xlarge', instance_count=2)";
const ranks = (results: Record<string, unknown>[]): unknown[] => results.map(({ rank }) => rank).sort();

test('ModelTrainer without a distribution, with a channel', async () => {
  const results = await train(
    'plain.py',
    compute,
    `input_data_config=[InputData(channel_name='train', data_source='s3://${BUCKET}/data/')]`,
  );
  expect(results.map(({ host }) => host).sort()).toEqual(['algo-1', 'algo-2']);
  for (const result of results) expect(result).toMatchObject({ hosts: 2, channels: { train: ['a', 'b'] } });
});

test('ModelTrainer with Torchrun, two processes on each host', async () => {
  const results = await train('torch_ranks.py', `${compute}, distributed=Torchrun(process_count_per_node=2)`);
  expect(ranks(results)).toEqual([0, 1, 2, 3]);
  for (const result of results) expect(result).toMatchObject({ world: 4, sum: 10, spread: 0 });
});

test('ModelTrainer with Torchrun and the model-parallel library', async () => {
  const results = await train(
    'smp_shards.py',
    `${compute}, distributed=Torchrun(smp=SMP(hybrid_shard_degree=2))`,
  );
  expect(ranks(results)).toEqual([0, 1]);
  for (const result of results) expect(result).toMatchObject({ world: 2, shards: 2, fell: true });
});

// Its MPI driver starts as many ranks as one host should have, all of them on the first.
test('ModelTrainer with MPI on one host', async () => {
  const results = await train(
    'mpi_ranks.py',
    "compute=Compute(instance_type='ml.m5.xlarge', instance_count=1), distributed=MPI(process_count_per_node=2)",
  );
  expect(ranks(results)).toEqual([0, 1]);
  for (const result of results) expect(result).toMatchObject({ world: 2, sum: 3 });
});
