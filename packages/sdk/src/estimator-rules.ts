import type { CommonOptions, SourceOptions } from './estimator-options.ts';
import { checkDebugger } from './debugger-options.ts';
import { checkInstanceGroups } from './instance-groups.ts';
import { LOCAL_MODE_TYPES } from './instance-types.ts';
import { JOB_NAME_PATTERN } from './job-name.ts';
import type { ProblemList } from './problem.ts';
import { checkGitConfig } from './source/git-config.ts';

/** Rules that need nothing but the options. The service has its own; these answer before anything is uploaded. */
export function checkOptions(options: CommonOptions & Partial<SourceOptions>, problems: ProblemList): void {
  checkRole(options, problems);
  checkInstances(options, problems);
  checkTimes(options, problems);
  checkPaths(options, problems);
  checkRegistryAccess(options, problems);
  checkDebugger(options, null, problems);
  if (options.gitConfig) checkGit(options, problems);
  if ((options.subnets === undefined) !== (options.securityGroupIds === undefined)) {
    problems.refuse({
      id: 'E-VPC-PAIR',
      field: options.subnets ? 'securityGroupIds' : 'subnets',
      value: undefined,
      rule: 'Subnets and security groups are given together.',
      nextStep: 'Add the missing one, or remove both.',
    });
  }
  const base = options.baseJobName;
  if (base !== undefined && !JOB_NAME_PATTERN.test(base.slice(0, 63).replace(/-+$/, ''))) {
    problems.refuse({
      id: 'E-JOB-NAME',
      field: 'baseJobName',
      value: base,
      rule: 'Job names have letters, digits and single or repeated hyphens between them.',
      nextStep: "Replace other characters, e.g. '_', by '-'.",
    });
  }
}

function checkRole({ role }: CommonOptions, problems: ProblemList): void {
  if (!problems.onAws || role?.startsWith('arn:')) return;
  problems.refuse({
    id: 'E-ROLE',
    field: 'role',
    value: role,
    rule: 'On AWS a job needs the ARN of an IAM role.',
    nextStep: 'Pass role, e.g. arn:aws:iam::123456789012:role/service-role/Training.',
  });
}

function checkInstances(options: CommonOptions, problems: ProblemList): void {
  const { instanceType, instanceCount, instanceGroups } = options;
  if (instanceGroups) {
    checkInstanceGroups(instanceGroups, problems);
    for (const field of ['instanceType', 'instanceCount'] as const) {
      if (options[field] === undefined) continue;
      problems.refuse({
        id: 'E-GROUPS',
        field,
        value: options[field],
        rule: 'With instanceGroups every group has its own type and number of hosts.',
        nextStep: `Remove ${field}, or instanceGroups.`,
      });
    }
    return;
  }
  if (instanceType === undefined && (problems.onAws || problems.strict)) {
    problems.refuse({
      id: 'E-TYPE',
      field: 'instanceType',
      value: undefined,
      rule: 'On AWS a job needs an instance type.',
      nextStep: 'Write e.g. ml.g5.2xlarge.',
    });
  }
  if (instanceType !== undefined && instanceType in LOCAL_MODE_TYPES && problems.onAws) {
    problems.refuse({
      id: 'E-LOCAL-SESSION',
      field: 'instanceType',
      value: instanceType,
      rule: 'It names this machine, but the session goes to AWS.',
      nextStep: "Leave out on: 'aws', or choose a type of AWS.",
    });
  }
  if (instanceCount !== undefined && !(Number.isInteger(instanceCount) && instanceCount >= 1)) {
    problems.refuse({
      id: 'E-COUNT',
      field: 'instanceCount',
      value: instanceCount,
      rule: 'A job has a whole number of hosts, at least 1.',
      nextStep: 'Correct the number.',
    });
  } else if (instanceType === 'local_gpu' && (instanceCount ?? 1) > 1) {
    problems.refuse({
      id: 'E-LOCALGPU-MULTI',
      field: 'instanceCount',
      value: instanceCount,
      rule: 'local_gpu stands for one host that has all GPUs of this machine.',
      nextStep: 'Set instanceCount to 1, or leave instanceType out.',
    });
  }
}

