import type { InstanceGroup as ApiInstanceGroup } from '@trainyard/api';
import type { AnyDistribution } from './distribution/distribution.ts';
import { instanceKind } from './instance-types.ts';
import type { ProblemList } from './problem.ts';

/** Hosts of one type in a job that has several. */
export interface InstanceGroup {
  /** 1 to 64 letters, digits, dots, hyphens and underscores. */
  instanceGroupName: string;
  instanceType: string;
  instanceCount: number;
}

const MAX_GROUPS = 5;

/** As CreateTrainingJob names them. */
export const instanceGroupMembers = (groups: readonly InstanceGroup[]): ApiInstanceGroup[] =>
  groups.map((group) => ({
    InstanceGroupName: group.instanceGroupName,
    InstanceType: group.instanceType,
    InstanceCount: group.instanceCount,
  }));

/** The rules that need no distribution: 1 to 5 groups with different names, each with a type and a number of hosts. */
export function checkInstanceGroups(groups: readonly InstanceGroup[], problems: ProblemList): void {
  if (groups.length === 0 || groups.length > MAX_GROUPS) {
    problems.refuse({
      id: 'E-GROUPS',
      field: 'instanceGroups',
      value: groups.length,
      rule: `A job has 1 to ${MAX_GROUPS} groups of hosts (a limit of the API).`,
      nextStep: 'Correct the list, or use instanceType and instanceCount.',
    });
  }
  for (const [index, { instanceGroupName, instanceCount }] of groups.entries()) {
    const field = `instanceGroups[${index}]`;
    if (groups.findIndex((group) => group.instanceGroupName === instanceGroupName) !== index) {
      problems.refuse({
        id: 'E-GROUPS',
        field: `${field}.instanceGroupName`,
        value: instanceGroupName,
        rule: 'Another group has this name.',
        nextStep: 'Give each group its own.',
      });
    }
    if (!(Number.isInteger(instanceCount) && instanceCount >= 1)) {
      problems.refuse({
        id: 'E-COUNT',
        field: `${field}.instanceCount`,
        value: instanceCount,
        rule: 'A group has a whole number of hosts, at least 1.',
        nextStep: 'Correct the number.',
      });
    }
  }
}

/** AWS takes the image of the first group with GPUs, else of the first group. */
export function imageTypeOf(groups: readonly InstanceGroup[]): string | undefined {
  const withGpu = groups.find(({ instanceType }) => instanceKind(instanceType) === 'gpu');
  return (withGpu ?? groups[0])?.instanceType;
}

/**
 * The groups that the distribution starts on, as AWS's SDK finds them: those that it names, else the only one.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/fw_utils.py (`validate_distribution`)
 * @returns null without groups, or when a problem was added.
 */
export function chosenGroups(
  { instance_groups: chosen = [] }: AnyDistribution,
  groups: readonly InstanceGroup[] | undefined,
  problems: ProblemList,
): readonly InstanceGroup[] | null {
  const names = (chosen as readonly (InstanceGroup | string)[]).map((group) =>
    typeof group === 'string' ? group : group.instanceGroupName,
  );
  const field = 'distribution.instance_groups';
  const refuse = (
    id: 'E-IG-NONE' | 'E-IG-OVER' | 'E-IG-ONE' | 'E-IG-BAD',
    rule: string,
    nextStep: string,
  ) => {
    problems.refuse({ id, field, value: names.join(', '), rule, nextStep });
    return null;
  };
  if (!groups) {
    if (names.length === 0) return null;
    return refuse('E-IG-NONE', 'The estimator has no groups.', 'Give it instanceGroups, or remove this.');
  }
  if (names.length > groups.length) {
    return refuse('E-IG-OVER', `The estimator has ${groups.length}.`, 'Name one of them.');
  }
  if (groups.length === 1 && names.length === 0) return groups;
  if (groups.length > 1 && names.length !== 1) {
    const known = groups.map((group) => group.instanceGroupName).join(', ');
    return refuse('E-IG-ONE', `A distribution runs on exactly one of ${known}.`, 'Name it.');
  }
  const found = names.map((name) => groups.find((group) => group.instanceGroupName === name));
  if (found.every((group) => group !== undefined)) return found;
  return refuse(
    'E-IG-BAD',
    `The estimator's groups are ${groups.map((group) => group.instanceGroupName).join(', ')}.`,
    'Name one of them.',
  );
}
