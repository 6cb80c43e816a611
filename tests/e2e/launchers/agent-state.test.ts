import { afterAll, beforeAll, expect, test } from 'vitest';
import { finished, logLines, unpacked } from '../../support/jobs.ts';
import { startService, type TestService } from '../../support/service.ts';
import { launchJob } from './launch-job.ts';

const canIsolate = process.platform === 'linux' && process.getuid?.() === 0;

let service: TestService;
beforeAll(async () => {
  if (canIsolate)
    service = await startService({ hosts: 1, environment: { TRAINYARD_ISOLATION: 'namespaces' } });
});
afterAll(() => service?.dispose());

test.skipIf(!canIsolate)(
  'a script finds no state of its agent, and one that it plants does not lead the agent astray',
  async () => {
    const name = await launchJob(service, { framework: 'pytorch', script: 'attack_agent.py', instances: 1 });
    const job = await finished(service, name);
    const lines = (await logLines(service, name)).join('\n');
    expect(lines).toContain('state files []');
    expect(lines).toContain('agent again True asked []');
    // What the attempt has done so far was not lost with the agent.
    expect(job.ModelArtifacts.S3ModelArtifacts).toContain(`/out/${name}/output/model.tar.gz`);
    (await unpacked(service, job.ModelArtifacts.S3ModelArtifacts!)).dispose();
  },
);
