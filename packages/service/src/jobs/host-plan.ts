import type { AccessCredentials, ChannelPlan, HostPlan, RuntimePlan } from '@trainyard/api';
import type { HostMount } from '../executors/executor.ts';
import type { ChannelSpec, JobSpec } from './spec.ts';
import { hostNames, hostsOfGroups } from './spec.ts';

/** SIGTERM to SIGKILL on a stop, as on AWS. */
export const STOP_GRACE_MS = 120_000;

export interface PlanContext {
  arn: string;
  attempt: number;
  region: string;
  accountId: string;
  /** `eth0` where hosts have an address of their own. */
  networkInterfaceName: string;
  runtime: RuntimePlan;
  agentCredentials: AccessCredentials;
  scriptCredentials: AccessCredentials | null;
  /** Left of MaxRuntimeInSeconds after earlier attempts. */
  maxRuntimeMs: number;
  request: Record<string, unknown>;
}

/**
 * The plans of all hosts of an attempt. Every host gets the same sorted list of hosts, so that ranks agree.
 * The endpoints are filled in when the host registers: only the host knows under which address it reached us.
 */
export function hostPlans(spec: JobSpec, context: PlanContext): HostPlan[] {
  const hosts = hostNames(spec.instanceCount);
  const groups = hostsOfGroups(spec.instanceGroups);
  const groupOf = (host: string): (typeof groups)[number] =>
    groups.find((group) => group.hosts.includes(host))!;
  return hosts.map((host) => ({
    planVersion: 1,
    jobName: spec.name,
    jobArn: context.arn,
    attempt: context.attempt,
    host,
    hosts,
    instanceType: groupOf(host).instanceType,
    groupName: groupOf(host).name,
    instanceGroups: groups.map((group) => ({
      name: group.name,
      instanceType: group.instanceType,
      hosts: group.hosts,
    })),
    networkInterfaceName: context.networkInterfaceName,
    region: context.region,
    accountId: context.accountId,
    endpointUrl: '',
    s3EndpointUrl: '',
    agentCredentials: context.agentCredentials,
    scriptCredentials: context.scriptCredentials,
    networkIsolated: spec.networkIsolated,
    image: spec.image,
    containerEntrypoint: spec.containerEntrypoint,
    containerArguments: spec.containerArguments,
    frameworkModule: spec.frameworkModule,
    hyperParameters: spec.hyperParameters,
    environment: spec.environment,
    channels: spec.channels.flatMap((channel) => channelPlan(channel, groupOf(host).name, groups)),
    outputS3Uri: spec.outputS3Uri,
    outputCompression: spec.outputCompression,
    checkpoint: spec.checkpoint,
    maxRuntimeMs: context.maxRuntimeMs,
    stopGraceMs: STOP_GRACE_MS,
    runtime: context.runtime,
    request: context.request,
  }));
}

/** Empty for a host whose group the channel is not for. */
function channelPlan(
  channel: ChannelSpec,
  group: string,
  groups: readonly { name: string; hosts: string[] }[],
): ChannelPlan[] {
  const { name, source, contentType, compression, recordWrapper } = channel;
  const plan = (planned: ChannelPlan['source']): ChannelPlan[] => [
    { name, source: planned, inputMode: 'File', contentType, compression, recordWrapper },
  ];
  if (source.kind === 'file_system') {
    return plan({ kind: 'mounted', directory: `/opt/ml/input/data/${name}`, readOnly: source.readOnly });
  }
  const { instanceGroups, ...s3 } = source;
  if (instanceGroups === null) return plan(s3);
  if (!instanceGroups.includes(group)) return [];
  const sharing = groups.filter((each) => instanceGroups.includes(each.name));
  return plan({ ...s3, shardHosts: sharing.flatMap((each) => each.hosts).sort() });
}

/** Registered folders that the executor puts at the channels' places. */
export function hostMounts(spec: JobSpec, fileSystemPath: (id: string) => string | null): HostMount[] {
  return spec.channels.flatMap((channel): HostMount[] => {
    if (channel.source.kind !== 'file_system') return [];
    const root = fileSystemPath(channel.source.fileSystemId);
    if (root === null)
      throw new Error(`File system ${channel.source.fileSystemId} of channel ${channel.name} is gone`);
    const { subdirectory, readOnly } = channel.source;
    return [
      {
        source: subdirectory === '' ? root : `${root}/${subdirectory}`,
        target: `/opt/ml/input/data/${channel.name}`,
        readOnly,
      },
    ];
  });
}
