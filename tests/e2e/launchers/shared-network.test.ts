import { writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { finished, logLines } from '../../support/jobs.ts';
import { startService, type TestService } from '../../support/service.ts';
import { differenceFromAlone, hasRuntime, IMAGES, launchJob } from './launch-job.ts';

describe('hosts that share the machine’s network', () => {
  let service: TestService;
  beforeAll(async () => {
    service = await startService({ hosts: 2, environment: { TRAINYARD_ISOLATION: 'processes' } });
  });
  afterAll(() => service?.dispose());

  test.skipIf(!hasRuntime('mxnet'))('run MXNet’s parameter servers at ports of the job’s own', async () => {
    const name = await launchJob(service, {
      framework: 'mxnet',
      script: 'mxnet_ps.py',
      hyperParameters: { sagemaker_parameter_server_enabled: true },
    });
    await finished(service, name);
    const script = 'mxnet_ps.py';
    expect(await differenceFromAlone(service, name, { framework: 'mxnet', script })).toBeLessThan(1e-5);
    expect((await logLines(service, name)).join('\n')).not.toContain("'DMLC_PS_ROOT_PORT': '8000'");
  });

  test.skipIf(!hasRuntime('mxnet'))(
    'name a port that is taken, what it is for and who holds it',
    async () => {
      const holder = createServer();
      await new Promise<void>((done) => holder.listen(0, '0.0.0.0', done));
      const { port } = holder.address() as AddressInfo;
      try {
        const name = await launchJob(service, {
          framework: 'mxnet',
          script: 'mxnet_ps.py',
          hyperParameters: { sagemaker_parameter_server_enabled: true, _ps_port: String(port) },
        });
        const { FailureReason } = await finished(service, name, 'Failed');
        expect(FailureReason).toMatch(
          new RegExp(
            `^ClientError: .*Port ${port} of algo-1, on which MXNet's scheduler \\(hyperparameter _ps_port\\) listens, is taken by .+ \\(pid ${process.pid}\\)`,
            's',
          ),
        );
      } finally {
        holder.close();
      }
    },
  );

  test('miss the framework of an image by name, before the script starts', async () => {
    writeFileSync(
      join(service.dataDir, 'config.json'),
      JSON.stringify({ images: [{ pattern: 'tensorflow-training', runtime: 'pytorch' }] }),
    );
    const name = await launchJob(service, {
      framework: 'tensorflow',
      script: { text: 'print("started")\n' },
    });
    const { FailureReason } = await finished(service, name, 'Failed');
    expect(FailureReason).toContain(
      `ClientError: The image ${IMAGES.tensorflow} needs TensorFlow, but the runtime pytorch has none. Make one that has it: trainyard setup --runtime tensorflow`,
    );
    expect((await logLines(service, name)).join('\n')).not.toContain('started');
  });
});
