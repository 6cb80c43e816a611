import { createHash } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import type {
  CreateTrainingJobRequest,
  CreateTrainingJobResponse,
  DeleteTagsInput,
  DescribeTrainingJobResponse,
  ListTagsInput,
  ListTrainingJobsRequest,
  ListTrainingJobsResponse,
  MetricData,
  Tag,
} from '@trainyard/api';
import {
  instanceLimitExceeded,
  jsonError,
  parseArn,
  parseS3Uri,
  trainingJobArn,
  trainingJobEnded,
  trainingJobNameTaken,
  trainingJobNotFound,
} from '@trainyard/api';
import type { HostStore } from '../store/host-store.ts';
import type { Job, JobStore, ListQuery, Transition } from '../store/job-store.ts';
import { isTerminal } from './lifecycle.ts';
import { ignoredNotices } from './members.ts';
import type { RuleContext } from './rules.ts';
import { checkRules } from './rules.ts';
import { compileJobSpec, instanceTypes } from './spec.ts';

const MAX_TAGS = 50;
const RELEASE_PATIENCE_MS = 10_000;
const RELEASE_LOOK_MS = 50;
const DEFAULT_PAGE = 10;

/** What the commands need of the world. */
export interface CommandDeps extends RuleContext {
  jobs: JobStore;
  hosts: HostStore;
  hostLimit: number;
  region: string;
  accountId: string;
  /** Buckets and objects that a request names, in the embedded store or an external one. */
  objects: {
    bucketExists(bucket: string): Promise<boolean>;
    /** Whether any key starts with the prefix. */
    anyObject(bucket: string, prefix: string): Promise<boolean>;
  };
  /** Whether a registered folder still is one. */
  folderExists: (path: string) => Promise<boolean>;
  finalMetrics: (job: string) => { name: string; value: number; at: number }[];
  /** A job was made or changed: wakes the reconcile loop and watchers. */
  changed: (job: string) => void;
}

/** SageMaker's training calls over the store. Inputs have passed the published constraints. */
export class JobCommands {
  readonly #deps: CommandDeps;

  constructor(deps: CommandDeps) {
    this.#deps = deps;
  }

