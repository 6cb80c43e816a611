import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Hardware } from './hardware.ts';
import { TCP } from './fabric.ts';
import { countGpus, countNeuronCores, missingAccelerator, neuronCoresOf, probeHardware } from './hardware.ts';

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

const host: Hardware = { cpuCount: 4, gpuCount: 0, neuronCoreCount: 0, fabric: TCP };

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

test('cores of Neuron devices are counted where neuron-ls is not installed', async () => {
  const root = mkdtempSync(join(tmpdir(), 'trainyard-sys-'));
  try {
    for (const name of ['neuron0', 'neuron1']) {
      const folder = join(root, 'sys/devices/virtual/neuron_device', name);
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, 'core_count'), '2\n');
    }
    expect((await probeHardware(root)).neuronCoreCount).toBe(4);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test('a job may have the physical cores of Trainium 2', () => {
  expect(neuronCoresOf('ml.trn2.48xlarge', 64, { NEURON_LOGICAL_NC_CONFIG: '1' })).toBe(128);
});
