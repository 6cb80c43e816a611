import { expectTypeOf, test } from 'vitest';
import {
  Estimator,
  FileSystemInput,
  HuggingFace,
  ModelTrainer,
  MXNet,
  PyTorch,
  SMP,
  TensorFlow,
  Torchrun,
  TrainingInput,
} from './index.ts';
import type {
  DescribeTrainingJobResponse,
  Inputs,
  ModelParallelParameters,
  TorchDistributed,
  TrainingJob,
  TrainingJobEvent,
} from './index.ts';

test('an estimator needs what its class cannot do without', () => {
  // @ts-expect-error imageUri is required
  new Estimator({});
  // @ts-expect-error entryPoint is required
  new PyTorch({});
  // @ts-expect-error a misspelt option is an error
  new PyTorch({ entryPoint: 'train.py', instanceCounts: 2 });
});

test('distribution takes the strategies of PyTorch with their options', () => {
  new PyTorch({ entryPoint: 'train.py', distribution: { mpi: { enabled: true, processes_per_host: 2 } } });
  new PyTorch({
    entryPoint: 'train.py',
    distribution: { pytorchddp: { enabled: true, customMpiOptions: '-x A' } },
  });
  // @ts-expect-error enabled is required
  new PyTorch({ entryPoint: 'train.py', distribution: { torch_distributed: {} } });
  const torchrun = { enabled: true, custom_mpi_options: '' };
  // @ts-expect-error torchrun takes no MPI options
  expectTypeOf(torchrun).toEqualTypeOf<TorchDistributed>();
});

const on = { enabled: true };
const entryPoint = 'train.py';
const g1 = { instanceGroupName: 'g1', instanceType: 'ml.p4d.24xlarge', instanceCount: 2 };
const instanceGroups = [g1, { ...g1, instanceGroupName: 'g2' }];

test('one of the libraries excludes the other, and pytorchddp both', () => {
  new PyTorch({ entryPoint, distribution: { smdistributed: { dataparallel: on } } });
  new PyTorch({
    entryPoint,
    distribution: {
      mpi: on,
      smdistributed: { modelparallel: { ...on, parameters: { partitions: 2, fp16: true } } },
    },
  });
  new PyTorch({
    entryPoint,
    distribution: {
      torch_distributed: on,
      smdistributed: { modelparallel: { ...on, parameters: 'smp.json' } },
    },
  });
  // @ts-expect-error E-SMD-MULTI
  new PyTorch({ entryPoint, distribution: { smdistributed: { dataparallel: on, modelparallel: on } } });
  // @ts-expect-error E-SMD-UNKNOWN
  new PyTorch({ entryPoint, distribution: { smdistributed: { data_parallel: on } } });
  // @ts-expect-error E-SMD-TYPE
  new PyTorch({ entryPoint, distribution: { smdistributed: true } });
  // @ts-expect-error E-DDP-SMD
  new PyTorch({ entryPoint, distribution: { pytorchddp: on, smdistributed: { dataparallel: on } } });
  const pipeline = 'zzz';
  // @ts-expect-error E-MP-VALUE
  expectTypeOf({ pipeline } as const).toExtend<ModelParallelParameters>();
});

test('strategies of another framework are errors', () => {
  new TensorFlow({
    entryPoint,
    modelDir: false,
    distribution: { multi_worker_mirrored_strategy: on, mpi: on },
  });
  new TensorFlow({ entryPoint, distribution: { parameter_server: on } });
  new MXNet({ entryPoint, distribution: { parameter_server: on } });
  // @ts-expect-error E-MWMS-FW
  new PyTorch({ entryPoint, distribution: { multi_worker_mirrored_strategy: on } });
  // @ts-expect-error E-MWMS-MIX
  new TensorFlow({ entryPoint, distribution: { multi_worker_mirrored_strategy: on, parameter_server: on } });
  const dataparallel = { multi_worker_mirrored_strategy: on, smdistributed: { dataparallel: on } };
  // @ts-expect-error E-MWMS-MIX
  new TensorFlow({ entryPoint, distribution: dataparallel });
  // @ts-expect-error TensorFlow has no torchrun
  new TensorFlow({ entryPoint, distribution: { torch_distributed: on } });
  // @ts-expect-error MXNet has none of AWS's libraries
  new MXNet({ entryPoint, distribution: { smdistributed: { dataparallel: on } } });
});

test('pytorchxla needs the Training Compiler, which excludes the libraries', () => {
  new PyTorch({ entryPoint, compilerConfig: {}, distribution: { pytorchxla: on } });
  // @ts-expect-error E-XLA
  new PyTorch({ entryPoint, distribution: { pytorchxla: on } });
  // @ts-expect-error E-COMPILER
  new PyTorch({ entryPoint, compilerConfig: {}, distribution: { smdistributed: { dataparallel: on } } });
});

