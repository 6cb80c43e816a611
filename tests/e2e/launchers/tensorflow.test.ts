import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { finished, logged, logLines } from '../../support/jobs.ts';
import { hostProcesses, startService, type TestService } from '../../support/service.ts';
import { until } from '../../support/until.ts';
import { differenceFromAlone, hasRuntime, launchJob, SLACK_MS } from './launch-job.ts';

/** Importing TensorFlow takes up to 24 s on a busy machine, and every process of the job does it. */
const DEADLINE_MS = 150_000;

describe.skipIf(!hasRuntime('tensorflow'))('TensorFlow on two hosts', () => {
  let service: TestService;
  beforeAll(async () => {
    service = await startService({ hosts: 2 });
  });
  afterAll(() => service?.dispose());

  const parameterServers = (): Promise<string> =>
    launchJob(service, {
      framework: 'tensorflow',
      script: 'tf_ps.py',
      hyperParameters: { sagemaker_parameter_server_enabled: true, model_dir: 's3://test-bucket/model' },
    });

  test(
    'parameter servers give the weights of one process, and end with the master',
    async () => {
      const name = await parameterServers();
      await finished(service, name, 'Completed', DEADLINE_MS);
      // Bound: two gradients in float64, summed in one order or the other, over 20 steps.
      const difference = await differenceFromAlone(service, name, {
        framework: 'tensorflow',
        script: 'tf_ps.py',
      });
      expect(difference).toBeLessThan(1e-12);
      const lines = (await logLines(service, name)).join('\n');
      expect(lines).toContain(
        'algo-2: TF_CONFIG {"cluster": {"master": ["algo-1:2222"], "ps": ["algo-1:2223", "algo-2:2223"], "worker": ["algo-2:2222"]}, "environment": "cloud", "task": {"index": 0, "type": "worker"}}',
      );
      expect(lines).toMatch(/algo-1: weights live on \/job:ps/);
    },
    DEADLINE_MS + 60_000,
  );

  test(
    'MultiWorkerMirrored gives the weights of one process',
    async () => {
      const name = await launchJob(service, {
        framework: 'tensorflow',
        script: 'tf_mirrored.py',
        hyperParameters: { sagemaker_multi_worker_mirrored_strategy_enabled: true },
      });
      await finished(service, name, 'Completed', DEADLINE_MS);
      // Bound: float32 means of half batches, over 10 steps.
      const difference = await differenceFromAlone(service, name, {
        framework: 'tensorflow',
        script: 'tf_mirrored.py',
      });
      expect(difference).toBeLessThan(1e-5);
      const lines = (await logLines(service, name)).join('\n');
      expect(lines).toContain('algo-2: replicas 2');
      expect(lines).toContain(
        'algo-2: TF_CONFIG {"cluster":{"worker":["algo-1:8890","algo-2:8890"]},"environment":"cloud","task":{"index":1,"type":"worker"}}',
      );
    },
    DEADLINE_MS + 60_000,
  );

  test(
    'mpi runs two ranks on each host, with the options that the job gives',
    async () => {
      const name = await launchJob(service, {
        framework: 'tensorflow',
        script: 'mpi_sum.py',
        hyperParameters: {
          sagemaker_mpi_enabled: true,
          sagemaker_mpi_num_of_processes_per_host: 2,
          sagemaker_mpi_custom_mpi_options: '-x FROM_OPTIONS=1 --NCCL_DEBUG WARN',
          framework: 'tensorflow',
        },
      });
      await finished(service, name, 'Completed', DEADLINE_MS);
      const difference = await differenceFromAlone(service, name, {
        framework: 'tensorflow',
        script: 'mpi_sum.py',
      });
      expect(difference).toBeLessThan(1e-12);
      const lines = (await logLines(service, name)).join('\n');
      expect(lines).toMatch(/Started mpirun .*-x NCCL_DEBUG=WARN .*-x FROM_OPTIONS=1 /);
      expect(lines).toContain('rank 3 local 1 on algo-2');
    },
    DEADLINE_MS + 60_000,
  );

  test(
    'when a parameter server dies then the job fails within 5 s and names it',
    async () => {
      const name = await launchJob(service, {
        framework: 'tensorflow',
        script: { text: 'import time\nprint("training", flush=True)\ntime.sleep(600)\n' },
        hyperParameters: { sagemaker_parameter_server_enabled: true },
      });
      await logged(service, name, /algo-1: training/, DEADLINE_MS);
      const server = await until('the parameter server', () =>
        hostProcesses(service, name).find(
          ({ host, command }) => host === 'algo-2' && command.includes('job_name="ps"'),
        ),
      );
      const killedAt = Date.now();
      process.kill(server.pid, 'SIGKILL');
      const job = await finished(service, name, 'Failed');
      expect(job.FailureReason).toContain(
        'algo-2: The parameter server on algo-2 ended while the script needed it; killed by SIGKILL',
      );
      expect(job.TrainingEndTime!.getTime() - killedAt).toBeLessThan(5000 + SLACK_MS);
      await until('no process left', () => hostProcesses(service, name).length === 0);
    },
    DEADLINE_MS + 60_000,
  );

  test(
    'when one worker dies then the job fails and names it, not those that lost it',
    async () => {
      const name = await launchJob(service, {
        framework: 'tensorflow',
        script: {
          text: `import os, signal
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
total = tf.function(lambda: strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None))
for step in range(1000000):
    total()
    if step == 0:
        print("together", flush=True)
    if step == 100 and os.environ["SM_CURRENT_HOST"] == "algo-2":
        os.kill(os.getpid(), signal.SIGKILL)
`,
        },
        hyperParameters: { sagemaker_multi_worker_mirrored_strategy_enabled: true },
      });
      const job = await finished(service, name, 'Failed', DEADLINE_MS);
      expect(job.FailureReason).toMatch(/algo-2: .*killed by SIGKILL/s);
      expect((await logLines(service, name)).join('\n')).toContain('algo-2: together');
      await until('no process left', () => hostProcesses(service, name).length === 0);
    },
    DEADLINE_MS + 60_000,
  );
});