  /**
   * Accepts a job. It is stored, with its first transition, before this returns.
   *
   * @throws ServiceError ValidationException with every problem found, ResourceInUse, ResourceLimitExceeded
   */
  async createTrainingJob(request: CreateTrainingJobRequest): Promise<CreateTrainingJobResponse> {
    const { jobs, hosts, hostLimit } = this.#deps;
    const arn = trainingJobArn(
      { region: this.#deps.region, accountId: this.#deps.accountId },
      request.TrainingJobName,
    );
    const { problems, runtime } = checkRules(request, this.#deps);
    if (problems.length === 0) problems.push(...(await this.#missingData(request)));
    if (problems.length > 0 || runtime === null) {
      throw jsonError('ValidationException', { message: problems.join(' '), problems });
    }
    if (jobs.get(request.TrainingJobName)) throw trainingJobNameTaken(arn);
    const spec = compileJobSpec(request, runtime);
    if (spec.instanceCount > hostLimit) {
      const inUse = jobs
        .open()
        .filter((job) => job.stage !== 'queued')
        .reduce((sum, job) => sum + job.spec.instanceCount, 0);
      throw instanceLimitExceeded(instanceTypes(spec), hostLimit, inUse, spec.instanceCount);
    }
    if (!jobs.insert({ arn, request, spec, tags: request.Tags ?? [] })) throw trainingJobNameTaken(arn);
    for (const notice of ignoredNotices(request)) hosts.notice(spec.name, 1, null, 'MemberIgnored', notice);
    this.#deps.changed(spec.name);
    return { TrainingJobArn: arn };
  }

  /** AWS looks at inputs when the job is made, so that a typing mistake costs no waiting. */
  async #missingData(request: CreateTrainingJobRequest): Promise<string[]> {
    const { objects, region } = this.#deps;
    const checks = (request.InputDataConfig ?? []).map(async (channel): Promise<string | null> => {
      const s3 = channel.DataSource.S3DataSource;
      if (s3) {
        const { bucket, key } = parseS3Uri(s3.S3Uri);
        if (await objects.anyObject(bucket, key)) return null;
        return (
          `No S3 objects found under S3 URL "${s3.S3Uri}" given in input data source. Please ensure that the bucket ` +
          `exists in the selected region (${region}), that objects exist under that S3 prefix, and that the role ` +
          `"${request.RoleArn}" has "s3:ListBucket" permissions on bucket "${bucket}".`
        );
      }
      const id = channel.DataSource.FileSystemDataSource!.FileSystemId;
      const path = this.#deps.fileSystemPath(id);
      if (path !== null && (await this.#deps.folderExists(path))) return null;
      return `InputDataConfig channel '${channel.ChannelName}': the folder ${path} of file system ${id} does not exist any more; register the folder again.`;
    });
    const buckets: [string, string | undefined][] = [
      ['OutputDataConfig.S3OutputPath', request.OutputDataConfig.S3OutputPath],
      ['CheckpointConfig.S3Uri', request.CheckpointConfig?.S3Uri],
    ];
    checks.push(
      ...buckets.map(async ([member, uri]): Promise<string | null> => {
        if (uri === undefined) return null;
        const { bucket } = parseS3Uri(uri);
        if (await objects.bucketExists(bucket)) return null;
        return `${member} is ${uri}, but there is no bucket "${bucket}"; create it first (aws s3 mb s3://${bucket}).`;
      }),
    );
    return (await Promise.all(checks)).filter((problem) => problem !== null);
  }

  describeTrainingJob(name: string): DescribeTrainingJobResponse {
    const job = this.#deps.jobs.get(name);
    if (!job) throw trainingJobNotFound(name);
    return describe(job, this.#deps.jobs.transitions(name), this.#deps.finalMetrics(name));
  }

  listTrainingJobs(request: ListTrainingJobsRequest): ListTrainingJobsResponse {
    const limit = request.MaxResults ?? DEFAULT_PAGE;
    if (request.TrainingPlanArnEquals || request.WarmPoolStatusEquals) return { TrainingJobSummaries: [] };
    const query: Omit<ListQuery, 'after' | 'limit'> = {
      nameContains: request.NameContains ?? null,
      status: (request.StatusEquals as ListQuery['status']) ?? null,
      createdAfter: request.CreationTimeAfter?.getTime() ?? null,
      createdBefore: request.CreationTimeBefore?.getTime() ?? null,
      modifiedAfter: request.LastModifiedTimeAfter?.getTime() ?? null,
      modifiedBefore: request.LastModifiedTimeBefore?.getTime() ?? null,
      sortBy: (request.SortBy as ListQuery['sortBy']) ?? 'CreationTime',
      ascending: request.SortOrder === 'Ascending',
    };
    const fingerprint = createHash('sha256').update(JSON.stringify(query)).digest('base64url').slice(0, 12);
    const after = request.NextToken === undefined ? null : readToken(request.NextToken, fingerprint);
    const rows = this.#deps.jobs.list({ ...query, after, limit: limit + 1 });
    const page = rows.slice(0, limit);
    const last = page.at(-1);
    const key = last && { Name: last.name, CreationTime: last.createdAt, Status: last.status }[query.sortBy];
    return {
      TrainingJobSummaries: page.map((job) => ({
        TrainingJobName: job.name,
        TrainingJobArn: job.arn,
        CreationTime: new Date(job.createdAt),
        LastModifiedTime: new Date(job.modifiedAt),
        ...(job.trainingEndAt === null ? {} : { TrainingEndTime: new Date(job.trainingEndAt) }),
        TrainingJobStatus: job.status,
        SecondaryStatus: job.secondaryStatus,
      })),
      ...(rows.length > limit && last
        ? { NextToken: Buffer.from(JSON.stringify([fingerprint, key, last.name])).toString('base64url') }
        : {}),
    };
  }

  /** Asks a job to stop; asking again changes nothing. @throws ServiceError when it is unknown or has ended */
  stopTrainingJob(name: string): void {
    const { jobs } = this.#deps;
    for (;;) {
      const job = jobs.get(name);
      if (!job) throw trainingJobNotFound(name);
      if (isTerminal(job.status)) throw trainingJobEnded(name, job.status);
      if (job.status === 'Stopping') return;
      // While hosts already end for another reason the stop is shown, but the first reason decides.
      if (
        jobs.apply(job, { transition: 'stopping', ...(job.endReason === null ? { endReason: 'user' } : {}) })
      )
        break;
    }
    this.#deps.changed(name);
  }

  /**
   * Removes a job that has ended. Its end is shown a moment before its hosts are released, which this waits for.
   *
   * @throws ServiceError ResourceInUse for a job that runs, and when its hosts are not released in time
   */
  async deleteTrainingJob(name: string): Promise<void> {
    for (const deadline = Date.now() + RELEASE_PATIENCE_MS; ; await setTimeout(RELEASE_LOOK_MS)) {
      const job = this.#deps.jobs.get(name);
      if (!job) throw trainingJobNotFound(name);
      if (job.stage === 'done') return this.#deps.jobs.delete(name);
      if (isTerminal(job.status) && Date.now() < deadline) continue;
      throw jsonError('ResourceInUse', {
        message: isTerminal(job.status)
          ? `Training job ${name} is in status ${job.status}, but its hosts are not released yet; try again in a moment.`
          : `Training job ${name} is in status ${job.status}; only Completed, Failed and Stopped jobs can be deleted.`,
        jobName: name,
      });
    }
  }

  addTags(arn: string, tags: Tag[]): Tag[] {
    const job = this.#jobOfArn(arn);
    const keys = new Set([
      ...this.#deps.jobs.tags(job.arn).map((tag) => tag.Key),
      ...tags.map((tag) => tag.Key),
    ]);
    if (keys.size > MAX_TAGS) {
      throw jsonError('ResourceLimitExceeded', {
        message: `Tags would have ${keys.size} keys; a resource may have ${MAX_TAGS}. Delete some first.`,
      });
    }
    this.#deps.jobs.setTags(job.arn, tags);
    return this.#deps.jobs.tags(job.arn);
  }

  listTags(request: ListTagsInput): Tag[] {
    return this.#deps.jobs.tags(this.#jobOfArn(request.ResourceArn).arn);
  }

  deleteTags(request: DeleteTagsInput): void {
    this.#deps.jobs.deleteTags(this.#jobOfArn(request.ResourceArn).arn, request.TagKeys);
  }

  #jobOfArn(arn: string): Job {
    const job = parseArn(arn) ? this.#deps.jobs.getByArn(arn) : null;
    if (!job)
      throw jsonError('ResourceNotFound', {
        message: `ResourceArn is ${arn}; there is no such training job.`,
        arn,
      });
    return job;
  }
}

function readToken(token: string, fingerprint: string): ListQuery['after'] {
  try {
    const value = JSON.parse(Buffer.from(token, 'base64url').toString()) as unknown;
    if (Array.isArray(value) && value.length === 3 && value[0] === fingerprint) {
      return { key: value[1] as string | number, name: String(value[2]) };
    }
  } catch {
    // Not one of ours: refused below.
  }
  throw jsonError('ValidationException', {
    message: 'NextToken was not made by a call with the same filters and order; start again without it.',
  });
}

/** DescribeTrainingJob's answer. Clients rely on members that the model calls optional: KmsKeyId "", StatusMessage… */
export function describe(
  job: Job,
  transitions: Transition[],
  metrics: { name: string; value: number; at: number }[],
): DescribeTrainingJobResponse {
  const { request, spec } = job;
  const { Tags: _tags, SessionChainingConfig: _chaining, ...echo } = request;
  const ended = isTerminal(job.status);
  const seconds = Math.max(1, Math.round(job.usedMs / 1000));
  const finalMetrics: MetricData[] = metrics.map((metric) => ({
    MetricName: metric.name,
    Value: metric.value,
    Timestamp: new Date(metric.at),
  }));
  return {
    ...echo,
    TrainingJobArn: job.arn,
    TrainingJobStatus: job.status,
    SecondaryStatus: job.secondaryStatus,
    ...(job.failureReason === null ? {} : { FailureReason: job.failureReason }),
    ModelArtifacts: {
      S3ModelArtifacts: spec.outputS3Uri + (spec.outputCompression === 'GZIP' ? 'model.tar.gz' : 'model'),
    },
    OutputDataConfig: { ...request.OutputDataConfig, KmsKeyId: request.OutputDataConfig.KmsKeyId ?? '' },
    ResourceConfig: {
      ...request.ResourceConfig!,
      VolumeSizeInGB: request.ResourceConfig!.VolumeSizeInGB ?? 0,
    },
    StoppingCondition: { ...request.StoppingCondition, MaxRuntimeInSeconds: spec.maxRuntimeMs / 1000 },
    CreationTime: new Date(job.createdAt),
    LastModifiedTime: new Date(job.modifiedAt),
    ...(job.trainingStartAt === null ? {} : { TrainingStartTime: new Date(job.trainingStartAt) }),
    ...(job.trainingEndAt === null ? {} : { TrainingEndTime: new Date(job.trainingEndAt) }),
    ...(ended && job.trainingStartAt !== null
      ? { TrainingTimeInSeconds: seconds, BillableTimeInSeconds: seconds }
      : {}),
    EnableNetworkIsolation: request.EnableNetworkIsolation ?? false,
    EnableInterContainerTrafficEncryption: request.EnableInterContainerTrafficEncryption ?? false,
    EnableManagedSpotTraining: request.EnableManagedSpotTraining ?? false,
    SecondaryStatusTransitions: transitions.map((transition) => ({
      Status: transition.status,
      StartTime: new Date(transition.startedAt),
      ...(transition.endedAt === null ? {} : { EndTime: new Date(transition.endedAt) }),
      StatusMessage: transition.message,
    })),
    ...(finalMetrics.length > 0 ? { FinalMetricDataList: finalMetrics } : {}),
  } as DescribeTrainingJobResponse;
}
