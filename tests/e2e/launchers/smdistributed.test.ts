import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { finished, logLines } from '../../support/jobs.ts';
import { startService, type TestService } from '../../support/service.ts';
import { differenceFromAlone, hasPackage, launchJob } from './launch-job.ts';

/** `trainyard setup --libraries` puts both into the runtime. */
const hasLibraries = ['trainyard_collective', 'trainyard_parallel'].every((name) =>
  hasPackage('pytorch', name),
);

describe.skipIf(!hasLibraries)('smdistributed on two hosts with two ranks each', () => {
  let service: TestService;
  beforeAll(async () => {
    service = await startService({ hosts: 2 });
  });
  afterAll(() => service?.dispose());

  async function run(script: string, hyperParameters: Record<string, unknown>): Promise<string> {
    const name = await launchJob(service, {
      framework: 'pytorch',
      script,
      hyperParameters: { sagemaker_mpi_num_of_processes_per_host: 2, ...hyperParameters },
    });
    await finished(service, name);
    // Bound: means of float64 over parts of a batch, over 5 or 10 steps.
    expect(await differenceFromAlone(service, name, { framework: 'pytorch', script })).toBeLessThan(1e-12);
    return (await logLines(service, name)).join('\n');
  }

  test.each([
    [
      'dataparallel',
      { sagemaker_distributed_dataparallel_enabled: true, sagemaker_instance_type: 'ml.m5.xlarge' },
    ],
    ['torch_distributed', { sagemaker_torch_distributed_enabled: true }],
  ])('the backend smddp under %s gives the weights of one process', async (_, flags) => {
    const lines = await run('smddp.py', flags);
    expect(lines).toContain('backend smddp');
    expect(lines).toMatch(
      /sees RANK=3 LOCAL_RANK=1 WORLD_SIZE=4 LOCAL_WORLD_SIZE=2 .* TRAINYARD_COLLECTIVE_HOST_ID=algo-2 TRAINYARD_COLLECTIVE_INTERFACE=eth0/,
    );
    if ('sagemaker_distributed_dataparallel_enabled' in flags)
      expect(lines).toMatch(/sees RANK=3 .* SMDATAPARALLEL_LOCAL_RANK=1 MASTER_PORT=7777/);
  });

  test('modelparallel version 1 under mpi gives the losses of one process', async () => {
    const lines = await run('smp_v1.py', {
      sagemaker_mpi_enabled: true,
      sagemaker_mpi_custom_mpi_options: '',
      sagemaker_distributed_dataparallel_enabled: false,
      mp_parameters: { partitions: 2, microbatches: 2, ddp: true },
    });
    expect(lines).toContain('parameters {"ddp":true,"microbatches":2,"partitions":2} pp 2 dp 2');
    expect(lines).toMatch(/Started mpirun .*-x NCCL_PROTO=simple -x NCCL_ALGO=ring/);
  });

  test('modelparallel version 2 under torch_distributed gives the losses of one process', async () => {
    const lines = await run('smp_v2.py', {
      sagemaker_torch_distributed_enabled: true,
      mp_parameters: { hybrid_shard_degree: 2 },
    });
    expect(lines).toContain('parameters {"hybrid_shard_degree":2} shards 2');
  });
});
