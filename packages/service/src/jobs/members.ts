/**
 * What becomes of every member of a CreateTrainingJob request. Nothing is dropped silently: a member is
 * honoured, accepted and reported as ignored, or refused. `docs/compatibility.md` prints this table and a test
 * holds the two together; another test walks the published model and fails for a member that is missing here.
 *
 * A path covers everything below it unless a longer path is listed. `[]` stands for the elements of a list.
 */
export type MemberTreatment =
  | { treatment: 'honoured'; note: string }
  /** Kept, echoed by DescribeTrainingJob, without effect; the job's description says `note`. */
  | { treatment: 'ignored'; note: string }
  | { treatment: 'refused'; note: string };

const honoured = (note: string): MemberTreatment => ({ treatment: 'honoured', note });
const ignored = (note: string): MemberTreatment => ({ treatment: 'ignored', note });
const refused = (note: string): MemberTreatment => ({ treatment: 'refused', note });

export const MEMBERS: Record<string, MemberTreatment> = {
  TrainingJobName: honoured('unique until deleted'),
  HyperParameters: honoured('hyperparameters.json, SM_HPS, SM_HP_*, command line'),
  AlgorithmSpecification: honoured(''),
  'AlgorithmSpecification.TrainingImage': honoured('mapped to a runtime by the image table'),
  'AlgorithmSpecification.AlgorithmName': refused(
    'algorithms of a registry cannot run here; give TrainingImage',
  ),
  'AlgorithmSpecification.TrainingInputMode': honoured(
    'File; FastFile reads the same files, copied before the start; Pipe is refused',
  ),
  'AlgorithmSpecification.MetricDefinitions': honoured('matched against both streams of every host'),
  'AlgorithmSpecification.EnableSageMakerMetricsTimeSeries': honoured('metrics are always kept as series'),
  'AlgorithmSpecification.ContainerEntrypoint': honoured('run as given in every host'),
  'AlgorithmSpecification.ContainerArguments': honoured('run as given in every host'),
  'AlgorithmSpecification.TrainingImageConfig': ignored(
    'the local executor maps images to runtimes and pulls nothing',
  ),
  RoleArn: honoured('echoed, and given to scripts as their identity; any well-formed ARN is accepted'),
  InputDataConfig: honoured(''),
  'InputDataConfig[].DataSource.S3DataSource': honoured('S3Prefix and ManifestFile'),
  'InputDataConfig[].DataSource.S3DataSource.AttributeNames': refused(
    'only for AugmentedManifestFile, which needs Pipe mode',
  ),
  'InputDataConfig[].DataSource.S3DataSource.InstanceGroupNames': honoured(
    'other groups do not see the channel; objects are dealt over the hosts of the groups named',
  ),
  'InputDataConfig[].DataSource.S3DataSource.ModelAccessConfig': refused('hub models are not supported'),
  'InputDataConfig[].DataSource.S3DataSource.HubAccessConfig': refused('hub models are not supported'),
  'InputDataConfig[].DataSource.FileSystemDataSource': honoured(
    'folders that config.json names or that were registered',
  ),
  'InputDataConfig[].DataSource.DatasetSource': refused('hub data sets are not supported'),
  'InputDataConfig[].ContentType': honoured('inputdataconfig.json'),
  'InputDataConfig[].CompressionType': honoured('None; Gzip is refused, as on AWS outside Pipe mode'),
  'InputDataConfig[].RecordWrapperType': honoured('None; RecordIO is refused, as on AWS outside Pipe mode'),
  'InputDataConfig[].InputMode': honoured('as TrainingInputMode'),
  'InputDataConfig[].ShuffleConfig': ignored('in File mode it changes only the order of download'),
  OutputDataConfig: honoured(''),
  'OutputDataConfig.KmsKeyId': ignored('the embedded store does not encrypt; use an encrypted disk'),
  ResourceConfig: honoured(''),
  'ResourceConfig.InstanceType': honoured('a label on the local executor; what differs is reported'),
  'ResourceConfig.InstanceCount': honoured('one host each, all or none'),
  'ResourceConfig.VolumeSizeInGB': ignored('hosts share the disk of this machine'),
  'ResourceConfig.VolumeKmsKeyId': ignored('hosts share the disk of this machine'),
  'ResourceConfig.KeepAlivePeriodInSeconds': ignored(
    'hosts start in a fraction of a second; there is no warm pool',
  ),
  'ResourceConfig.InstanceGroups': honoured('hosts are numbered over all groups, all or none'),
  'ResourceConfig.TrainingPlanArn': refused('training plans do not exist here'),
  'ResourceConfig.InstancePlacementConfig': refused('UltraServers do not exist here'),
  'ResourceConfig.InstancePreferences': refused('give InstanceType and InstanceCount'),
  'ResourceConfig.SelectedInstanceType': refused('an output of the service, not part of a request'),
  'ResourceConfig.SelectedInstanceCount': refused('an output of the service, not part of a request'),
  VpcConfig: ignored('hosts get a private network of their own'),
  StoppingCondition: honoured('MaxRuntime within seconds; MaxWait and MaxPending while waiting for hosts'),
  Tags: honoured(''),
  EnableNetworkIsolation: honoured('no way out and no credentials for the script'),
  EnableInterContainerTrafficEncryption: honoured(
    'traffic between the hosts of a job never leaves this machine',
  ),
  EnableManagedSpotTraining: ignored('hosts are never taken back'),
  CheckpointConfig: honoured('restored before the start, synced while running'),
  DebugHookConfig: ignored('SageMaker Debugger is not part of Trainyard'),
  DebugRuleConfigurations: ignored('SageMaker Debugger is not part of Trainyard'),
  TensorBoardOutputConfig: ignored('write below /opt/ml/output/data to keep event files'),
  ExperimentConfig: ignored('SageMaker Experiments is not part of Trainyard'),
  ProfilerConfig: ignored('SageMaker Profiler is not part of Trainyard'),
  ProfilerRuleConfigurations: ignored('SageMaker Profiler is not part of Trainyard'),
  Environment: honoured(''),
  RetryStrategy: honoured('another attempt after a fault of the platform, never after one of the script'),
  RemoteDebugConfig: ignored('hosts are processes of this machine'),
  InfraCheckConfig: ignored('no health check of accelerators yet'),
  SessionChainingConfig: ignored('there is no tag-based access control'),
  ServerlessJobConfig: refused('serverless jobs are not supported'),
  MlflowConfig: refused('MLflow is not supported; give your tracking URI in Environment'),
  ModelPackageConfig: refused('a model registry is not part of Trainyard'),
};

