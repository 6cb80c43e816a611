import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { finished, logLines } from '../../support/jobs.ts';
import { BUCKET, ROLE, ROOT, RUNTIME_PYTHON, startService, type TestService } from '../../support/service.ts';
import { IMAGES } from './launch-job.ts';

const run = promisify(execFile);
const REQUIREMENTS = ['sagemaker-train==1.27.0', 'sagemaker-core==2.27.0'];
const FOLDER = join(ROOT, '.trainyard/clients/sagemaker-train');
const uv = process.env['TRAINYARD_UV'] ?? join(ROOT, '.trainyard/tools/bin/uv');

/** Folder of the drivers that SDK v3's ModelTrainer uploads; installed without the SDK's dependencies. */
async function driversFolder(): Promise<string> {
  const drivers = join(FOLDER, 'sagemaker/train/container_drivers');
  if (existsSync(drivers)) return drivers;
  await mkdir(join(FOLDER, '..'), { recursive: true });
  await rm(FOLDER, { recursive: true, force: true });
  const options = ['--quiet', '--no-deps', '--python', RUNTIME_PYTHON, '--target', FOLDER];
  await run(uv, ['pip', 'install', ...options, ...REQUIREMENTS]);
  return drivers;
}

/** `sm_train.sh` as ModelTrainer makes it from its templates. */
const TRAIN_SCRIPT = `
import runpy, sys
folder, name, script = sys.argv[1:]
templates = runpy.run_path(folder + '/../templates.py')
install = templates['INSTALL_AUTO_REQUIREMENTS']
driver = templates['EXEUCTE_DISTRIBUTED_DRIVER'].format(driver_name=name, driver_script=script)
text = templates['TRAIN_SCRIPT_TEMPLATE'].format(
    working_dir='cd /opt/ml/input/data/code', install_requirements=install, execute_driver=driver)
print(text.lstrip(), end='')
`;

describe.skipIf(!existsSync(uv))('the drivers of AWS’s SDK v3, unmodified', () => {
  let service: TestService;
  let drivers: string;
  beforeAll(async () => {
    drivers = await driversFolder();
    service = await startService({ hosts: 2 });
  });
  afterAll(() => service?.dispose());

  /** What ModelTrainer sends, as in the captures `v3-torchrun.json` and `v3-mpi.json`. */
  async function train(
    name: string,
    [title, script]: [string, string],
    distributed: Record<string, unknown>,
    code: string,
  ): Promise<string> {
    const put = (key: string, body: string | Uint8Array): Promise<unknown> =>
      service.s3.putObject({ bucket: BUCKET, key: `${name}/input/${key}`, body });
    const { stdout: files } = await run('find', [drivers, '-name', '*.py', '-printf', '%P\\n']);
    for (const file of files.trim().split('\n'))
      await put(`sm_drivers/${file}`, new Uint8Array(await readFile(join(drivers, file))));
    // ModelTrainer takes this one from another of its packages.
    const installer = join(FOLDER, 'sagemaker/core/utils/install_requirements.py');
    await put('sm_drivers/scripts/install_requirements.py', new Uint8Array(await readFile(installer)));
    const { stdout } = await run(RUNTIME_PYTHON, ['-c', TRAIN_SCRIPT, drivers, title, script]);
    await put('sm_drivers/sm_train.sh', stdout);
    await put('sm_drivers/distributed.json', JSON.stringify(distributed));
    await put(
      'sm_drivers/sourcecode.json',
      JSON.stringify({
        source_dir: 'x',
        requirements: 'auto',
        entry_script: 'train.py',
        command: null,
        args: null,
      }),
    );
    await put('code/train.py', code);
    // Installed already: pip must find that out without writing to the runtime.
    await put('code/requirements.txt', 'numpy\n');
    const channel = (ChannelName: string) => ({
      ChannelName,
      DataSource: {
        S3DataSource: {
          S3DataType: 'S3Prefix' as const,
          S3Uri: `s3://${BUCKET}/${name}/input/${ChannelName}`,
          S3DataDistributionType: 'FullyReplicated' as const,
        },
      },
      InputMode: 'File' as const,
    });
    await service.aws.sagemaker.call('CreateTrainingJob', {
      TrainingJobName: name,
      RoleArn: ROLE,
      HyperParameters: { epochs: '3', flag: 'true' },
      AlgorithmSpecification: {
        TrainingImage: IMAGES.pytorch,
        TrainingInputMode: 'File',
        ContainerEntrypoint: ['/bin/bash'],
        ContainerArguments: [
          '-c',
          'chmod +x /opt/ml/input/data/sm_drivers/sm_train.sh && /opt/ml/input/data/sm_drivers/sm_train.sh',
        ],
      },
      InputDataConfig: [channel('code'), channel('sm_drivers')],
      OutputDataConfig: { S3OutputPath: `s3://${BUCKET}/out`, CompressionType: 'GZIP' },
      ResourceConfig: { InstanceType: 'ml.m5.xlarge', InstanceCount: 2, VolumeSizeInGB: 30 },
      StoppingCondition: { MaxRuntimeInSeconds: 3600 },
    });
    await finished(service, name, 'Completed', 150_000);
    return (await logLines(service, name)).join('\n');
  }

  test('torchrun starts two ranks on each host', async () => {
    const lines = await train(
      'drivers-torchrun',
      ['Torchrun', 'torchrun_driver.py'],
      { process_count_per_node: 2, smp: null },
      `import sys, torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor(dist.get_rank() + 1)
dist.all_reduce(total)
print("rank", dist.get_rank(), "sum", total.item(), sys.argv[1:], flush=True)
dist.destroy_process_group()
`,
    );
    for (const rank of [0, 1, 2, 3])
      expect(lines).toContain(`rank ${rank} sum 10 ['--epochs', '3', '--flag', 'true']`);
    expect(lines).toContain('Requirement already satisfied: numpy');
  });

  // The driver asks for as many ranks as one host should have: the second host stays empty, on AWS too.
  test('mpirun is started on the first host, and the second waits for it', async () => {
    const lines = await train(
      'drivers-mpi',
      ['MPI', 'mpi_driver.py'],
      { process_count_per_node: 2, mpi_additional_options: ['--map-by', 'node'] },
      `import os
from mpi4py import MPI
world = MPI.COMM_WORLD
print("rank", world.rank, "of", world.size, "on", os.uname().nodename, "sum", world.allreduce(world.rank + 1), flush=True)
`,
    );
    expect(lines).toContain('rank 0 of 2 on algo-1 sum 3');
    expect(lines).toContain('rank 1 of 2 on algo-2 sum 3');
    expect(lines).toMatch(/algo-2: .*Found status file \/tmp\/done\.algo-1/);
  });
});
