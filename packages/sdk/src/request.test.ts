import { expect, test } from 'vitest';
import { Estimator, HuggingFace, MXNet, PyTorch, Session, TensorFlow, TrainingInput } from './index.ts';
import type { Inputs, Problem, PyTorchOptions } from './index.ts';

const bucket = 's3://sagemaker-us-west-2-123456789012';
const session = (region = 'us-west-2', warnings: Problem[] = []) =>
  new Session({
    on: 'aws',
    region,
    accountId: '123456789012',
    credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' },
    onWarning: (warning) => warnings.push(warning),
  });
const common = {
  entryPoint: 'train.py',
  role: 'arn:aws:iam::123456789012:role/x',
  instanceType: 'ml.g5.2xlarge',
  session: session(),
};
const pytorch = { ...common, frameworkVersion: '2.8.0', pyVersion: 'py312' };

async function request(options: Partial<PyTorchOptions>, inputs?: Inputs) {
  return (await new PyTorch({ ...pytorch, ...options } as PyTorchOptions).render(inputs, { jobName: 'job' }))
    .request;
}

test('every further option has its member of the request', async () => {
  const placement = { EnableMultipleJobs: true };
  expect(
    await request({
      tags: { team: 'a' },
      keepAlivePeriodInSeconds: 600,
      trainingPlan: 'arn:aws:sagemaker:us-west-2:123456789012:training-plan/p',
      instancePlacementConfig: placement,
      trainingRepositoryAccessMode: 'Vpc',
      trainingRepositoryCredentialsProviderArn: 'arn:aws:lambda:us-west-2:123456789012:function:f',
      enableInfraCheck: true,
      enableRemoteDebug: true,
      enableSessionTagChaining: false,
      enableSageMakerMetrics: false,
      disableOutputCompression: true,
      tensorBoardOutputConfig: { s3OutputPath: 's3://b/tb', containerLocalOutputPath: '/opt/ml/output/tb' },
    }),
  ).toMatchObject({
    Tags: [{ Key: 'team', Value: 'a' }],
    ResourceConfig: {
      KeepAlivePeriodInSeconds: 600,
      TrainingPlanArn: 'arn:aws:sagemaker:us-west-2:123456789012:training-plan/p',
      InstancePlacementConfig: placement,
    },
    AlgorithmSpecification: {
      EnableSageMakerMetricsTimeSeries: false,
      TrainingImageConfig: {
        TrainingRepositoryAccessMode: 'Vpc',
        TrainingRepositoryAuthConfig: {
          TrainingRepositoryCredentialsProviderArn: 'arn:aws:lambda:us-west-2:123456789012:function:f',
        },
      },
    },
    InfraCheckConfig: { EnableInfraCheck: true },
    RemoteDebugConfig: { EnableRemoteDebug: true },
    SessionChainingConfig: { EnableSessionTagChaining: false },
    OutputDataConfig: { CompressionType: 'NONE' },
    TensorBoardOutputConfig: { S3OutputPath: 's3://b/tb', LocalPath: '/opt/ml/output/tb' },
  });
});

test('an experiment goes with a job', async () => {
  const plan = await new PyTorch(pytorch).render(undefined, {
    experimentConfig: { experimentName: 'e', trialName: 't', trialComponentDisplayName: 'c', runName: 'r' },
  });
  expect(plan.request.ExperimentConfig).toEqual({
    ExperimentName: 'e',
    TrialName: 't',
    TrialComponentDisplayName: 'c',
    RunName: 'r',
  });
});

