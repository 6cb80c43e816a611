import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, readlink } from 'node:fs/promises';
import { cpus } from 'node:os';
import { basename, join } from 'node:path';

/** What connects the hosts, found by looking at devices; lists of instance types are always out of date. */
export type Fabric = 'efa' | 'infiniband' | 'tcp';

export interface Hardware {
  cpuCount: number;
  gpuCount: number;
  neuronCoreCount: number;
  fabric: Fabric;
}

const TOOL_TIMEOUT_MS = 15_000;

export async function probeHardware(): Promise<Hardware> {
  const [gpus, neurons, fabric] = await Promise.all([
    output('nvidia-smi', ['--list-gpus']),
    output('neuron-ls', ['-j']),
    probeFabric(),
  ]);
  return {
    cpuCount: cpus().length,
    gpuCount: countGpus(gpus),
    neuronCoreCount: countNeuronCores(neurons),
    fabric,
  };
}

/** Lines such as `GPU 0: NVIDIA A100 (UUID: …)`. */
export const countGpus = (listing: string): number => listing.match(/^GPU /gm)?.length ?? 0;

/** Sum of `nc_count` over the devices of `neuron-ls -j`; 0 for anything else. */
export function countNeuronCores(listing: string): number {
  try {
    const devices = JSON.parse(listing) as { nc_count?: number }[];
    return devices.reduce((sum, device) => sum + (device.nc_count ?? 0), 0);
  } catch {
    return 0;
  }
}

/** AWS's toolkit counts 64 cores on trn2.48xlarge whatever the tool says. */
export const neuronCoresOf = (instanceType: string, found: number): number =>
  instanceType.includes('trn2.48xlarge') ? 64 : found;

const INFINIBAND = '/sys/class/infiniband';

async function probeFabric(): Promise<Fabric> {
  const devices = await readdir(INFINIBAND).catch(() => []);
  const drivers = await Promise.all(
    devices.map((device) => readlink(`${INFINIBAND}/${device}/device/driver`).catch(() => '')),
  );
  return fabricOf(drivers.map((driver) => basename(driver)));
}

export function fabricOf(drivers: readonly string[]): Fabric {
  if (drivers.includes('efa')) return 'efa';
  return drivers.length > 0 ? 'infiniband' : 'tcp';
}

/** Empty when the tool is absent or fails: then there is no such device. */
function output(program: string, args: string[]): Promise<string> {
  // Looking is much cheaper than a process that cannot be started.
  const folders = (process.env.PATH ?? '').split(':');
  if (!folders.some((folder) => existsSync(join(folder, program)))) return Promise.resolve('');
  return new Promise((resolve) => {
    execFile(program, args, { timeout: TOOL_TIMEOUT_MS }, (error, stdout) => resolve(error ? '' : stdout));
  });
}

/** Types whose name promises an accelerator: g, p, gr families have GPUs, trn and inf have Neuron cores. */
const ACCELERATED = /^ml\.(?:(?<gpu>g\d|gr\d|p\d)|(?<neuron>trn\d|inf\d))/;

/** Sentence for the job's description when the type promises what this host lacks; null when all is well. */
export function missingAccelerator(instanceType: string, hardware: Hardware): string | null {
  const promised = ACCELERATED.exec(instanceType)?.groups;
  if (promised?.gpu && hardware.gpuCount === 0) {
    return `${instanceType} has GPUs but none was found on this host; the job runs on its ${hardware.cpuCount} CPUs.`;
  }
  if (promised?.neuron && hardware.neuronCoreCount === 0) {
    return `${instanceType} has Neuron cores but none was found on this host; the job runs on its ${hardware.cpuCount} CPUs.`;
  }
  return null;
}
