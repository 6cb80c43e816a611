import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CreateTrainingJobRequest } from '@trainyard/api';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  Estimator,
  FileSystemInput,
  HuggingFace,
  ModelTrainer,
  MPI,
  MXNet,
  PyTorch,
  Session,
  SMP,
  TensorFlow,
  Torchrun,
  TrainingInput,
} from '../index.ts';
import type {
  EstimatorBase,
  FitOptions,
  InputData,
  Inputs,
  JobPlan,
  ModelTrainerOptions,
  PyTorchOptions,
} from '../index.ts';
import { packSource } from '../source/source-archive.ts';

interface Golden {
  request: CreateTrainingJobRequest;
  sourcedir_members?: string[];
}

interface GoldenTrainer extends Golden {
  uploads: string[];
  'sourcecode.json': object;
  'distributed.json': object;
}

const session = new Session({
  on: 'aws',
  region: 'us-west-2',
  credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' },
  // The captures have the bucket that account 123456789012 gets by default.
  defaultBucket: 'sagemaker-us-west-2-123456789012',
  accountId: '123456789012',
});
const role = 'arn:aws:iam::123456789012:role/x';
const training = { training: 's3://my-bucket/train' };
let sourceDir: string;
let D: Pick<PyTorchOptions, 'entryPoint' | 'sourceDir' | 'role' | 'session'>;

beforeAll(() => {
  sourceDir = mkdtempSync(join(tmpdir(), 'trainyard-golden-'));
  for (const name of ['train.py', 'requirements.txt']) writeFileSync(join(sourceDir, name), '\n');
  D = { entryPoint: 'train.py', sourceDir, role, session };
});
afterAll(() => rmSync(sourceDir, { recursive: true, force: true }));

const p4d = { instanceCount: 2, instanceType: 'ml.p4d.24xlarge' };
const pytorch23 = { ...p4d, frameworkVersion: '2.3.0', pyVersion: 'py311' };
const pytorch20 = { ...p4d, frameworkVersion: '2.0.1', pyVersion: 'py310' };
const torchDistributed = { torch_distributed: { enabled: true } };
const fsx = {
  fileSystemId: 'fs-0123456789abcdef0',
  fileSystemType: 'FSxLustre',
  directoryPath: '/fsx-mount/train',
} as const;
const pytorch113 = { ...p4d, frameworkVersion: '1.13.1', pyVersion: 'py39' };
const tensorflow211 = { instanceCount: 2, frameworkVersion: '2.11', pyVersion: 'py39' };
const trn1 = { instanceCount: 2, instanceType: 'ml.trn1.32xlarge' };
const g1 = { instanceGroupName: 'g1', instanceType: 'ml.c5.18xlarge', instanceCount: 1 };
const g2 = { instanceGroupName: 'g2', instanceType: 'ml.p4d.24xlarge', instanceCount: 2 };
const ownImage = '123456789012.dkr.ecr.us-west-2.amazonaws.com/my:latest';

interface Case {
  make: () => EstimatorBase;
  inputs?: Inputs;
  fit?: FitOptions;
}

