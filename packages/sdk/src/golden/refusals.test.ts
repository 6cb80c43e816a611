import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { InvalidOption, PyTorch, Session } from '../index.ts';
import type { Problem, PyTorchOptions } from '../index.ts';

const role = 'arn:aws:iam::123456789012:role/x';
const on2 = (instanceType: string, frameworkVersion: string, pyVersion: string) => ({
  entryPoint: 'train.py',
  role,
  instanceCount: 2,
  instanceType,
  frameworkVersion,
  pyVersion,
});
const torchDistributed = { torch_distributed: { enabled: true } };
const pytorchddp = { pytorchddp: { enabled: true } };

/** One row per call that SageMaker's Python SDK refuses: the same call, and whether the rule holds on AWS only. */
const cases: Record<string, { options: PyTorchOptions; id: string; onlyAws: boolean }> = {
  'v2-pytorch-pytorchxla': {
    options: {
      ...on2('ml.p3.16xlarge', '1.13.1', 'py39'),
      distribution: { pytorchxla: { enabled: true } } as object,
    },
    id: 'E-XLA',
    onlyAws: false,
  },
  'v2-pytorch-cpu-torch_distributed': {
    options: { ...on2('ml.c5.xlarge', '2.3.0', 'py311'), distribution: torchDistributed },
    id: 'E-TORCHRUN',
    onlyAws: true,
  },
  'v2-local-torch_distributed': {
    options: { ...on2('local_gpu', '2.3.0', 'py311'), distribution: torchDistributed },
    id: 'E-LOCALGPU-MULTI',
    onlyAws: false,
  },
  'v2-error-pytorchddp-2.3.0': {
    options: { ...on2('ml.p4d.24xlarge', '2.3.0', 'py311'), distribution: pytorchddp },
    id: 'E-SMDDP',
    onlyAws: true,
  },
  'v2-error-pytorchddp-p5': {
    options: { ...on2('ml.p5.48xlarge', '2.0.1', 'py310'), distribution: pytorchddp },
    id: 'E-P5',
    onlyAws: true,
  },
  'v2-error-smddp-two-strategies': {
    options: {
      ...on2('ml.p4d.24xlarge', '2.0.1', 'py310'),
      distribution: {
        smdistributed: { dataparallel: { enabled: true }, modelparallel: { enabled: true } },
      } as object,
    },
    id: 'E-SMD-MULTI',
    onlyAws: false,
  },
  'v2-error-trn1-mpi': {
    options: {
      ...on2('ml.trn1.32xlarge', '1.13.1', 'py39'),
      imageUri: 'example/pytorch-training-neuronx:1.13.1',
      distribution: { mpi: { enabled: true } },
    },
    id: 'E-TRN-STRATEGY',
    onlyAws: true,
  },
  'v2-error-trn1-no-framework-version-2.3.0': {
    options: { ...on2('ml.trn1.32xlarge', '2.3.0', 'py310'), distribution: torchDistributed },
    id: 'E-TORCHRUN',
    onlyAws: false,
  },
  'v2-error-torch_distributed-sh-entry': {
    options: {
      ...on2('ml.p4d.24xlarge', '2.3.0', 'py311'),
      entryPoint: 'train.sh',
      distribution: torchDistributed,
    },
    id: 'E-TORCHRUN',
    onlyAws: false,
  },
  'v2-error-mp-bad-pipeline': {
    options: {
      ...on2('ml.p4d.24xlarge', '1.13.1', 'py39'),
      distribution: {
        smdistributed: { modelparallel: { enabled: true, parameters: { partitions: 2, pipeline: 'zzz' } } },
        mpi: { enabled: true, processes_per_host: 8 },
      } as object,
    },
    id: 'E-MP-VALUE',
    onlyAws: false,
  },
};

const captured = JSON.parse(readFileSync(join(import.meta.dirname, 'refusals.json'), 'utf8')) as {
  name: string;
}[];

function refusalOf(options: PyTorchOptions): InvalidOption {
  try {
    new PyTorch(options);
  } catch (error) {
    if (error instanceof InvalidOption) return error;
    throw error;
  }
  throw new Error('was not refused');
}

test.each(captured.map(({ name }) => name))(
  '%s of golden/refusals.json is refused in strict mode and on AWS',
  (name) => {
    const row = cases[name];
    if (!row) throw new Error(`golden/refusals.json has ${name}, this test does not`);
    for (const mode of [{ strict: true }, { session: new Session({ on: 'aws' }) }]) {
      const error = refusalOf({ ...row.options, ...mode });
      expect(error.problems.map((problem) => problem.id)).toContain(row.id);
      for (const problem of error.problems) {
        expect(error.message).toContain(problem.field);
        expect(problem.rule).not.toBe('');
        expect(problem.nextStep).not.toBe('');
      }
    }
  },
);

test(`${Object.keys(cases).length} of ${captured.length} refusals of golden/refusals.json are compared`, () => {
  expect(Object.keys(cases).sort()).toEqual(captured.map(({ name }) => name).sort());
});

const awsOnly = Object.entries(cases).filter(([, row]) => row.onlyAws);

test.each(awsOnly)('%s only warns where the hardware of AWS does not matter', (_name, row) => {
  const warnings: Problem[] = [];
  new PyTorch({ ...row.options, session: new Session({ onWarning: (warning) => warnings.push(warning) }) });
  expect(warnings.map((warning) => warning.id)).toContain(row.id);
});
