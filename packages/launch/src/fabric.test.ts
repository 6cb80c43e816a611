import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { countNvlinks, fabricReport, fabricVariables, probeFabric, TCP, tcpFallback } from './fabric.ts';

const roots: string[] = [];
afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true });
});

interface Shown {
  driver: string;
  pci?: string;
  layer?: string;
  state?: string;
}

/** A machine that shows these devices. */
function machine(devices: Record<string, Shown>, { verbs = true } = {}): string {
  const root = mkdtempSync(join(tmpdir(), 'trainyard-fabric-'));
  roots.push(root);
  const put = (path: string, content: string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  };
  for (const [name, { driver, pci, layer, state }] of Object.entries(devices)) {
    const folder = `sys/class/infiniband/${name}`;
    if (pci) put(`${folder}/device/device`, `${pci}\n`);
    if (layer) put(`${folder}/ports/1/link_layer`, `${layer}\n`);
    if (state) put(`${folder}/ports/1/state`, `${state}\n`);
    mkdirSync(join(root, folder, 'device'), { recursive: true });
    symlinkSync(`../../../bus/pci/drivers/${driver}`, join(root, folder, 'device/driver'));
  }
  if (verbs) put('dev/infiniband/uverbs0', '');
  put('sys/class/net/eth0/speed', '10000\n');
  put('sys/class/net/lo/speed', '-1\n');
  return root;
}

const IB: Shown = { driver: 'mlx5_core', layer: 'InfiniBand', state: '4: ACTIVE' };

test('EFA with RDMA gets all variables of AWS’s images, the first generation only the provider', async () => {
  const second = await probeFabric(
    machine({ efa_0: { driver: 'efa', pci: '0xefa1' }, efa_1: { driver: 'efa', pci: '0xefa1' } }),
  );
  expect(fabricVariables(second)).toEqual({
    FI_PROVIDER: 'efa',
    FI_EFA_USE_DEVICE_RDMA: '1',
    RDMAV_FORK_SAFE: '1',
  });
  expect(fabricReport(second, 'eth0')).toBe('Hosts are connected by EFA, 2 devices with RDMA');
  const first = await probeFabric(machine({ efa_0: { driver: 'efa', pci: '0xefa0' } }));
  expect(fabricVariables(first)).toEqual({ FI_PROVIDER: 'efa' });
});

test('InfiniBand is taken as it is', async () => {
  const fabric = await probeFabric(machine({ mlx5_0: IB }), ' Link 0: 26.562 GB/s\n\t Link 1: 26.562 GB/s\n');
  expect(fabric).toMatchObject({ kind: 'infiniband', nvlinkCount: 2 });
  expect(fabricVariables(fabric)).toEqual({});
  expect(fabricReport(fabric, 'eth0')).toBe(
    'Hosts are connected by InfiniBand, 1 device; within the host 2 NVLinks',
  );
});

test('nothing found is TCP, without a word where nothing else was promised', async () => {
  const fabric = await probeFabric(machine({}, { verbs: false }));
  expect(fabricReport(fabric, 'eth0')).toBe('Hosts are connected by TCP over eth0 (10 Gbit/s)');
  expect(fabricReport(fabric, 'lo')).toBe('Hosts are connected by TCP over lo');
  for (const type of ['ml.m5.large', 'ml.trn1.2xlarge', 'ml.g5.xlarge', 'ml.p3.16xlarge'])
    expect(tcpFallback(type, fabric)).toBeNull();
});

test.each(['ml.p4d.24xlarge', 'ml.p5en.48xlarge', 'ml.trn1.32xlarge', 'ml.g5.48xlarge', 'ml.c5n.18xlarge'])(
  '%s without EFA falls back to TCP and says so',
  (type) => {
    expect(tcpFallback(type, TCP)).toMatch(new RegExp(`^${type} has EFA but this host shows no such device`));
  },
);

test.each([
  ['a closed port', { mlx5_0: { ...IB, state: '1: DOWN' } }, true, 'no port is active'],
  [
    'hidden verbs',
    { efa_0: { driver: 'efa', pci: '0xefa1' } },
    false,
    'programs in this host see no /dev/infiniband/uverbs*',
  ],
  ['Ethernet', { mlx5_0: { ...IB, layer: 'Ethernet' } }, true, 'RDMA over Ethernet is only taken when'],
])('devices behind %s are named with the reason why they are not used', async (_, devices, verbs, reason) => {
  const fabric = await probeFabric(machine(devices, { verbs }));
  expect(fabric.kind).toBe('tcp');
  expect(tcpFallback('ml.m5.large', fabric)).toContain(reason);
});

test('inactive NVLinks do not count', () => {
  expect(countNvlinks('GPU 0: NVIDIA H100\n\t Link 0: <inactive>\n\t Link 1: 26.562 GB/s\n')).toBe(1);
});