/** One row per captured file: the same call in TypeScript. */
const cases: Record<string, Case> = {
  'v2-estimator-image': {
    make: () => new Estimator({ ...D, ...p4d, imageUri: ownImage, hyperparameters: { epochs: 3 } }),
  },
  'v2-estimator-image-no-source': {
    make: () =>
      new Estimator({
        ...p4d,
        role,
        session,
        imageUri: ownImage,
        hyperparameters: { epochs: 3 },
        containerEntryPoint: ['python3', '/opt/ml/code/x.py'],
        containerArguments: ['--a', '1'],
      }),
    inputs: 's3://my-bucket/train',
  },
  'v2-pytorch-none': {
    make: () =>
      new PyTorch({
        ...D,
        ...p4d,
        frameworkVersion: '2.3',
        pyVersion: 'py311',
        hyperparameters: { epochs: 3, lr: 0.1, name: 'abc', flag: true, list: [1, 2], d: { a: 1 } },
      }),
  },
  'v2-pytorch-torch_distributed': {
    make: () => new PyTorch({ ...D, ...pytorch23, distribution: torchDistributed }),
  },
  'v2-pytorch-torch_distributed-custom-image': {
    make: () =>
      new PyTorch({
        ...D,
        ...p4d,
        imageUri: '123456789012.dkr.ecr.us-west-2.amazonaws.com/my-smddp:latest',
        distribution: torchDistributed,
      }),
  },
  'v2-pytorch-pytorchddp': {
    make: () => new PyTorch({ ...D, ...pytorch20, distribution: { pytorchddp: { enabled: true } } }),
  },
  'v2-pytorch-pytorchddp-g5': {
    make: () =>
      new PyTorch({
        ...D,
        ...pytorch20,
        instanceType: 'ml.g5.12xlarge',
        distribution: { pytorchddp: { enabled: true } },
      }),
  },
  'v2-pytorch-pytorchddp-custom-mpi-options': {
    make: () =>
      new PyTorch({
        ...D,
        ...pytorch20,
        distribution: { pytorchddp: { enabled: true, custom_mpi_options: '-verbose --NCCL_DEBUG=INFO' } },
      }),
  },
  'v2-pytorch-mpi': {
    make: () =>
      new PyTorch({
        ...D,
        ...pytorch23,
        distribution: { mpi: { enabled: true, processesPerHost: 8, customMpiOptions: '--NCCL_DEBUG INFO' } },
      }),
  },
  'v2-pytorch-cpu-mpi': {
    make: () =>
      new PyTorch({
        ...D,
        ...pytorch23,
        instanceType: 'ml.c5.xlarge',
        distribution: { mpi: { enabled: true, processes_per_host: 2 } },
      }),
  },
  'v2-pytorch-fsx': {
    make: () =>
      new PyTorch({
        ...D,
        ...pytorch23,
        subnets: ['subnet-0abc', 'subnet-0def'],
        securityGroupIds: ['sg-0123'],
        distribution: torchDistributed,
      }),
    inputs: { train: new FileSystemInput({ ...fsx, fileSystemAccessMode: 'ro' }) },
  },
  'v2-pytorch-fsx-without-vpc': {
    make: () => new PyTorch({ ...D, ...pytorch23, distribution: torchDistributed }),
    inputs: new FileSystemInput(fsx),
  },
  'v2-pytorch-full-options': {
    make: () =>
      new PyTorch({
        ...D,
        ...pytorch23,
        hyperparameters: { epochs: 3 },
        environment: { FI_PROVIDER: 'efa', NCCL_DEBUG: 'INFO' },
        volumeSize: 200,
        volumeKmsKey: 'vk',
        outputKmsKey: 'ok',
        maxRun: 3600,
        useSpotInstances: true,
        maxWait: 7200,
        checkpointS3Uri: 's3://my-bucket/ckpt',
        checkpointLocalPath: '/opt/ml/checkpoints',
        outputPath: 's3://my-bucket/out',
        codeLocation: 's3://my-bucket/code',
        baseJobName: 'my-base',
        encryptInterContainerTraffic: true,
        enableNetworkIsolation: true,
        maxRetryAttempts: 3,
        tags: [{ Key: 'a', Value: 'b' }],
        metricDefinitions: [{ Name: 'loss', Regex: 'loss=([0-9.]+)' }],
        disableProfiler: true,
        debuggerHookConfig: false,
        distribution: torchDistributed,
      }),
    inputs: {
      train: new TrainingInput('s3://my-bucket/train', {
        distribution: 'ShardedByS3Key',
        contentType: 'application/x-recordio',
        inputMode: 'FastFile',
        shuffleConfig: { seed: 7 },
      }),
      val: new TrainingInput('s3://my-bucket/val', {
        inputMode: 'Pipe',
        compression: 'Gzip',
        recordWrapping: 'RecordIO',
      }),
    },
    fit: { jobName: 'explicit-name' },
  },
  'v2-pytorch-smdataparallel': {
    make: () =>
      new PyTorch({
        ...D,
        ...pytorch20,
        distribution: { smdistributed: { dataparallel: { enabled: true } } },
      }),
  },
  'v2-pytorch-smmodelparallel-v1-mpi': {
    make: () =>
      new PyTorch({
        ...D,
        ...pytorch113,
        distribution: {
          smdistributed: {
            modelparallel: {
              enabled: true,
              parameters: {
                partitions: 2,
                microbatches: 4,
                placement_strategy: 'spread',
                pipeline: 'interleaved',
                optimize: 'speed',
                ddp: true,
              },
            },
          },
          mpi: {
            enabled: true,
            processes_per_host: 8,
            custom_mpi_options: '--mca btl_vader_single_copy_mechanism none',
          },
        },
      }),
  },
  'v2-pytorch-smmodelparallel-v2-torch_distributed': {
    make: () =>
      new PyTorch({
        ...D,
        ...p4d,
        frameworkVersion: '2.2.0',
        pyVersion: 'py310',
        distribution: {
          ...torchDistributed,
          smdistributed: {
            modelparallel: {
              enabled: true,
              parameters: {
                hybrid_shard_degree: 4,
                tensor_parallel_degree: 2,
                sm_activation_offloading: true,
                activation_loading_horizon: 2,
                expert_parallel_degree: 1,
                random_seed: 123,
              },
            },
          },
        },
      }),
  },
  'v2-pytorch-heterogeneous-instance_groups': {
    make: () =>
      new PyTorch({ ...D, instanceGroups: [g1, g2], frameworkVersion: '2.0.1', pyVersion: 'py310' }),
  },
  'v2-pytorch-heterogeneous-smddp': {
    make: () =>
      new PyTorch({
        ...D,
        instanceGroups: [g1, g2],
        frameworkVersion: '1.13.1',
        pyVersion: 'py39',
        distribution: { smdistributed: { dataparallel: { enabled: true } }, instance_groups: [g2] },
      }),
    inputs: { training: new TrainingInput('s3://my-bucket/train', { instanceGroups: ['g2'] }) },
  },
  'v2-pytorch-trn1-torch_distributed': {
    make: () =>
      new PyTorch({
        ...D,
        ...trn1,
        frameworkVersion: '1.13.1',
        pyVersion: 'py39',
        distribution: torchDistributed,
        imageUri:
          '763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training-neuronx:1.13.1-neuronx-py310-sdk2.20.2-ubuntu20.04',
      }),
  },
  'v2-pytorch-trn1-torch_distributed-noimage': {
    make: () =>
      new PyTorch({
        ...D,
        ...trn1,
        instanceCount: 1,
        frameworkVersion: '1.11.0',
        pyVersion: 'py38',
        volumeSize: 512,
        hyperparameters: { 'model-name-or-path': 'bert-large-uncased' },
        distribution: torchDistributed,
      }),
  },
  'v2-huggingface-pytorchddp': {
    make: () =>
      new HuggingFace({
        ...D,
        ...p4d,
        transformersVersion: '4.28.1',
        pytorchVersion: '2.0.0',
        pyVersion: 'py310',
        distribution: { pytorchddp: { enabled: true } },
      }),
  },
  'v2-huggingface-torch_distributed': {
    make: () =>
      new HuggingFace({
        ...D,
        ...p4d,
        transformersVersion: '4.36.0',
        pytorchVersion: '2.1.0',
        pyVersion: 'py310',
        distribution: torchDistributed,
      }),
  },
  'v2-mxnet-parameter_server': {
    make: () =>
      new MXNet({
        ...D,
        instanceCount: 2,
        instanceType: 'ml.c5.2xlarge',
        frameworkVersion: '1.9',
        pyVersion: 'py38',
        distribution: { parameter_server: { enabled: true } },
      }),
  },
  'v2-tensorflow-mpi': {
    make: () =>
      new TensorFlow({
        ...D,
        ...tensorflow211,
        instanceType: 'ml.p4d.24xlarge',
        distribution: {
          mpi: { enabled: true, processes_per_host: 8, custom_mpi_options: '--NCCL_DEBUG INFO' },
        },
      }),
  },
  'v2-tensorflow-mwms': {
    make: () =>
      new TensorFlow({
        ...D,
        ...tensorflow211,
        instanceType: 'ml.g4dn.xlarge',
        distribution: { multi_worker_mirrored_strategy: { enabled: true } },
      }),
  },
  'v2-tensorflow-parameter_server': {
    make: () =>
      new TensorFlow({
        ...D,
        ...tensorflow211,
        instanceType: 'ml.c5.2xlarge',
        distribution: { parameter_server: { enabled: true } },
      }),
  },
  'v2-tensorflow-smmodelparallel-mpi': {
    make: () =>
      new TensorFlow({
        ...D,
        ...p4d,
        frameworkVersion: '2.6',
        pyVersion: 'py38',
        distribution: {
          smdistributed: {
            modelparallel: {
              enabled: true,
              parameters: { partitions: 2, microbatches: 4, pipeline: 'interleaved', optimize: 'memory' },
            },
          },
          mpi: { enabled: true, processes_per_host: 8 },
        },
      }),
  },
};

