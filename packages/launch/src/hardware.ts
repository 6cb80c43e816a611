import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import type { Fabric } from './fabric.ts';
import { probeFabric } from './fabric.ts';

export interface Hardware {
  cpuCount: number;
  gpuCount: number;
  neuronCoreCount: number;
  fabric: Fabric;
}

const TOOL_TIMEOUT_MS = 15_000;

/** @param root where `/sys` and `/dev` are, for tests */
export async function probeHardware(root = '/'): Promise<Hardware> {
  const [gpus, neurons, cores] = await Promise.all([
    output('nvidia-smi', ['--list-gpus']),
    output('neuron-ls', ['-j']),
    coresOfDevices(root),
  ]);
  const gpuCount = countGpus(gpus);
  // One GPU has no other to be linked to.
  const links = gpuCount > 1 ? await output('nvidia-smi', ['nvlink', '--status']) : '';
  return {
    cpuCount: cpus().length,
    gpuCount,
    neuronCoreCount: countNeuronCores(neurons) || cores,
    fabric: await probeFabric(root, links),
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

/**
 * AWS's toolkit counts 64 cores on trn2.48xlarge whatever the tool says: logical ones, each of two. A job that sets
 * NEURON_LOGICAL_NC_CONFIG to 1 has all 128.
 */
export function neuronCoresOf(
  instanceType: string,
  found: number,
  environment: Readonly<Record<string, string>> = {},
): number {
  if (!instanceType.includes('trn2.48xlarge')) return found;
  return environment.NEURON_LOGICAL_NC_CONFIG === '1' ? 128 : 64;
}

/** Of drivers that come without `neuron-ls`: each device says how many cores it has. */
async function coresOfDevices(root: string): Promise<number> {
  const folder = join(root, 'sys/devices/virtual/neuron_device');
  const devices = await readdir(folder).catch(() => []);
  const counts = await Promise.all(
    devices.map((device) => readFile(join(folder, device, 'core_count'), 'utf8').catch(() => '0')),
  );
  return counts.reduce((sum, text) => sum + (Number.parseInt(text, 10) || 0), 0);
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