function checkTimes({ maxRun, maxWait, useSpotInstances }: CommonOptions, problems: ProblemList): void {
  for (const [field, value] of Object.entries({ maxRun, maxWait })) {
    if (value === undefined || (Number.isInteger(value) && value >= 1)) continue;
    problems.refuse({
      id: 'E-SECONDS',
      field,
      value,
      rule: 'It is a whole number of seconds, at least 1.',
      nextStep: 'Correct the number.',
    });
  }
  if (useSpotInstances && (maxWait ?? 0) < (maxRun ?? 86_400)) {
    problems.refuse({
      id: 'E-MAX-WAIT',
      field: 'maxWait',
      value: maxWait,
      rule: `With useSpotInstances it covers waiting and running, so it is at least maxRun (${maxRun ?? 86_400} s).`,
      nextStep: 'Raise maxWait or lower maxRun.',
    });
  }
}

/** AWS's SDK leaves the provider out without a mode. */
function checkRegistryAccess(options: CommonOptions, problems: ProblemList): void {
  const { trainingRepositoryAccessMode: mode, trainingRepositoryCredentialsProviderArn: provider } = options;
  if (provider === undefined || mode !== undefined) return;
  problems.warn({
    id: 'W-REGISTRY',
    field: 'trainingRepositoryCredentialsProviderArn',
    value: provider,
    rule: 'Without trainingRepositoryAccessMode it is not sent.',
    nextStep: "Add trainingRepositoryAccessMode: 'Vpc'.",
  });
}

function checkGit({ gitConfig, sourceDir }: Partial<SourceOptions>, problems: ProblemList): void {
  if (gitConfig) checkGitConfig(gitConfig, problems);
  if (!sourceDir?.startsWith('s3://')) return;
  problems.refuse({
    id: 'E-GIT',
    field: 'sourceDir',
    value: sourceDir,
    rule: 'With gitConfig it is a path in the repository.',
    nextStep: 'Remove gitConfig, or give the path.',
  });
}

/** @param isRequired the estimator cannot do without a script */
export function checkSource(
  options: Partial<SourceOptions>,
  isRequired: boolean,
  problems: ProblemList,
): void {
  const { entryPoint, sourceDir } = options;
  if (entryPoint || (!isRequired && sourceDir === undefined && entryPoint === undefined)) return;
  problems.refuse({
    id: 'E-EP-NONE',
    field: 'entryPoint',
    value: entryPoint,
    rule: 'There is code but no script to start.',
    nextStep: 'Name the script: its path in sourceDir, or a local path.',
  });
}

function checkPaths(options: CommonOptions & Partial<SourceOptions>, problems: ProblemList): void {
  const { outputPath, codeLocation, checkpointS3Uri, entryPoint } = options;
  for (const [field, value] of Object.entries({ outputPath, codeLocation, checkpointS3Uri })) {
    if (value === undefined || /^s3:\/\/[^/]/.test(value)) continue;
    problems.refuse({
      id: 'E-FILE-OUTPUT',
      field,
      value,
      rule: 'It is an S3 URI.',
      nextStep: 'Write s3://bucket/prefix; `trainyard download` copies results to this machine.',
    });
  }
  if (entryPoint?.startsWith('s3://')) {
    problems.refuse({
      id: 'E-EP-S3',
      field: 'entryPoint',
      value: entryPoint,
      rule: 'The script is a local path, or a path in sourceDir.',
      nextStep: 'Give sourceDir the s3:// URI of the packed code and entryPoint the path in it.',
    });
  }
  if (options.checkpointLocalPath !== undefined && checkpointS3Uri === undefined) {
    problems.warn({
      id: 'W-CHECKPOINT',
      field: 'checkpointLocalPath',
      value: options.checkpointLocalPath,
      rule: 'Without checkpointS3Uri nothing is copied there or from there.',
      nextStep: 'Add checkpointS3Uri.',
    });
  }
}
