import { expect, test } from 'vitest';
import type { Hardware } from './hardware.ts';
import { countGpus, countNeuronCores, fabricOf, missingAccelerator, neuronCoresOf } from './hardware.ts';

test('GPUs are the lines of nvidia-smi that say so', () => {
  expect(
    countGpus('GPU 0: NVIDIA H100 (UUID: GPU-1)\nGPU 1: NVIDIA H100 (UUID: GPU-2)\n  MIG 1g.10gb Device 0\n'),
  ).toBe(2);
  expect(countGpus('No devices were found\n')).toBe(0);
});

test('Neuron cores are summed over devices; anything else is none', () => {
  expect(countNeuronCores('[{"nc_count": 2}, {"nc_count": 2}]')).toBe(4);
  expect(countNeuronCores('')).toBe(0);
  expect(countNeuronCores('{"error": 1}')).toBe(0);
  expect(neuronCoresOf('ml.trn2.48xlarge', 128)).toBe(64);
});

test('the fabric is what the devices’ drivers say', () => {
  expect(fabricOf(['efa', 'mlx5_core'])).toBe('efa');
  expect(fabricOf(['mlx5_core'])).toBe('infiniband');
  expect(fabricOf([])).toBe('tcp');
});

const host: Hardware = { cpuCount: 4, gpuCount: 0, neuronCoreCount: 0, fabric: 'tcp' };

test.each([
  ['ml.p4d.24xlarge', host, /has GPUs but none was found on this host; the job runs on its 4 CPUs/],
  ['ml.g5.xlarge', host, /has GPUs/],
  ['ml.trn1.32xlarge', host, /has Neuron cores/],
  ['ml.p4d.24xlarge', { ...host, gpuCount: 1 }, null],
  ['ml.m5.large', host, null],
  ['ml.c5.xlarge', host, null],
])('a missing accelerator of %s is said', (type, hardware, expected) => {
  const notice = missingAccelerator(type, hardware);
  if (expected === null) expect(notice).toBeNull();
  else expect(notice).toMatch(expected);
});