test('groups exclude a type and a number of hosts, and a distribution names at most one of them', () => {
  new PyTorch({ entryPoint, instanceGroups, distribution: { mpi: on, instance_groups: [g1] } });
  new PyTorch({ entryPoint, instanceGroups, distribution: { mpi: on, instance_groups: ['g1'] } });
  new Estimator({ imageUri: 'i', instanceGroups });
  // @ts-expect-error E-GROUPS
  new PyTorch({ entryPoint, instanceGroups, instanceCount: 2 });
  // @ts-expect-error E-GROUPS
  new Estimator({ imageUri: 'i', instanceGroups, instanceType: 'ml.m5.xlarge' });
  // @ts-expect-error E-IG-NONE
  new PyTorch({ entryPoint, distribution: { mpi: on, instance_groups: [g1] } });
  // @ts-expect-error E-IG-ONE, E-IG-OVER
  new PyTorch({ entryPoint, instanceGroups, distribution: { mpi: on, instance_groups: ['g1', 'g2'] } });
});

test('a Hugging Face image has one framework below', () => {
  new HuggingFace({ entryPoint, transformersVersion: '4.56.2', pytorchVersion: '2.8.0' });
  new HuggingFace({ entryPoint, transformersVersion: '4.17.0', tensorflowVersion: '2.6.3' });
  // @ts-expect-error E-HF-VER
  new HuggingFace({
    entryPoint,
    transformersVersion: '4.17.0',
    tensorflowVersion: '2.6.3',
    pytorchVersion: '1.10.2',
  });
});

test('hyperparameters are what JSON can hold', () => {
  new PyTorch({ entryPoint: 'train.py', hyperparameters: { a: 1, b: 'x', c: [1, null], d: { e: true } } });
  // @ts-expect-error a Date is not a hyperparameter
  new PyTorch({ entryPoint: 'train.py', hyperparameters: { when: new Date() } });
});

test('inputs are strings, input objects or channels of them', () => {
  const estimator = new PyTorch({ entryPoint: 'train.py' });
  expectTypeOf<PyTorch['fit']>().returns.resolves.toEqualTypeOf<TrainingJob>();
  expectTypeOf<PyTorch['fit']>().parameter(0).toEqualTypeOf<Inputs | undefined>();
  void (() => estimator.fit('./data', { wait: false, logs: 'None', jobName: 'x' }));
  void (() =>
    estimator.fit({
      train: new TrainingInput('s3://b/k', { distribution: 'ShardedByS3Key' }),
      val: './val',
    }));
  // @ts-expect-error a number is not an input
  void (() => estimator.fit({ train: 3 }));
  // @ts-expect-error not a distribution of S3 objects
  void (() => new TrainingInput('s3://b/k', { distribution: 'Sharded' }));
  // @ts-expect-error not a type of file system
  void (() => new FileSystemInput({ fileSystemId: 'fs-1', fileSystemType: 'NFS', directoryPath: '/' }));
});

test('jobs describe themselves and tell events that narrow by type', () => {
  expectTypeOf<TrainingJob['describe']>().returns.resolves.toEqualTypeOf<DescribeTrainingJobResponse>();
  expectTypeOf<TrainingJob['events']>().returns.toEqualTypeOf<AsyncGenerator<TrainingJobEvent>>();
  type Log = Extract<TrainingJobEvent, { type: 'log' }>;
  expectTypeOf<Log['rank']>().toEqualTypeOf<number | null>();
  expectTypeOf<Extract<TrainingJobEvent, { type: 'metric' }>['value']>().toBeNumber();
  expectTypeOf<typeof PyTorch.attach>().returns.resolves.toEqualTypeOf<PyTorch>();
  expectTypeOf<PyTorch['latestTrainingJob']>().toEqualTypeOf<TrainingJob | null>();
});

test('a ModelTrainer takes objects for configurations and instances for what starts the ranks', () => {
  const sourceCode = { sourceDir: 'src', entryScript: 'train.py' };
  const smp = new SMP({ tensorParallelDegree: 2 });
  const trainer = new ModelTrainer({ sourceCode, distributed: new Torchrun({ smp }) });
  expectTypeOf(trainer.withRetryStrategy({ maximumRetryAttempts: 3 })).toEqualTypeOf<ModelTrainer>();
  expectTypeOf<ModelTrainer['train']>().returns.resolves.toEqualTypeOf<TrainingJob>();
  // @ts-expect-error a misspelt option is an error
  new ModelTrainer({ sourceCodes: sourceCode });
  // @ts-expect-error SMP belongs to Torchrun
  new ModelTrainer({ sourceCode, distributed: smp });
  // @ts-expect-error a number is not a source of data
  void (() => trainer.train({ inputDataConfig: [{ channelName: 'train', dataSource: 3 }] }));
});