const trainChannel: InputData = { channelName: 'train', dataSource: 's3://my-bucket/train' };

/** The same of version 3: D there has hyperparameters and an image. */
const trainers: Record<string, { make: () => ModelTrainer; inputs?: InputData[] }> = {
  'v3-none': { make: () => trainer({}) },
  'v3-command': {
    make: () => trainer({ sourceCode: { sourceDir, command: 'torchrun --nnodes 2 train.py' } }),
  },
  'v3-torchrun': { make: () => trainer({ distributed: new Torchrun() }) },
  'v3-cpu-torchrun': {
    make: () =>
      trainer({
        compute: { instanceType: 'ml.c5.xlarge', instanceCount: 2 },
        distributed: new Torchrun(),
      }),
  },
  'v3-trn1-torchrun': {
    make: () =>
      trainer({
        compute: { instanceType: 'ml.trn1.32xlarge', instanceCount: 2 },
        distributed: new Torchrun(),
        trainingImage:
          '763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training-neuronx:2.8.0-neuronx-py311-sdk2.26.0-ubuntu22.04',
      }),
  },
  'v3-torchrun-smp': {
    make: () =>
      trainer({
        distributed: new Torchrun({
          processCountPerNode: 8,
          smp: new SMP({
            hybridShardDegree: 4,
            tensorParallelDegree: 2,
            smActivationOffloading: true,
            activationLoadingHorizon: 2,
            expertParallelDegree: 1,
            contextParallelDegree: 1,
            allowEmptyShards: true,
            fsdpCacheFlushWarnings: true,
            randomSeed: 123,
          }),
        }),
      }),
  },
  'v3-mpi': { make: () => trainer({ distributed: new MPI() }) },
  'v3-fsx-vpc': {
    make: () =>
      trainer({
        distributed: new Torchrun(),
        networking: {
          subnets: ['subnet-0abc', 'subnet-0def'],
          securityGroupIds: ['sg-0123'],
          enableNetworkIsolation: false,
          enableInterContainerTrafficEncryption: true,
        },
      }),
    inputs: [
      {
        channelName: 'train',
        dataSource: new FileSystemInput({ ...fsx, fileSystemAccessMode: 'ro' }),
      },
    ],
  },
  'v3-full-options': {
    make: () =>
      trainer({
        compute: { ...p4d, volumeSizeInGb: 200, keepAlivePeriodInSeconds: 600 },
        distributed: new Torchrun(),
        environment: { NCCL_DEBUG: 'INFO' },
        stoppingCondition: { maxRuntimeInSeconds: 3600 },
        outputDataConfig: { s3OutputPath: 's3://my-bucket/out', compressionType: 'NONE' },
        checkpointConfig: { s3Uri: 's3://my-bucket/ckpt', localPath: '/opt/ml/checkpoints' },
        baseJobName: 'my-base',
        tags: [{ key: 'a', value: 'b' }],
        trainingInputMode: 'FastFile',
      })
        .withRetryStrategy({ maximumRetryAttempts: 3 })
        .withMetricDefinitions([{ name: 'loss', regex: 'loss=([0-9.]+)' }])
        .withRemoteDebugConfig({ enableRemoteDebug: true }),
  },
};

