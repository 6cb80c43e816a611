import { expectTypeOf, test } from 'vitest';
import { Estimator, FileSystemInput, PyTorch, TrainingInput } from './index.ts';
import type {
  DescribeTrainingJobResponse,
  Inputs,
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
  // @ts-expect-error parameter servers are not a strategy of PyTorch
  new PyTorch({ entryPoint: 'train.py', distribution: { parameter_server: { enabled: true } } });
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
