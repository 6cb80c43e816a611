import type { PythonValue } from '@trainyard/api';
import { compareVersions } from '../images/image-table.ts';
import { instanceFamily } from '../instance-types.ts';
import type { ProblemList } from '../problem.ts';
import type { DistributedCall } from './distribution-rules.ts';

/** AWS's Training Compiler: a compiler for the graphs of models, in images of its own. Elsewhere it has no effect. */
export interface TrainingCompilerConfig {
  /** @default true */
  enabled?: boolean;
  /**
   * Write detailed logs.
   * @default false
   */
  debug?: boolean;
}

const FAMILIES = ['p3', 'p3dn', 'g4dn', 'p4d', 'g5'];
/** From these versions on torch-xla alone starts the ranks. */
const XLA_SINCE: Readonly<Record<string, string>> = { pytorch: '1.12', huggingface: '1.11' };

export function compilerFlags(config: TrainingCompilerConfig | undefined): Record<string, PythonValue> {
  if (!config) return {};
  return {
    sagemaker_training_compiler_enabled: config.enabled ?? true,
    sagemaker_training_compiler_debug_mode: config.debug ?? false,
  };
}

/**
 * What AWS's SDK demands of a job with the Training Compiler, and of `pytorchxla`, which needs it.
 * https://github.com/aws/sagemaker-python-sdk/tree/v2.257.6/src/sagemaker/training_compiler
 */
export function checkCompiler(
  config: TrainingCompilerConfig | undefined,
  call: DistributedCall & { hasGroups: boolean },
  problems: ProblemList,
): void {
  const { distribution, framework, version, base } = call;
  const { pytorchxla } = distribution;
  if (!config) {
    if (!pytorchxla || framework === 'tensorflow' || framework === 'mxnet') return;
    problems.refuse({
      id: 'E-XLA',
      field: 'distribution.pytorchxla',
      value: pytorchxla,
      rule: 'It needs the Training Compiler.',
      nextStep: 'Add compilerConfig, or use torch_distributed.',
    });
    return;
  }
  if (!problems.onAws) {
    problems.warn({
      id: 'W-COMPILER',
      field: 'compilerConfig',
      value: config,
      rule: 'Only AWS has the Training Compiler: elsewhere the script runs without it.',
      nextStep: 'Remove it, or call torch.compile in the script.',
    });
  }
  const refuse = (field: string, value: unknown, rule: string, nextStep: string): void =>
    problems.refuseOnAws({ id: 'E-COMPILER', field, value, rule, nextStep });
  for (const type of call.targetTypes) {
    const family = instanceFamily(type);
    if (family !== null && FAMILIES.includes(family)) continue;
    refuse(
      'instanceType',
      type,
      `The Training Compiler runs on ${FAMILIES.join(', ')}.`,
      'Choose one of them.',
    );
  }
  if (call.imageUri !== null)
    refuse(
      'imageUri',
      call.imageUri,
      'The Training Compiler has images of its own.',
      'Give versions instead.',
    );
  if (call.hasGroups)
    refuse(
      'instanceGroups',
      call.types,
      'The Training Compiler needs hosts of one type.',
      'Use instanceType.',
    );
  if (distribution.smdistributed)
    refuse(
      'distribution.smdistributed',
      distribution.smdistributed,
      'It cannot be combined with the Training Compiler.',
      'Remove one of them.',
    );
  if (!version) return;
  const { field, value } = version;
  if (base === 'tensorflow' && framework === 'tensorflow') {
    if (compareVersions(value, '2.9') < 0 || compareVersions(value, '2.11') > 0)
      refuse(field, value, 'The Training Compiler takes TensorFlow 2.9 to 2.11.', 'Choose one of these.');
    return;
  }
  const since = XLA_SINCE[framework];
  if (base !== 'pytorch' || since === undefined) return;
  const isNew = compareVersions(value, since) >= 0;
  if (pytorchxla?.enabled && !isNew)
    refuse(field, value, `pytorchxla needs PyTorch ${since}.`, 'Choose a newer version.');
  if (!pytorchxla && isNew && Object.keys(distribution).length > 0)
    refuse(
      'distribution',
      Object.keys(distribution).join(', '),
      `From PyTorch ${since} on pytorchxla is the only strategy with the Training Compiler.`,
      'Use pytorchxla.',
    );
}
