import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename, join } from 'node:path';

/** A network device that libraries can use without the kernel's TCP. */
export interface FabricDevice {
  name: string;
  /** `efa`, `mlx5_core`… */
  driver: string;
  /** Of its first port; null where the device does not say. */
  linkLayer: 'InfiniBand' | 'Ethernet' | null;
  isActive: boolean;
  /** PCI number, `0xefa1`; null where the device has none. */
  pciDevice: string | null;
}

/** What connects ranks, found by looking at devices; lists of instance types are always out of date. */
export interface Fabric {
  kind: 'efa' | 'infiniband' | 'tcp';
  /** EFA that reads and writes memory of other hosts, so of GPUs too. */
  hasRdma: boolean;
  /** All that were found, also those that cannot be used. */
  devices: FabricDevice[];
  /** Whether programs can open them: `/dev/infiniband/uverbs*`. */
  hasVerbs: boolean;
  /** Active links between the GPUs of this host. */
  nvlinkCount: number;
  /** Of network interfaces, in Mbit/s, as far as they say. */
  speeds: Readonly<Record<string, number>>;
}

export const TCP: Fabric = {
  kind: 'tcp',
  hasRdma: false,
  devices: [],
  hasVerbs: false,
  nvlinkCount: 0,
  speeds: {},
};

/** @param root where `/sys` and `/dev` are, for tests */
export async function probeFabric(root = '/', nvlinkStatus = ''): Promise<Fabric> {
  const folder = join(root, 'sys/class/infiniband');
  const [devices, verbs, speeds] = await Promise.all([
    names(folder).then((found) => Promise.all(found.map((name) => readDevice(join(folder, name))))),
    names(join(root, 'dev/infiniband')),
    readSpeeds(join(root, 'sys/class/net')),
  ]);
  const hasVerbs = verbs.some((name) => name.startsWith('uverbs'));
  const usable = hasVerbs ? devices.filter(({ isActive }) => isActive) : [];
  return { ...kindOf(usable), devices, hasVerbs, speeds, nvlinkCount: countNvlinks(nvlinkStatus) };
}

function kindOf(usable: readonly FabricDevice[]): Pick<Fabric, 'kind' | 'hasRdma'> {
  const efa = usable.filter(({ driver }) => driver === 'efa');
  if (efa.length > 0) return { kind: 'efa', hasRdma: efa.every(hasRdma) };
  // RDMA over Ethernet needs a network set up for it, and many virtual machines show such a device without.
  const isInfiniBand = usable.some(({ linkLayer }) => linkLayer === 'InfiniBand');
  return { kind: isInfiniBand ? 'infiniband' : 'tcp', hasRdma: false };
}

/** The first generation of EFA (g4dn, p3dn, c5n) cannot, and libfabric aborts when it is asked to. */
const hasRdma = ({ pciDevice }: FabricDevice): boolean => pciDevice !== null && pciDevice !== '0xefa0';

async function readDevice(path: string): Promise<FabricDevice> {
  const [driver, pciDevice, layer, state] = await Promise.all([
    readlink(join(path, 'device/driver')).catch(() => ''),
    text(join(path, 'device/device')),
    text(join(path, 'ports/1/link_layer')),
    text(join(path, 'ports/1/state')),
  ]);
  return {
    name: basename(path),
    driver: basename(driver),
    linkLayer: layer === 'InfiniBand' || layer === 'Ethernet' ? layer : null,
    // `4: ACTIVE`; what does not say counts as active.
    isActive: state === '' || state.endsWith('ACTIVE'),
    pciDevice: pciDevice === '' ? null : pciDevice,
  };
}

/** Lines such as `	 Link 0: 26.562 GB/s` of `nvidia-smi nvlink --status`. */
export const countNvlinks = (status: string): number =>
  status.match(/^\s*Link \d+: [\d.]+ GB\/s/gm)?.length ?? 0;

async function readSpeeds(folder: string): Promise<Record<string, number>> {
  const found = await Promise.all(
    (await names(folder)).map(
      async (name) => [name, Number.parseInt(await text(join(folder, name, 'speed')), 10)] as const,
    ),
  );
  // -1 where the other end is unknown.
  return Object.fromEntries(found.filter(([, speed]) => speed > 0));
}

const names = (folder: string): Promise<string[]> => readdir(folder).catch(() => []);
const text = (path: string): Promise<string> =>
  readFile(path, 'utf8').then(
    (content) => content.trim(),
    () => '',
  );

/** Variables that the fabric asks for, each with its reason. Launchers add others of their own. */
export function fabricVariables({
  kind,
  hasRdma: rdma,
}: Pick<Fabric, 'kind' | 'hasRdma'>): Record<string, string> {
  if (kind !== 'efa') return {};
  return {
    FI_PROVIDER: 'efa',
    ...(rdma ? { FI_EFA_USE_DEVICE_RDMA: '1', RDMAV_FORK_SAFE: '1' } : {}),
  };
}

/** One sentence on what connects the ranks of a job. */
export function fabricReport(fabric: Fabric, networkInterface: string): string {
  const { kind, devices, nvlinkCount, speeds } = fabric;
  const count = (driver: (device: FabricDevice) => boolean, word: string): string => {
    const found = devices.filter(driver).length;
    return `${found} ${word}${found === 1 ? '' : 's'}`;
  };
  const speed = speeds[networkInterface];
  const between = {
    efa: `EFA, ${count(({ driver }) => driver === 'efa', 'device')}${fabric.hasRdma ? ' with RDMA' : ''}`,
    infiniband: `InfiniBand, ${count(({ linkLayer }) => linkLayer === 'InfiniBand', 'device')}`,
    tcp: `TCP over ${networkInterface}${speed ? ` (${speed >= 1000 ? `${speed / 1000} Gbit/s` : `${speed} Mbit/s`})` : ''}`,
  }[kind];
  const within = nvlinkCount > 0 ? `; within the host ${nvlinkCount} NVLinks` : '';
  return `Hosts are connected by ${between}${within}`;
}

/** Types that have EFA on AWS; what the job may count on when it names one. */
const PROMISES_EFA =
  /^ml\.(?:p3dn|p4de?|p5e?n?|p6|trn1\.32x|trn1n|trn2|g4dn\.(?:8|12|16)x|g5\.(?:8|12|16|24|48)x|g6e?\.(?:8|12|16|24|48)x|g7e\.(?:8|12|24|48)x|c5n\.(?:9|18)x|[cm]6i\.32x|[cmr]7i\.48x)/;

/** Sentence for the job's description when hosts talk over TCP though something faster was promised or is there. */
export function tcpFallback(instanceType: string, fabric: Fabric): string | null {
  if (fabric.kind !== 'tcp') return null;
  const advice = 'The job goes on over TCP, which is slower.';
  if (fabric.devices.length > 0) {
    const list = fabric.devices.map(({ name, driver }) => `${name} (${driver})`).join(', ');
    return `The devices ${list} cannot be used: ${whyUnused(fabric)}. ${advice}`;
  }
  if (!PROMISES_EFA.test(instanceType)) return null;
  return `${instanceType} has EFA but this host shows no such device below /sys/class/infiniband. ${advice}`;
}

function whyUnused({ devices, hasVerbs }: Fabric): string {
  if (!hasVerbs) return 'programs in this host see no /dev/infiniband/uverbs*';
  if (devices.every(({ isActive }) => !isActive)) return 'no port is active';
  return 'RDMA over Ethernet is only taken when the job sets NCCL_IB_DISABLE=0';
}
