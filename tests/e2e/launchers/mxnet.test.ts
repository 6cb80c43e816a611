import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { finished, logged, logLines } from '../../support/jobs.ts';
import { hostProcesses, startService, type TestService } from '../../support/service.ts';
import { until } from '../../support/until.ts';
import { differenceFromAlone, hasRuntime, launchJob } from './launch-job.ts';

describe.skipIf(!hasRuntime('mxnet'))('MXNet on two hosts', () => {
  let service: TestService;
  beforeAll(async () => {
    service = await startService({ hosts: 2 });
  });
  afterAll(() => service?.dispose());

  test('parameter servers give the weights of one process, at the port that the job names', async () => {
    const name = await launchJob(service, {
      framework: 'mxnet',
      script: 'mxnet_ps.py',
      hyperParameters: { sagemaker_parameter_server_enabled: true, _ps_port: '8100', _ps_verbose: '1' },
    });
    // Agents that are killed meanwhile change nothing.
    await logged(service, name, /Started the MXNet server on algo-2/);
    for (const { pid } of hostProcesses(service, name).filter(({ command }) => command.includes('agent.mjs')))
      process.kill(pid, 'SIGKILL');
    await finished(service, name);
    // Bound: sums of two float32 gradients in one order or the other, over 20 steps.
    const difference = await differenceFromAlone(service, name, {
      framework: 'mxnet',
      script: 'mxnet_ps.py',
    });
    expect(difference).toBeLessThan(1e-5);
    const lines = (await logLines(service, name)).join('\n');
    expect(lines).toMatch(
      /algo-2: \{'DMLC_INTERFACE': 'eth0', 'DMLC_NUM_SERVER': '2', 'DMLC_NUM_WORKER': '2'/,
    );
    expect(lines).toMatch(
      /'DMLC_PS_ROOT_PORT': '8100', 'DMLC_PS_ROOT_URI': '10\.\d+\.\d+\.\d+', 'DMLC_ROLE': 'worker'/,
    );
  });

  test('mpi runs two ranks on each host', async () => {
    const name = await launchJob(service, {
      framework: 'mxnet',
      script: 'mpi_sum.py',
      hyperParameters: {
        sagemaker_mpi_enabled: true,
        sagemaker_mpi_num_of_processes_per_host: 2,
        framework: 'mxnet',
      },
    });
    await finished(service, name);
    const difference = await differenceFromAlone(service, name, { framework: 'mxnet', script: 'mpi_sum.py' });
    expect(difference).toBeLessThan(1e-12);
  });

  test.each(['scheduler', 'server'])(
    'when the %s dies then the job fails within 5 s and names it',
    async (role) => {
      const name = await launchJob(service, {
        framework: 'mxnet',
        script: {
          text: 'import mxnet as mx, time\nstore = mx.kv.create("dist_sync")\nprint("training", flush=True)\ntime.sleep(600)\n',
        },
        hyperParameters: { sagemaker_parameter_server_enabled: true },
      });
      await logged(service, name, /algo-1: training/);
      const found = await until(`the ${role}`, () =>
        hostProcesses(service, name).find(
          ({ host, pid }) => host === 'algo-1' && environmentOf(pid).includes(`DMLC_ROLE=${role}`),
        ),
      );
      const killedAt = Date.now();
      process.kill(found.pid, 'SIGKILL');
      const job = await finished(service, name, 'Failed', 20_000);
      expect(job.FailureReason).toContain(`algo-1: The MXNet ${role} on algo-1 ended`);
      expect(job.TrainingEndTime!.getTime() - killedAt).toBeLessThan(5000);
    },
  );
});

function environmentOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
  } catch {
    return [];
  }
}
