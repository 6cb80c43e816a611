import { expect, test } from 'vitest';
import type { Fabric } from './fabric.ts';
import { TCP } from './fabric.ts';
import { torchrun } from './launchers/torchrun.ts';
import { giveNotices } from './notices.ts';
import type { AttemptPlan } from './plan.ts';

const HOSTS = ['algo-1', 'algo-2'];

/** What a job of two hosts says in its description. */
async function noticesOf(
  instanceType: string,
  fabric: Fabric,
  { host = 'algo-1', flags = {} as Record<string, boolean>, image = 'pytorch-training:2.13' } = {},
): Promise<string[]> {
  const told: string[] = [];
  const plan = {
    host,
    hosts: HOSTS,
    instanceType,
    image,
    frameworkModule: 'sagemaker_pytorch_container.training:main',
    containerEntrypoint: null,
    containerArguments: null,
    networkInterfaceName: 'eth0',
  } as unknown as AttemptPlan;
  const hardware = { cpuCount: 4, gpuCount: 8, neuronCoreCount: 0, fabric };
  const state = {
    resumed: false,
    notice: (code: string, message: string) => Promise.resolve(told.push(`${code}: ${message}`)),
  };
  await giveNotices(
    { plan, hardware, state: state as never },
    {
      launcher: torchrun,
      cluster: { groupHosts: HOSTS },
      parameters: { framework: flags, program: 'train.py' },
    } as never,
    { launch: { rankHosts: HOSTS } } as never,
    { versions: new Map(), torchVersion: '2.13.0', missing: null } as never,
  );
  return told;
}

test('what EFA asks for stands in the description, each with its reason', async () => {
  const efa = { driver: 'efa', name: 'efa_0', linkLayer: null, isActive: true, pciDevice: '0xefa1' };
  const fabric: Fabric = { ...TCP, kind: 'efa', hasRdma: true, hasVerbs: true, devices: [efa] };
  expect(await noticesOf('ml.p4d.24xlarge', fabric)).toEqual([
    'fabric: Hosts are connected by EFA, 1 device with RDMA. ' +
      'FI_PROVIDER=efa: EFA devices were found on this host: libfabric must use them. ' +
      'FI_EFA_USE_DEVICE_RDMA=1: EFA devices with RDMA were found on this host: they can write into memory of a GPU. ' +
      'RDMAV_FORK_SAFE=1: EFA devices with RDMA were found on this host: data loaders fork while memory is registered.',
  ]);
});

test('the fall-back to TCP is flagged once, by the first host', async () => {
  expect(await noticesOf('ml.p4d.24xlarge', TCP)).toEqual([
    'tcp_fallback: ml.p4d.24xlarge has EFA but this host shows no such device below /sys/class/infiniband. The job goes on over TCP, which is slower.',
  ]);
  expect(await noticesOf('ml.p4d.24xlarge', TCP, { host: 'algo-2' })).toEqual([]);
});

test('a job that has what it asks for is told nothing', async () => {
  expect(
    await noticesOf('ml.g5.xlarge', TCP, { flags: { sagemaker_torch_distributed_enabled: true } }),
  ).toEqual([]);
});

test('an image of another version and an option that starts nothing are', async () => {
  const told = await noticesOf('ml.g5.xlarge', TCP, {
    image: 'pytorch-training:2.3.0',
    flags: { sagemaker_parameter_server_enabled: true, sagemaker_torch_distributed_enabled: true },
  });
  expect(told.map((text) => text.split(':')[0])).toEqual(['framework_version', 'ignored_distribution']);
});
