import type {
  CreateTrainingJobRequest,
  DebugHookConfig,
  DebugRuleConfiguration,
  ProfilerRuleConfiguration,
} from '@trainyard/api';
import type { CommonOptions } from './estimator-options.ts';
import type { ProblemList } from './problem.ts';

/** What SageMaker Debugger saves of a training. */
export interface DebuggerHookConfig {
  /** @default the job's output path */
  s3OutputPath?: string;
  /** @default '/opt/ml/output/tensors' */
  containerLocalOutputPath?: string;
  hookParameters?: Readonly<Record<string, string>>;
  collectionConfigs?: readonly { name: string; parameters?: Readonly<Record<string, string>> }[];
}

/** What SageMaker Profiler measures of the hosts. */
export interface ProfilerConfig {
  /** @default the job's output path */
  s3OutputPath?: string;
  /** 100, 200, 500, 1000, 5000 or 60000. */
  systemMonitorIntervalMillis?: number;
  profilingParameters?: Readonly<Record<string, string>>;
  /** @default false */
  disableProfiler?: boolean;
}

export interface TensorBoardOutputConfig {
  s3OutputPath: string;
  /** @default '/opt/ml/output/tensorboard' */
  containerLocalOutputPath?: string;
}

/** A rule as CreateTrainingJob takes it. */
export type DebuggerRule =
  | { debugger: DebugRuleConfiguration; profiler?: never }
  | { profiler: ProfilerRuleConfiguration; debugger?: never };

/** When AWS's SDK sends the hook of the debugger by itself. */
export type HookPolicy = 'always' | 'without-checkpoints' | 'without-checkpoints-on-several-hosts' | 'never';

/** Regions without SageMaker Debugger and Profiler. */
const NO_DEBUGGER: readonly string[] = [
  'us-iso-east-1',
  'us-isob-east-1',
  'ap-southeast-3',
  'ap-southeast-4',
  'eu-south-2',
  'me-central-1',
  'ap-south-2',
  'eu-central-2',
  'us-gov-east-1',
];

type DebuggerOptions = Pick<
  CommonOptions,
  | 'checkpointS3Uri'
  | 'checkpointLocalPath'
  | 'debuggerHookConfig'
  | 'disableProfiler'
  | 'profilerConfig'
  | 'rules'
  | 'tensorBoardOutputConfig'
>;

export interface DebuggerFacts {
  region: string;
  outputPath: string;
  hostCount: number;
  /** Null with instance groups. */
  instanceType: string | null;
  policy: HookPolicy;
}

/** Refuses what contradicts itself, and a debugger where AWS has none. */
export function checkDebugger(options: DebuggerOptions, region: string | null, problems: ProblemList): void {
  const { disableProfiler, profilerConfig, rules = [], debuggerHookConfig } = options;
  if (disableProfiler && profilerConfig && !profilerConfig.disableProfiler) {
    problems.refuse({
      id: 'E-PROFILER',
      field: 'disableProfiler',
      value: true,
      rule: 'profilerConfig asks for the profiler.',
      nextStep: 'Remove one of them.',
    });
  }
  const profilerRule = rules.findIndex((rule) => rule.profiler);
  if (disableProfiler && profilerRule >= 0) {
    problems.refuse({
      id: 'E-PROFILER',
      field: `rules[${profilerRule}]`,
      value: rules[profilerRule],
      rule: 'A rule of the profiler needs it, and disableProfiler is true.',
      nextStep: 'Remove one of them.',
    });
  }
  if (typeof debuggerHookConfig === 'object' && region !== null && NO_DEBUGGER.includes(region)) {
    problems.refuseOnAws({
      id: 'E-DEBUG-REGION',
      field: 'debuggerHookConfig',
      value: region,
      rule: `AWS has no debugger in ${NO_DEBUGGER.join(', ')}.`,
      nextStep: 'Remove it, or choose another region.',
    });
  }
}

/** The members of the request about debugger, profiler and TensorBoard; some are sent even when the user says nothing. */
export function debuggerMembers(
  options: DebuggerOptions,
  facts: DebuggerFacts,
): Pick<
  CreateTrainingJobRequest,
  | 'DebugHookConfig'
  | 'DebugRuleConfigurations'
  | 'ProfilerConfig'
  | 'ProfilerRuleConfigurations'
  | 'TensorBoardOutputConfig'
> {
  const { rules = [], tensorBoardOutputConfig: tensorBoard } = options;
  const debuggerRules = facts.policy === 'never' ? [] : rules.flatMap((rule) => rule.debugger ?? []);
  const profilerRules = rules.flatMap((rule) => rule.profiler ?? []);
  return {
    ...(hasHook(options, facts) && { DebugHookConfig: hookOf(options, facts) }),
    ...(debuggerRules.length > 0 && { DebugRuleConfigurations: debuggerRules }),
    ...(tensorBoard && {
      TensorBoardOutputConfig: {
        S3OutputPath: tensorBoard.s3OutputPath,
        ...(tensorBoard.containerLocalOutputPath !== undefined && {
          LocalPath: tensorBoard.containerLocalOutputPath,
        }),
      },
    }),
    ProfilerConfig: profilerOf(options, facts),
    ...(profilerRules.length > 0 && { ProfilerRuleConfigurations: profilerRules }),
  };
}

function hasHook(options: DebuggerOptions, { region, policy, hostCount }: DebuggerFacts): boolean {
  if (options.debuggerHookConfig === false || policy === 'never' || NO_DEBUGGER.includes(region))
    return false;
  const keepsCheckpoints = options.checkpointS3Uri !== undefined && options.checkpointLocalPath !== undefined;
  if (!keepsCheckpoints || policy === 'always') return true;
  return policy === 'without-checkpoints-on-several-hosts' && hostCount === 1;
}

function hookOf(
  { debuggerHookConfig: given }: DebuggerOptions,
  { outputPath }: DebuggerFacts,
): DebugHookConfig {
  const hook: DebuggerHookConfig = typeof given === 'object' ? given : {};
  const collections = (hook.collectionConfigs ?? []).map(({ name, parameters }) => ({
    CollectionName: name,
    ...(parameters && { CollectionParameters: { ...parameters } }),
  }));
  return {
    S3OutputPath: hook.s3OutputPath ?? outputPath,
    ...(hook.containerLocalOutputPath !== undefined && { LocalPath: hook.containerLocalOutputPath }),
    ...(hook.hookParameters && { HookParameters: { ...hook.hookParameters } }),
    CollectionConfigurations: collections,
  };
}

function profilerOf(
  options: DebuggerOptions,
  { region, instanceType, outputPath }: DebuggerFacts,
): CreateTrainingJobRequest['ProfilerConfig'] {
  const { profilerConfig: given, disableProfiler } = options;
  const isOff = disableProfiler || NO_DEBUGGER.includes(region) || instanceType?.startsWith('ml.trn');
  if (!given && isOff) return { DisableProfiler: true };
  return {
    S3OutputPath: given?.s3OutputPath ?? outputPath,
    ...(given?.systemMonitorIntervalMillis !== undefined && {
      ProfilingIntervalInMilliseconds: given.systemMonitorIntervalMillis,
    }),
    ...(given?.profilingParameters && { ProfilingParameters: { ...given.profilingParameters } }),
    DisableProfiler: given?.disableProfiler ?? false,
  };
}