test('debugger, profiler and their rules are sent as given, with the output path where none is', async () => {
  const rule = { RuleConfigurationName: 'r', RuleEvaluatorImage: 'i' };
  expect(
    await request({
      debuggerHookConfig: {
        hookParameters: { 'save-interval': '100' },
        collectionConfigs: [{ name: 'weights', parameters: { a: 'b' } }, { name: 'losses' }],
      },
      profilerConfig: { systemMonitorIntervalMillis: 500, profilingParameters: { a: 'b' } },
      rules: [{ debugger: rule }, { profiler: rule }],
    }),
  ).toMatchObject({
    DebugHookConfig: {
      S3OutputPath: `${bucket}/`,
      HookParameters: { 'save-interval': '100' },
      CollectionConfigurations: [
        { CollectionName: 'weights', CollectionParameters: { a: 'b' } },
        { CollectionName: 'losses' },
      ],
    },
    DebugRuleConfigurations: [rule],
    ProfilerConfig: {
      S3OutputPath: `${bucket}/`,
      ProfilingIntervalInMilliseconds: 500,
      ProfilingParameters: { a: 'b' },
      DisableProfiler: false,
    },
    ProfilerRuleConfigurations: [rule],
  });
});

const checkpoints = { checkpointS3Uri: 's3://b/c', checkpointLocalPath: '/opt/ml/checkpoints' };
const mxnet = { ...common, frameworkVersion: '1.9', pyVersion: 'py38' };
const huggingFace = { ...common, transformersVersion: '4.56.2', pytorchVersion: '2.8.0' };
const tensorflow = { ...common, frameworkVersion: '2.19', pyVersion: 'py312' };

// By default AWS's SDK leaves its debugger out of jobs that it would disturb.
test.each([
  ['PyTorch', () => new PyTorch(pytorch), true],
  ['PyTorch with checkpoints', () => new PyTorch({ ...pytorch, ...checkpoints }), false],
  [
    'PyTorch with checkpoints in the default directory',
    () => new PyTorch({ ...pytorch, checkpointS3Uri: 's3://b/c' }),
    true,
  ],
  ['MXNet with checkpoints on one host', () => new MXNet({ ...mxnet, ...checkpoints }), true],
  [
    'MXNet with checkpoints on two hosts',
    () => new MXNet({ ...mxnet, ...checkpoints, instanceCount: 2 }),
    false,
  ],
  [
    'Hugging Face with checkpoints',
    () => new HuggingFace({ ...huggingFace, pyVersion: 'py312', ...checkpoints }),
    true,
  ],
  [
    'TensorFlow with parameter servers',
    () => new TensorFlow({ ...tensorflow, distribution: { parameter_server: { enabled: true } } }),
    false,
  ],
  ['any image with checkpoints', () => new Estimator({ ...common, imageUri: 'i', ...checkpoints }), true],
  ['a region without debugger', () => new PyTorch({ ...pytorch, session: session('eu-south-2') }), false],
])('the hook of the debugger with %s: %s', async (_what, make, isSent) => {
  const { request: sent } = await make().render();
  expect(sent.DebugHookConfig !== undefined).toBe(isSent);
});

test('a debugger is refused in a region of AWS without one', async () => {
  const estimator = new PyTorch({ ...pytorch, session: session('eu-south-2'), debuggerHookConfig: {} });
  await expect(estimator.render()).rejects.toMatchObject({ id: 'E-DEBUG-REGION', value: 'eu-south-2' });
});

test('model_dir is a place of the job unless mpi or the user says otherwise', async () => {
  const modelDir = async (options: object): Promise<string | undefined> => {
    const { request: sent } = await new TensorFlow({ ...tensorflow, ...options }).render(undefined, {
      jobName: 'job',
    });
    return sent.HyperParameters?.['model_dir'];
  };
  expect(await modelDir({})).toBe(`"${bucket}/job/model"`);
  expect(await modelDir({ outputPath: 's3://b/out' })).toBe('"s3://b/out/job/model"');
  expect(await modelDir({ distribution: { mpi: { enabled: true } } })).toBe('"/opt/ml/model"');
  expect(await modelDir({ modelDir: 's3://b/m' })).toBe('"s3://b/m"');
  expect(await modelDir({ modelDir: false })).toBeUndefined();
});

