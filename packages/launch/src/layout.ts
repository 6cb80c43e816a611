import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { InputDataConfigEntry, ResourceConfigFile } from '@trainyard/api';
import { channelPath, ML_PATHS, ML_ROOT } from '@trainyard/api';
import type { AttemptPlan } from './plan.ts';

/** Absolute paths of the instance contract on this host. */
export class Layout {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  /** Path of a member of the tree. */
  of(name: keyof typeof ML_PATHS): string {
    return join(this.root, ML_PATHS[name]);
  }

  channel(name: string): string {
    return join(this.root, channelPath(name));
  }

  /** A path that a request spells below `/opt/ml`, where this host has it. Other paths stay as they are. */
  localise(path: string): string {
    const inside = path === ML_ROOT || path.startsWith(`${ML_ROOT}/`);
    return inside ? join(this.root, path.slice(ML_ROOT.length)) : path;
  }
}

const DIRECTORIES = ['inputConfig', 'inputData', 'code', 'model', 'outputData'] as const;

/** Makes the tree and its configuration files. May be repeated. */
export async function writeLayout(plan: AttemptPlan, layout: Layout): Promise<void> {
  const directories = DIRECTORIES.map((name) => layout.of(name));
  const channels = plan.channels.map(({ name }) => layout.channel(name));
  await Promise.all([...directories, ...channels].map((path) => mkdir(path, { recursive: true })));
  const files = Object.entries(configFiles(plan, layout));
  await Promise.all(
    files.map(([name, content]) =>
      writeFile(layout.of(name as keyof typeof ML_PATHS), JSON.stringify(content, null, 1)),
    ),
  );
}

export function resourceConfig(plan: AttemptPlan): ResourceConfigFile {
  return {
    current_host: plan.host,
    current_instance_type: plan.instanceType,
    current_group_name: plan.groupName,
    hosts: plan.hosts,
    instance_groups: plan.instanceGroups.map((group) => ({
      instance_group_name: group.name,
      instance_type: group.instanceType,
      hosts: group.hosts,
    })),
    network_interface_name: plan.networkInterfaceName,
  };
}

export function inputDataConfig(plan: AttemptPlan): Record<string, InputDataConfigEntry> {
  return Object.fromEntries(
    plan.channels.map((channel) => [
      channel.name,
      {
        ...(channel.contentType === null ? {} : { ContentType: channel.contentType }),
        TrainingInputMode: channel.inputMode,
        // File systems report FullyReplicated: every host sees all of it.
        S3DistributionType: channel.source.kind === 's3' ? channel.source.distribution : 'FullyReplicated',
        RecordWrapperType: channel.recordWrapper,
      },
    ]),
  );
}

/** Content of the files below `input/config`. The first four are the contract, the rest what AWS was seen to write. */
function configFiles(plan: AttemptPlan, layout: Layout): Partial<Record<keyof typeof ML_PATHS, unknown>> {
  const request = plan.request as {
    AlgorithmSpecification?: { MetricDefinitions?: { Name: string; Regex: string }[] };
  };
  return {
    hyperParameters: plan.hyperParameters,
    // AWS's own comments call the group `current_instance_group`, its code reads `current_group_name`.
    resourceConfig: { ...resourceConfig(plan), current_instance_group: plan.groupName },
    inputDataConfig: inputDataConfig(plan),
    checkpointConfig: plan.checkpoint ? { LocalPath: layout.localise(plan.checkpoint.localPath) } : {},
    trainingJobConfig: { ...plan.request, TrainingJobArn: plan.jobArn },
    initConfig: initConfig(plan),
    metricDefinitionRegex: request.AlgorithmSpecification?.MetricDefinitions ?? [],
    upstreamOutputDataConfig: [],
  };
}

function initConfig(plan: AttemptPlan): unknown {
  const channels = plan.channels.map((channel) => {
    const { source } = channel;
    const s3DataSource =
      source.kind === 's3'
        ? {
            s3DataType: source.dataType === 'S3Prefix' ? 'S3_PREFIX' : 'MANIFEST_FILE',
            s3Uri: source.uri,
            s3DataDistributionType:
              source.distribution === 'FullyReplicated' ? 'FULLY_REPLICATED' : 'SHARDED_BY_S3_KEY',
            attributeNames: null,
          }
        : null;
    const entry = {
      s3DataSource,
      fileSystemDataSource: source.kind === 'mounted' ? { directoryPath: source.directory } : null,
      compressionType: channel.compression.toUpperCase(),
      recordWrapper: channel.recordWrapper.toUpperCase(),
      shuffleConfig: null,
      inputMode: channel.inputMode.toUpperCase(),
      sharded: source.kind === 's3' && source.distribution === 'ShardedByS3Key',
    };
    return [channel.name, entry] as const;
  });
  return {
    inputMode: 'FILE',
    channels: Object.fromEntries(channels),
    checkpointChannel: plan.checkpoint
      ? { name: 'checkpoints', outputPath: plan.checkpoint.s3Uri, allowEmpty: true }
      : null,
    hostConfig: { clusterSize: plan.hosts.length, hostNumber: plan.hosts.indexOf(plan.host) },
    jobRunInfo: { jobRunNumber: plan.attempt },
  };
}
