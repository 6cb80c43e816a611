import type { AccessCredentials, HostPlan, RuntimePlan } from '@trainyard/api';
import type { HostMount } from '../executors/executor.ts';
import type { JobSpec } from './spec.ts';
import { HOMOGENEOUS_GROUP, hostNames } from './spec.ts';

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
  return hosts.map((host) => ({
    planVersion: 1,
    jobName: spec.name,
    jobArn: context.arn,
    attempt: context.attempt,
    host,
    hosts,
    instanceType: spec.instanceType,
    groupName: HOMOGENEOUS_GROUP,
    instanceGroups: [{ name: HOMOGENEOUS_GROUP, instanceType: spec.instanceType, hosts }],
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
    channels: spec.channels.map((channel) => ({
      name: channel.name,
      source:
        channel.source.kind === 's3'
          ? channel.source
          : {
              kind: 'mounted',
              directory: `/opt/ml/input/data/${channel.name}`,
              readOnly: channel.source.readOnly,
            },
      inputMode: 'File',
      contentType: channel.contentType,
      compression: channel.compression,
      recordWrapper: channel.recordWrapper,
    })),
    outputS3Uri: spec.outputS3Uri,
    outputCompression: spec.outputCompression,
    checkpoint: spec.checkpoint,
    maxRuntimeMs: context.maxRuntimeMs,
    stopGraceMs: STOP_GRACE_MS,
    runtime: context.runtime,
    request: context.request,
  }));
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
