import type { Distribution, LaunchPlan } from '../distribution.ts';
import { instanceKind } from '../instance-types.ts';
import type { ProblemList } from '../problem.ts';
import type { ProblemId } from '../problem-catalogue.ts';
import { findImageVersion } from './pytorch-image.ts';
import { PYTORCHDDP_VERSIONS, TORCHRUN_TRAINIUM_VERSIONS, TORCHRUN_VERSIONS } from './pytorch-versions.ts';

export interface PyTorchLaunch {
  distribution: Distribution;
  plan: LaunchPlan;
  entryPoint: string;
  /** Null when the user gave none: outside AWS it then stands for any machine. */
  instanceType: string | null;
  /** Both null when `imageUri` replaces them: AWS's SDK then leaves version checks out. */
  frameworkVersion: string | null;
  pyVersion: string | null;
  imageUri: string | null;
}

/**
 * The rules that AWS's SDK has for PyTorch distributions. Most of them are about AWS's hardware and images, so they
 * refuse on AWS and in strict mode and warn elsewhere.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/fw_utils.py (`validate_distribution`)
 */
export function checkPyTorchLaunch(launch: PyTorchLaunch, problems: ProblemList): void {
  checkTrainium(launch, problems);
  if (launch.plan.launcher === 'torchrun') checkTorchrun(launch, problems);
  if (launch.plan.hasDataParallelFlag) checkPyTorchDdp(launch, problems);
}

function checkTrainium({ distribution, instanceType }: PyTorchLaunch, problems: ProblemList): void {
  const strategies = Object.keys(distribution);
  if (instanceType === null || instanceKind(instanceType) !== 'trainium' || strategies.length === 0) return;
  if (strategies.length > 1 || strategies[0] !== 'torch_distributed') {
    problems.refuseOnAws({
      id: strategies.length > 1 ? 'E-TRN-MULTI' : 'E-TRN-STRATEGY',
      field: 'distribution',
      value: strategies.join(', '),
      rule: `On AWS ${instanceType} takes exactly one strategy, torch_distributed.`,
      nextStep: 'Use { torch_distributed: { enabled: true } } there.',
    });
  }
}

function checkTorchrun(launch: PyTorchLaunch, problems: ProblemList): void {
  const { instanceType, frameworkVersion, entryPoint } = launch;
  if (entryPoint && !entryPoint.endsWith('.py')) {
    problems.refuse({
      id: 'E-TORCHRUN',
      field: 'entryPoint',
      value: entryPoint,
      rule: 'torch_distributed starts python programs (*.py) only.',
      nextStep: 'Name a .py file, or start torchrun inside your own script without a distribution.',
    });
  }
  if (frameworkVersion === null || instanceType === null) return;
  checkPython('E-TORCHRUN', launch, problems);
  const kind = instanceKind(instanceType);
  if (kind === 'cpu') {
    problems.refuseOnAws({
      id: 'E-TORCHRUN',
      field: 'instanceType',
      value: instanceType,
      rule: 'AWS supports torch_distributed on GPU and Trainium instances only.',
      nextStep: 'For AWS choose such a type, or distribution.mpi.',
    });
    return;
  }
  const list = kind === 'gpu' ? TORCHRUN_VERSIONS : TORCHRUN_TRAINIUM_VERSIONS;
  checkVersion(
    { id: 'E-TORCHRUN', strategy: `torch_distributed on ${kind} instances`, list },
    frameworkVersion,
    problems,
  );
}

function checkPyTorchDdp(launch: PyTorchLaunch, problems: ProblemList): void {
  const { plan, instanceType, frameworkVersion, imageUri } = launch;
  if (plan.launcher !== 'torchrun' && instanceType?.includes('p5.48xlarge')) {
    problems.refuseOnAws({
      id: 'E-P5',
      field: 'instanceType',
      value: instanceType,
      rule: 'AWS does not start pytorchddp on ml.p5.48xlarge.',
      nextStep: 'Use torch_distributed there.',
    });
  }
  if (plan.launcher !== 'torchrun' && imageUri?.includes('2.0.1-gpu-py310-cu121')) {
    problems.refuseOnAws({
      id: 'E-CUDA12',
      field: 'imageUri',
      value: imageUri,
      rule: 'AWS does not start pytorchddp in this CUDA 12 image.',
      nextStep: 'Use torch_distributed there.',
    });
  }
  if (plan.launcher !== 'pytorchddp' || frameworkVersion === null) return;
  checkPython('E-SMDDP', launch, problems);
  checkVersion(
    { id: 'E-SMDDP', strategy: 'pytorchddp', list: PYTORCHDDP_VERSIONS },
    frameworkVersion,
    problems,
  );
}

/** `2.8` counts as its newest patch except in strict mode, where AWS's lists are compared letter by letter. */
function checkVersion(
  rule: { id: ProblemId; strategy: string; list: readonly string[] },
  frameworkVersion: string,
  problems: ProblemList,
): void {
  if (rule.list.includes(frameworkVersion)) return;
  const resolved = /^\d+\.\d+$/.test(frameworkVersion)
    ? findImageVersion(frameworkVersion)?.version
    : undefined;
  if (!problems.strict && resolved !== undefined && rule.list.includes(resolved)) return;
  problems.refuseOnAws({
    id: rule.id,
    field: 'frameworkVersion',
    value: frameworkVersion,
    rule: `AWS offers ${rule.strategy} with ${rule.list.join(', ')}.`,
    nextStep: 'For AWS choose one of these, or pass imageUri.',
  });
}

function checkPython(id: ProblemId, { pyVersion }: PyTorchLaunch, problems: ProblemList): void {
  if (pyVersion === null || pyVersion.includes('py3')) return;
  problems.refuseOnAws({
    id,
    field: 'pyVersion',
    value: pyVersion,
    rule: 'AWS starts distributed PyTorch with python 3 only.',
    nextStep: 'Choose e.g. py312.',
  });
}