/** Members that every SDK sends by default and that say nothing about what the user wants: ignored without a notice. */
const QUIET = new Set(['ResourceConfig.VolumeSizeInGB', 'DebugHookConfig', 'ProfilerConfig', 'VpcConfig']);

export interface MemberUse {
  path: string;
  treatment: MemberTreatment;
}

/** The treatment of a path: the longest listed prefix. Undefined for a member the table does not know. */
export function treatmentOf(path: string): MemberUse | undefined {
  for (let prefix = path; prefix !== ''; prefix = parentOf(prefix)) {
    const treatment = MEMBERS[prefix];
    if (treatment) return { path: prefix, treatment };
  }
  return undefined;
}

function parentOf(path: string): string {
  if (path.endsWith('[]')) return path.slice(0, -2);
  const dot = path.lastIndexOf('.');
  return dot < 0 ? '' : path.slice(0, dot);
}

/**
 * Every listed member that the request sets and that is refused or ignored, once each, as the user wrote it
 * (with list positions). An unset member, `null`, `false`, an empty list and an empty map count as not set.
 */
export function membersUsed(request: object): (MemberUse & { written: string })[] {
  const found: (MemberUse & { written: string })[] = [];
  const visit = (value: unknown, path: string, written: string): void => {
    if (value === undefined || value === null || value === false) return;
    if (Array.isArray(value) && value.length === 0) return;
    const own = MEMBERS[path];
    if (own && own.treatment !== 'honoured') {
      found.push({ path, treatment: own, written });
    } else if (Array.isArray(value)) {
      value.forEach((element, index) => visit(element, `${path}[]`, `${written}[${index}]`));
    } else if (typeof value === 'object') {
      for (const [name, inner] of Object.entries(value)) {
        visit(inner, path === '' ? name : `${path}.${name}`, written === '' ? name : `${written}.${name}`);
      }
    }
  };
  visit(request, '', '');
  return found;
}

/** Sentences for the job's description: members that were accepted without effect. */
export function ignoredNotices(request: object): string[] {
  return membersUsed(request)
    .filter((use) => use.treatment.treatment === 'ignored' && !QUIET.has(use.path))
    .map((use) => `${use.written} has no effect here: ${use.treatment.note}.`);
}
