import type { AnyDistribution } from '../distribution/distribution.ts';
import type { FrameworkName } from '../distribution/plan-launch.ts';
import { usesSharedFlags } from '../distribution/plan-launch.ts';
import type { ImageTable } from '../images/image-table.ts';
import { compareVersions, findImages } from '../images/image-table.ts';
import { instanceKind } from '../instance-types.ts';
import type { Problem, ProblemList } from '../problem.ts';
import {
  DATA_PARALLEL_VERSIONS,
  MIRRORED_SINCE,
  MXNET_DISTRIBUTION_SINCE,
  TORCHRUN_TRAINIUM_VERSIONS,
  TORCHRUN_VERSIONS,
} from './known-versions.ts';

/** An estimator call as far as its distribution depends on it. */
export interface DistributedCall {
  framework: FrameworkName;
  /** Of Hugging Face the framework below it. */
  base: 'pytorch' | 'tensorflow' | 'mxnet';
  distribution: AnyDistribution;
  /** An empty one counts. */
  isDistributionGiven: boolean;
  entryPoint: string;
  /** Where the strategy starts. Empty when the user gave no type: outside AWS it then stands for any machine. */
  targetTypes: readonly string[];
  /** Of all hosts. */
  types: readonly string[];
  /** Null when `imageUri` replaces them: AWS's SDK then leaves version checks out. */
  version: { field: string; value: string } | null;
  /** The version also beside `imageUri`, where some rules look at it. */
  statedVersion: { field: string; value: string } | null;
  pyVersion: string | null;
  imageUri: string | null;
  images: ImageTable;
}

/**
 * The rules of AWS's SDK for distributions, in its order. Most are about AWS's hardware and images, so they refuse on
 * AWS and in strict mode and warn elsewhere.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/fw_utils.py (`validate_distribution`)
 */
export function checkDistribution(call: DistributedCall, problems: ProblemList): void {
  const { distribution, framework } = call;
  if (framework === 'mxnet') {
    if (call.isDistributionGiven) checkMXNet(call, problems);
    for (const type of call.targetTypes) warnOfServersOnGpus(type, call, problems);
    return;
  }
  if (framework === 'pytorch' && distribution.pytorchddp && distribution.smdistributed) {
    problems.refuse({
      id: 'E-DDP-SMD',
      field: 'distribution.pytorchddp',
      value: distribution.pytorchddp,
      rule: 'pytorchddp is started as smdistributed.dataparallel is, so both cannot be given.',
      nextStep: 'Remove pytorchddp or smdistributed.',
    });
  }
  const libraryOfDdp = framework === 'pytorch' ? distribution.pytorchddp : undefined;
  const dataparallel = libraryOfDdp ?? distribution.smdistributed?.dataparallel;
  for (const type of call.targetTypes) {
    checkTrainium(type, call, problems);
    if (call.base === 'pytorch' && distribution.torch_distributed?.enabled)
      checkTorchrunType(type, call, problems);
    warnOfServersOnGpus(type, call, problems);
  }
  if (dataparallel?.enabled)
    checkDataParallel(libraryOfDdp ? 'pytorchddp' : 'smdistributed.dataparallel', call, problems);
  if (call.base === 'pytorch' && distribution.torch_distributed?.enabled) checkTorchrun(call, problems);
  if (!usesSharedFlags(framework, distribution)) return;
  if (dataparallel || distribution.smdistributed) checkLibraryHosts(call, problems);
  checkMirrored(call, problems);
}

function checkTrainium(type: string, { distribution }: DistributedCall, problems: ProblemList): void {
  const strategies = Object.keys(distribution);
  if (instanceKind(type) !== 'trainium' || strategies.length === 0) return;
  if (strategies.length > 1 || strategies[0] !== 'torch_distributed') {
    problems.refuseOnAws({
      id: strategies.length > 1 ? 'E-TRN-MULTI' : 'E-TRN-STRATEGY',
      field: 'distribution',
      value: strategies.join(', '),
      rule: `On AWS ${type} takes exactly one strategy, torch_distributed.`,
      nextStep: 'Use { torch_distributed: { enabled: true } } there.',
    });
  }
}

function checkTorchrun(call: DistributedCall, problems: ProblemList): void {
  if (call.entryPoint && !call.entryPoint.endsWith('.py')) {
    problems.refuse({
      id: 'E-TORCHRUN',
      field: 'entryPoint',
      value: call.entryPoint,
      rule: 'torch_distributed starts python programs (*.py) only.',
      nextStep: 'Name a .py file, or start torchrun inside your own script without a distribution.',
    });
  }
  if (call.version) checkPython('E-TORCHRUN', call, problems);
}

function checkTorchrunType(type: string, call: DistributedCall, problems: ProblemList): void {
  if (!call.version) return;
  const kind = instanceKind(type);
  if (kind === 'cpu') {
    problems.refuseOnAws({
      id: 'E-TORCHRUN',
      field: 'instanceType',
      value: type,
      rule: 'AWS supports torch_distributed on GPU and Trainium instances only.',
      nextStep: 'For AWS choose such a type, or distribution.mpi.',
    });
    return;
  }
  const known = kind === 'gpu' ? TORCHRUN_VERSIONS : TORCHRUN_TRAINIUM_VERSIONS;
  checkVersion(
    { id: 'E-TORCHRUN', strategy: `torch_distributed on ${kind} instances`, known },
    call,
    problems,
  );
}