function trainer(options: ModelTrainerOptions): ModelTrainer {
  return new ModelTrainer({
    role,
    session,
    trainingImage:
      '763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training:2.8.0-gpu-py312-cu129-ubuntu22.04-sagemaker',
    hyperparameters: { epochs: 3, lr: 0.1, name: 'abc', flag: true },
    sourceCode: { sourceDir, entryScript: 'train.py', requirements: 'requirements.txt' },
    compute: p4d,
    ...options,
  });
}

function readGolden<T>(name: string): T {
  return JSON.parse(readFileSync(join(import.meta.dirname, `${name}.json`), 'utf8')) as T;
}

/** The capture's job name, wherever it stands, becomes the one that was rendered. */
function withJobName(golden: Golden, jobName: string): CreateTrainingJobRequest {
  return JSON.parse(
    JSON.stringify(golden.request).replaceAll(golden.request.TrainingJobName, jobName),
  ) as CreateTrainingJobRequest;
}

async function render({ make, inputs, fit }: Case): Promise<JobPlan> {
  return await make().render(inputs ?? training, fit ?? {});
}

test.each(Object.keys(cases))('the request equals golden/%s.json member for member', async (name) => {
  const golden = readGolden<Golden>(name);
  const { request } = await render(cases[name] as Case);
  expect(request).toStrictEqual(withJobName(golden, request.TrainingJobName));
  const form = (jobName: string): string => jobName.replace(/\d/g, '0');
  expect(form(request.TrainingJobName)).toBe(form(golden.request.TrainingJobName));
});