test('inputs of every kind in S3', async () => {
  const { InputDataConfig } = await request(
    {},
    {
      manifest: new TrainingInput('s3://b/m.json', { s3DataType: 'ManifestFile' }),
      lines: new TrainingInput('s3://b/a.jsonl', {
        s3DataType: 'AugmentedManifestFile',
        inputMode: 'Pipe',
        recordWrapping: 'RecordIO',
        attributeNames: ['source-ref', 'class'],
      }),
      hub: new TrainingInput('s3://b/model', {
        hubAccessConfig: { HubContentArn: 'arn:h' },
        modelAccessConfig: { AcceptEula: true },
      }),
    },
  );
  expect(
    InputDataConfig?.map((channel) => ({ ...channel.DataSource.S3DataSource, mode: channel.InputMode })),
  ).toEqual([
    {
      S3DataType: 'ManifestFile',
      S3Uri: 's3://b/m.json',
      S3DataDistributionType: 'FullyReplicated',
      mode: undefined,
    },
    {
      S3DataType: 'AugmentedManifestFile',
      S3Uri: 's3://b/a.jsonl',
      S3DataDistributionType: 'FullyReplicated',
      AttributeNames: ['source-ref', 'class'],
      mode: 'Pipe',
    },
    {
      S3DataType: 'S3Prefix',
      S3Uri: 's3://b/model',
      S3DataDistributionType: 'FullyReplicated',
      HubAccessConfig: { HubContentArn: 'arn:h' },
      ModelAccessConfig: { AcceptEula: true },
      mode: undefined,
    },
  ]);
});

test('a trained model becomes a channel after the inputs, whose name no input may have', async () => {
  const modelUri = 's3://b/model.tar.gz';
  const { InputDataConfig } = await request({ modelUri }, { train: 's3://b/train' });
  expect(InputDataConfig?.map((channel) => channel.ChannelName)).toEqual(['train', 'model']);
  expect(InputDataConfig?.[1]).toMatchObject({
    ContentType: 'application/x-sagemaker-model',
    InputMode: 'File',
    DataSource: { S3DataSource: { S3Uri: modelUri } },
  });
  await expect(
    request({ modelUri, modelChannelName: 'train' }, { train: 's3://b/train' }),
  ).rejects.toMatchObject({
    id: 'E-CHANNEL-DUP',
    field: 'inputs.train',
  });
});

const g1 = { instanceGroupName: 'g1', instanceType: 'ml.g5.2xlarge', instanceCount: 2 };

test('inputs may be for some groups of hosts: groups that are there, and then for every input', async () => {
  const grouped = { ...pytorch, instanceType: undefined, instanceGroups: [g1] };
  const render = (inputs: Inputs) => new PyTorch(grouped).render(inputs);
  const forGroup = (name: string) => new TrainingInput('s3://b/x', { instanceGroups: [name] });
  const { request: sent } = await render({ a: forGroup('g1') });
  expect(sent.InputDataConfig?.[0]?.DataSource.S3DataSource?.InstanceGroupNames).toEqual(['g1']);
  await expect(render({ a: forGroup('g2') })).rejects.toMatchObject({ id: 'E-CHANNEL-GROUPS', value: 'g2' });
  await expect(render({ a: forGroup('g1'), b: 's3://b/y' })).rejects.toMatchObject({
    id: 'E-CHANNEL-GROUPS',
    field: 'inputs.b.instanceGroups',
  });
});

test('the Training Compiler has images and flags of its own', async () => {
  const compiled = new PyTorch({
    ...pytorch,
    frameworkVersion: '1.13.1',
    pyVersion: 'py39',
    compilerConfig: { debug: true },
    distribution: { pytorchxla: { enabled: true } },
  });
  const { request: sent } = await compiled.render();
  expect(sent.AlgorithmSpecification?.TrainingImage).toMatch(/\/pytorch-trcomp-training:1\.13\.1-gpu-py39$/);
  expect(sent.HyperParameters).toMatchObject({
    sagemaker_training_compiler_enabled: 'true',
    sagemaker_training_compiler_debug_mode: 'true',
    sagemaker_pytorch_xla_multi_worker_enabled: 'true',
  });
});
