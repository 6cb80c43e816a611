import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createJob, finished, logged, logLines, unpacked } from '../support/jobs.ts';
import { startService, type TestService } from '../support/service.ts';

let service: TestService;
beforeAll(async () => {
  service = await startService({ hosts: 2 });
});
afterAll(() => service.dispose());

/** Two hosts with two ranks each, whose script is given here. */
const job = (distribution: 'mpi' | 'pytorchddp' | 'torch_distributed', text: string): Promise<string> =>
  createJob(service, { script: 'fail_rank.py', distribution, processes: 2, files: { 'fail_rank.py': text } });

describe('mpirun over two hosts', () => {
  test('names the rank that raised, and the host where it ran, which is not the one that logged it', async () => {
    const name = await job(
      'mpi',
      `import os, socket, time
rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
print("here", rank, os.uname().nodename, flush=True)
def step():
    raise ValueError("bad batch of rank 3")
if rank == 3:
    # When all have printed and mpirun has had the time to read it.
    with socket.create_server(("algo-2", 5555)) as server:
        others = [server.accept() for _ in range(3)]
    time.sleep(0.5)
    step()
while True:
    try:
        link = socket.create_connection(("algo-2", 5555))
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
time.sleep(600)
`,
    );
    const { FailureReason } = await finished(service, name, 'Failed');
    expect(FailureReason).toContain(
      'ErrorMessage "algo-2 rank 3: ValueError: bad batch of rank 3 (fail_rank.py:5); exit code 1',
    );
    const lines = await logLines(service, name);
    expect(lines).toContain('algo-1: [1,mpirank:2,algo-2]<stdout>:here 2 algo-2');
    expect(lines).toContain('algo-1: [1,mpirank:1,algo-1]<stdout>:here 1 algo-1');
  });

  test('names a rank that was killed', async () => {
    const name = await job(
      'mpi',
      'import os, time\nif os.environ["OMPI_COMM_WORLD_RANK"] == "2":\n    os.kill(os.getpid(), 9)\ntime.sleep(600)\n',
    );
    const { FailureReason } = await finished(service, name, 'Failed');
    expect(FailureReason).toMatch(/algo-2 rank 2: .*killed by SIGKILL/s);
  });
});

test.each(['pytorchddp', 'torch_distributed'] as const)(
  'a stop under %s gives every rank one SIGTERM and the time to save',
  async (distribution) => {
    const name = await job(
      distribution,
      `import os, signal, sys, time
rank = os.environ["RANK"]
times = []
def save(*_):
    times.append(time.time())
    if len(times) > 1:
        return
    time.sleep(4)
    open(os.environ["SM_MODEL_DIR"] + "/rank-" + rank, "w").write(str(len(times)))
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("waiting", rank, flush=True)
while True:
    time.sleep(1)
`,
    );
    for (const rank of [0, 1, 2, 3]) await logged(service, name, new RegExp(`waiting ${rank}`));
    await service.aws.sagemaker.call('StopTrainingJob', { TrainingJobName: name });
    const { ModelArtifacts } = await finished(service, name, 'Stopped');
    const model = await unpacked(service, ModelArtifacts.S3ModelArtifacts!);
    const saved = [0, 1, 2, 3].map((rank) => readFileSync(join(model.directory, `rank-${rank}`), 'utf8'));
    model.dispose();
    expect(saved).toEqual(['1', '1', '1', '1']);
  },
);