test.each(Object.keys(trainers))('the request and the uploads equal golden/%s.json', async (name) => {
  const golden = readGolden<GoldenTrainer>(name);
  const { make, inputs = [trainChannel] } = trainers[name] as (typeof trainers)[string];
  const { request, uploads } = await make().render(inputs);
  expect(request).toStrictEqual(withJobName(golden, request.TrainingJobName));
  const form = (jobName: string): string => jobName.replace(/\d/g, '0');
  expect(form(request.TrainingJobName)).toBe(form(golden.request.TrainingJobName));

  const root = `${golden.request.TrainingJobName}/input/`.replace(/^.*?(?=-\d{14})/, '');
  const below = new RegExp(`^.*${root.replace(/\d/g, '\\d')}`);
  const names = uploads.flatMap((upload) =>
    upload.kind === 'directory'
      ? ['requirements.txt', 'train.py'].map((file) => upload.key.replace(below, '') + file)
      : [upload.key.replace(below, '')],
  );
  expect(names.toSorted()).toEqual(golden.uploads.toSorted());
  for (const file of ['sourcecode.json', 'distributed.json'] as const) {
    const sent = uploads.find((upload) => upload.key.endsWith(`/sm_drivers/${file}`));
    if (sent?.kind !== 'text') throw new Error(`${file} was not planned`);
    expect(JSON.parse(sent.body.replace(sourceDir, '<source_dir>'))).toEqual(golden[file]);
  }
});

const captured = readdirSync(import.meta.dirname).filter((name) => /^v[23]-.*\.json$/.test(name));
const compared = [...Object.keys(cases), ...Object.keys(trainers)];

test(`${compared.length} of ${captured.length} captured requests are compared`, () => {
  expect(compared.toSorted()).toEqual(captured.map((name) => name.replace('.json', '')).toSorted());
});

test('the code archive has the members of golden/v2-pytorch-torch_distributed.json', async () => {
  const golden = readGolden<Golden>('v2-pytorch-torch_distributed');
  const { uploads } = await render(cases['v2-pytorch-torch_distributed'] as Case);
  const [upload] = uploads;
  if (upload?.kind !== 'source') throw new Error('no source upload was planned');
  expect((await packSource(upload.selection)).members).toEqual(golden.sourcedir_members);
});
