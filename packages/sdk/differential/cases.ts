/** An estimator call: the class and its options but for role, session and source directory. */
export interface Case {
  class: 'PyTorch' | 'TensorFlow' | 'MXNet' | 'HuggingFace';
  options: Record<string, unknown>;
}

const TYPES =
  'p4d.24xlarge p4d.24xlarge g5.12xlarge c5.xlarge m5.xlarge p3.16xlarge p2.xlarge p5.48xlarge p5e.48xlarge trn1.32xlarge g4dn.xlarge'
    .split(' ')
    .map((type) => `ml.${type}`);

/** Versions with a python each, in lists that have images, that do not, and the edges of every rule. */
const VERSIONS: Readonly<Record<Exclude<Case['class'], 'HuggingFace'>, string>> = {
  PyTorch:
    '1.3.1-py2 1.6-py36 1.6.0-py3 1.9.0-py38 1.11.0-py38 1.12.1-py38 1.13.1-py39 1.13-py39 2.0.1-py310 2.1.0-py310 2.2.0-py310 2.2-py310 2.3.0-py311 2.3.1-py311 2.4.1-py311 2.5.1-py311 2.8.0-py312 2.8-py312',
  TensorFlow:
    '1.10-py2 1.12-py3 1.15-py37 1.15.5-py37 2.0.0-py3 2.1.1-py2 2.2.0-py2 2.3.1-py37 2.3-py37 2.6-py38 2.8-py39 2.9.2-py39 2.11-py39 2.11.0-py39 2.12.0-py310 2.19-py312',
  MXNet: '1.2.1-py3 1.3.0-py3 1.4.1-py2 1.4.1-py3 1.6-py3 1.8-py37 1.8.0-py37 1.9-py38 1.9.0-py38',
};

const HUGGING_FACE =
  '4.4.2-pytorch-1.6.0-py36 4.6-pytorch-1.8-py36 4.17.0-tensorflow-2.6.3-py38 4.17-pytorch-1.10-py38 4.26.0-pytorch-1.13.1-py39 4.28.1-pytorch-2.0.0-py310 4.28.1-pytorch-2.1.0-py310 4.36-pytorch-2.1-py310 4.36.0-pytorch-2.1.0-py310 4.49.0-pytorch-2.5.1-py311 4.56.2-pytorch-2.8.0-py312 4.56.2-pytorch-2.8-py312';

const PARAMETERS: Readonly<Record<string, readonly unknown[]>> = {
  partitions: [1, 2, 0],
  microbatches: [4, 0],
  pipeline: ['simple', 'interleaved', 'zzz'],
  optimize: ['speed', 'memory'],
  placement_strategy: ['spread', 'cluster', 'DPT'],
  ddp: [true, false],
  horovod: [true, false],
  memory_weight: [0.2, 1.5],
  default_partition: [0, 3],
  auto_partition: [true, false],
  ddp_port: [8080, -1],
  tensor_parallel_degree: [2],
  fp16: [true],
};

/** Options that add members to the request whatever the framework is, with how often they are given. */
const OTHERS: readonly [chance: number, options: Record<string, unknown>][] = [
  [0.2, { hyperparameters: { lr: 0.1, 'x-y': 'é"', n: null, b: true, l: [1, 'a'], d: { k: 1e-7 } } }],
  [0.05, { checkpointS3Uri: 's3://b/c' }],
  [0.1, { checkpointS3Uri: 's3://b/c', checkpointLocalPath: '/opt/ml/checkpoints' }],
  [0.05, { outputPath: 's3://b/out' }],
  [0.05, { outputPath: 's3://b' }],
  [0.1, { enableNetworkIsolation: true }],
  [0.1, { environment: { A: 'b' } }],
  [0.1, { tags: [{ Key: 'a', Value: 'b' }] }],
  [0.1, { disableProfiler: true }],
  [0.1, { debuggerHookConfig: false }],
  [0.1, { modelUri: 's3://b/model.tar.gz' }],
  [0.1, { containerLogLevel: 10, codeLocation: 's3://code/p' }],
  [0.05, { enableRemoteDebug: true, enableInfraCheck: true, keepAlivePeriodInSeconds: 60 }],
  [0.05, { trainingRepositoryAccessMode: 'Vpc', trainingRepositoryCredentialsProviderArn: 'arn:x' }],
];

