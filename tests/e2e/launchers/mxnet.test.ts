import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { finished, logged, logLines, unpacked } from '../../support/jobs.ts';
import { hostProcesses, startService, type TestService } from '../../support/service.ts';
import { until } from '../../support/until.ts';
import { differenceFromAlone, hasPackage, hasRuntime, launchJob, SLACK_MS } from './launch-job.ts';

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

  // Horovod is built from source for minutes, so it is a lane: docs/distributions.md says how.
  test.skipIf(!hasPackage('mxnet', 'horovod'))(
    'Horovod under mpi gives the weights of one process',
    async () => {
      const script = 'horovod_mxnet.py';
      const name = await launchJob(service, {
        framework: 'mxnet',
        script,
        hyperParameters: { sagemaker_mpi_enabled: true, sagemaker_mpi_num_of_processes_per_host: 2 },
      });
      await finished(service, name);
      expect(await differenceFromAlone(service, name, { framework: 'mxnet', script })).toBeLessThan(1e-12);
      expect((await logLines(service, name)).join('\n')).toContain('horovod rank 3 local 1 of 4');
    },
  );

  test('a stop gives the script the time to save, with its servers still there', async () => {
    const name = await launchJob(service, {
      framework: 'mxnet',
      script: {
        text: `import mxnet as mx, os, signal, sys, time
store = mx.kv.create("dist_sync")
store.init("weights", mx.nd.ones((2,)))
def save(*_):
    out = mx.nd.zeros((2,))
    store.pull("weights", out=out)
    out.wait_to_read()
    open(os.environ["SM_MODEL_DIR"] + "/" + os.environ["SM_CURRENT_HOST"], "w").write(str(out.asnumpy().tolist()))
    sys.stdout.flush()
    os._exit(0)
signal.signal(signal.SIGTERM, save)
print("training", flush=True)
while True:
    time.sleep(0.1)
`,
      },
      hyperParameters: { sagemaker_parameter_server_enabled: true },
    });
    for (const host of ['algo-1', 'algo-2']) await logged(service, name, new RegExp(`${host}: training`));
    await service.aws.sagemaker.call('StopTrainingJob', { TrainingJobName: name });
    const { ModelArtifacts } = await finished(service, name, 'Stopped');
    const model = await unpacked(service, ModelArtifacts.S3ModelArtifacts!);
    const saved = ['algo-1', 'algo-2'].map((host) => readFileSync(join(model.directory, host), 'utf8'));
    model.dispose();
    expect(saved).toEqual(['[1.0, 1.0]', '[1.0, 1.0]']);
    await until('no process left', () => hostProcesses(service, name).length === 0);
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
      const job = await finished(service, name, 'Failed');
      expect(job.FailureReason).toContain(`algo-1: The MXNet ${role} on algo-1 ended`);
      expect(job.TrainingEndTime!.getTime() - killedAt).toBeLessThan(5000 + SLACK_MS);
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
