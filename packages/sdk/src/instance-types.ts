/**
 * What AWS's SDK reads out of an instance type when it chooses an image or checks a distribution.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/fw_utils.py
 */
export type InstanceKind = 'gpu' | 'trainium' | 'cpu';

/** `p4d` of `ml.p4d.24xlarge` or `ml_p4d`; null for any other form. */
export function instanceFamily(instanceType: string): string | null {
  return /^ml[._]([a-z\d-]+)\.?\w*$/.exec(instanceType)?.[1] ?? null;
}

export function instanceKind(instanceType: string): InstanceKind {
  const family = instanceFamily(instanceType) ?? '';
  if (/^[pg]/.test(family)) return 'gpu';
  if (family.startsWith('trn')) return 'trainium';
  return 'cpu';
}

/**
 * The label that stands for "this machine" when no instance type is given, and for the types of SageMaker's local
 * mode. Outside AWS a type says nothing about the hardware a job gets.
 */
export const DEFAULT_INSTANCE_TYPE = 'ml.m5.xlarge';
export const LOCAL_MODE_TYPES: Readonly<Record<string, string>> = {
  local: DEFAULT_INSTANCE_TYPE,
  local_gpu: 'ml.g5.xlarge',
};