/** The same seed gives the same calls. */
export function makeCases(count: number, seed: number): Case[] {
  // mulberry32: small, and it does not repeat within any number of calls that one would wait for.
  let state = seed;
  const chance = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
  const pick = <Item>(items: readonly Item[]): Item => items[Math.floor(chance() * items.length)] as Item;
  const on = (): object => ({ enabled: chance() < 0.85 });
  const parameters = (): object =>
    Object.fromEntries(
      Object.entries(PARAMETERS).flatMap(([name, values]) => (chance() < 0.2 ? [[name, pick(values)]] : [])),
    );
  const strategies: Readonly<Record<string, () => unknown>> = {
    torch_distributed: on,
    pytorchddp: () => ({ ...on(), ...(chance() < 0.3 && { custom_mpi_options: '-x A=b' }) }),
    mpi: () => ({
      ...on(),
      ...(chance() < 0.5 && { processes_per_host: 8 }),
      ...(chance() < 0.3 && { custom_mpi_options: '--NCCL_DEBUG INFO' }),
    }),
    parameter_server: on,
    multi_worker_mirrored_strategy: on,
    pytorchxla: on,
    smdistributed: () =>
      pick([
        { dataparallel: on() },
        { dataparallel: { ...on(), custom_mpi_options: '-verbose' } },
        { modelparallel: { enabled: true, parameters: parameters() } },
        { modelparallel: on() },
        { dataparallel: on(), modelparallel: on() },
      ]),
  };

  function versions(name: Case['class']): Record<string, unknown> {
    if (name === 'HuggingFace') {
      const [transformersVersion, base, version, pyVersion] = pick(HUGGING_FACE.split(' ')).split('-');
      return { transformersVersion, [`${base}Version`]: version, pyVersion };
    }
    const [frameworkVersion, pyVersion] = pick(VERSIONS[name].split(' ')).split('-');
    return { frameworkVersion, pyVersion };
  }

  function make(): Case {
    const name = pick(['PyTorch', 'TensorFlow', 'MXNet', 'HuggingFace'] as const);
    const options = {
      entryPoint: chance() < 0.05 ? 'train.sh' : 'train.py',
      ...versions(name),
    } as Case['options'];
    if (chance() < 0.1) {
      options['imageUri'] = pick([
        '123456789012.dkr.ecr.us-west-2.amazonaws.com/my:latest',
        '763104351884.dkr.ecr.us-west-2.amazonaws.com/pytorch-training:2.0.1-gpu-py310-cu121-ubuntu20.04-sagemaker',
      ]);
    }
    const distribution: Record<string, unknown> = {};
    const strategyCount = pick([0, 1, 1, 1, 1, 2, 2, 3]);
    for (let index = 0; index < strategyCount; index++) {
      const strategy = pick(Object.keys(strategies));
      distribution[strategy] = strategies[strategy]?.();
    }
    if (chance() < 0.12) {
      const groups = ['g1', 'g2'].map((instanceGroupName, index) => ({
        instanceGroupName,
        instanceType: pick(TYPES),
        instanceCount: index + 1,
      }));
      options['instanceGroups'] = groups.slice(0, pick([1, 2, 2]));
      if (chance() < 0.7) distribution['instance_groups'] = pick([['g1'], ['g2'], ['g1', 'g2'], []]);
    } else {
      Object.assign(options, { instanceCount: pick([1, 2]), instanceType: pick(TYPES) });
      if (chance() < 0.03) distribution['instance_groups'] = ['g1'];
    }
    if (Object.keys(distribution).length > 0 || chance() < 0.1) options['distribution'] = distribution;
    if (name !== 'MXNet' && chance() < 0.08)
      options['compilerConfig'] = { enabled: true, debug: chance() < 0.5 };
    if (name === 'TensorFlow' && chance() < 0.2) options['modelDir'] = pick(['s3://m/d', false]);
    for (const [often, others] of OTHERS) if (chance() < often) Object.assign(options, others);
    return { class: name, options };
  }
  return Array.from({ length: count }, make);
}