function checkDataParallel(strategy: string, call: DistributedCall, problems: ProblemList): void {
  if (!call.version || call.base === 'mxnet') return;
  checkVersion({ id: 'E-SMDDP', strategy, known: DATA_PARALLEL_VERSIONS[call.base] }, call, problems);
  checkPython('E-SMDDP', call, problems);
}

/** Hosts and images on which AWS does not start its libraries by mpirun. */
function checkLibraryHosts({ distribution, types, imageUri }: DistributedCall, problems: ProblemList): void {
  if (distribution.torch_distributed?.enabled) return;
  const type = types.find((name) => name.includes('p5.48xlarge'));
  if (type !== undefined) {
    problems.refuseOnAws({
      id: 'E-P5',
      field: 'instanceType',
      value: type,
      rule: 'AWS starts neither smdistributed nor pytorchddp on ml.p5.48xlarge, unless torch_distributed is enabled.',
      nextStep: 'Use torch_distributed there.',
    });
  }
  if (imageUri?.includes('2.0.1-gpu-py310-cu121')) {
    problems.refuseOnAws({
      id: 'E-CUDA12',
      field: 'imageUri',
      value: imageUri,
      rule: 'AWS starts neither smdistributed nor pytorchddp in this CUDA 12 image, unless torch_distributed is enabled.',
      nextStep: 'Use torch_distributed there.',
    });
  }
}

function checkMirrored(call: DistributedCall, problems: ProblemList): void {
  const { framework, distribution, statedVersion: version } = call;
  if (!distribution.multi_worker_mirrored_strategy?.enabled) return;
  const problem = {
    field: 'distribution.multi_worker_mirrored_strategy',
    value: distribution.multi_worker_mirrored_strategy,
  };
  if (framework !== 'tensorflow') {
    problems.refuse({
      ...problem,
      id: 'E-MWMS-FW',
      rule: 'It is a strategy of TensorFlow.',
      nextStep: 'Use the TensorFlow estimator, or torch_distributed.',
    });
  } else if (version && compareVersions(version.value, MIRRORED_SINCE) < 0) {
    problems.refuseOnAws({
      id: 'E-MWMS-VER',
      field: version.field,
      value: version.value,
      rule: `AWS offers multi_worker_mirrored_strategy from TensorFlow ${MIRRORED_SINCE}.`,
      nextStep: 'For AWS choose a newer version.',
    });
  }
  const others = (['smdistributed', 'parameter_server'] as const).filter((name) => distribution[name]);
  if (others.length > 0) {
    problems.refuse({
      ...problem,
      id: 'E-MWMS-MIX',
      rule: `It cannot be combined with ${others.join(' and ')}, not even with a disabled one.`,
      nextStep: `Remove ${others.join(' and ')}.`,
    });
  }
}

function checkMXNet({ statedVersion: version, distribution }: DistributedCall, problems: ProblemList): void {
  if (!version || compareVersions(version.value, MXNET_DISTRIBUTION_SINCE) >= 0) return;
  problems.refuseOnAws({
    id: 'E-MX-DIST',
    field: 'distribution',
    value: distribution,
    rule: `AWS offers it from MXNet ${MXNET_DISTRIBUTION_SINCE}, and frameworkVersion is ${version.value}.`,
    nextStep: 'For AWS choose a newer version.',
  });
}

function warnOfServersOnGpus(type: string, { distribution }: DistributedCall, problems: ProblemList): void {
  const hasSeveral = /^ml\.p/.test(type) && type !== 'ml.p2.xlarge' && type !== 'ml.p3.2xlarge';
  if (!distribution.parameter_server?.enabled || !(hasSeveral || type === 'local_gpu')) return;
  problems.warn({
    id: 'W-PS-GPUS',
    field: 'distribution.parameter_server',
    value: distribution.parameter_server,
    rule: `Parameter servers run one worker per host, and ${type} has several GPUs.`,
    nextStep: 'Use mpi with processes_per_host, or instances with one GPU.',
  });
}

/** `2.8` counts as its newest patch except in strict mode, where AWS's lists are compared letter by letter. */
function checkVersion(
  rule: { id: Problem['id']; strategy: string; known: readonly string[] },
  { version, images }: DistributedCall,
  problems: ProblemList,
): void {
  if (!version || rule.known.includes(version.value)) return;
  const isShort = /^\d+\.\d+$/.test(version.value);
  const resolved = isShort ? findImages(images, version.value)[0]?.version : undefined;
  if (!problems.strict && resolved !== undefined && rule.known.includes(resolved)) return;
  problems.refuseOnAws({
    id: rule.id,
    field: version.field,
    value: version.value,
    rule: `AWS offers ${rule.strategy} with ${rule.known.join(', ')}.`,
    nextStep: 'For AWS choose one of these, or pass imageUri.',
  });
}

function checkPython(id: Problem['id'], { pyVersion }: DistributedCall, problems: ProblemList): void {
  if (pyVersion === null || pyVersion.includes('py3')) return;
  problems.refuseOnAws({
    id,
    field: 'pyVersion',
    value: pyVersion,
    rule: 'AWS starts distributed training with python 3 only.',
    nextStep: 'Choose e.g. py312.',
  });
}
