/**
 * The control channel between the agent of a host and the service: JSON over HTTP below
 * `/_trainyard/agent/v1/`, authorised by `Authorization: Bearer <host token>`. A token binds one job, one
 * attempt and one host; nothing in a body can widen it.
 *
 * | call | body → answer | rule |
 * | --- | --- | --- |
 * | POST `register` | {@link RegisterRequest} → {@link HostPlan} | may be repeated: an agent that crashed attaches again |
 * | POST `sync` | {@link SyncRequest} → {@link SyncResponse} | long poll: answers at once when there is a command, else after `waitMs` |
 * | POST `logs` | {@link LogBatch} → {@link LogReceipt} | exactly once by sequence number |
 * | PUT `parts/<kind>` | uncompressed tar without its two closing zero blocks | replaces an earlier, unfinished part |
 * | GET `parts/<kind>/<host>` | the bytes of that host's part | lead host only |
 *
 * Reports and log lines carry a sequence number per host and attempt, starting at 0. The service applies each
 * number once and in order; an agent keeps what was not acknowledged on disk and sends it again.
 */
export const AGENT_API_PREFIX = '/_trainyard/agent/v1/';

/** What the agent learns from the executor before it can talk to the service: the file `agent.json`. */
export interface AgentBootstrap {
  /** Base URL of the service as seen from inside the host, without a trailing slash. */
  endpointUrl: string;
  token: string;
  jobName: string;
  attempt: number;
  host: string;
  /** Unix socket of this host's init; see `packages/launch/init/DESIGN.md`. */
  initSocket: string;
  /** Directory private to this host and attempt that survives a crash of the agent. */
  stateDir: string;
  /** Directory that holds `input/ model/ output/ code/ checkpoints/`: `/opt/ml`, or a private path without namespaces. */
  mlRoot: string;
  /** Rung of the isolation ladder that this host runs on. */
  isolation?: 'namespaces' | 'user-namespaces' | 'processes';
  /** Address of every host of the job as seen from its peers; names resolve only where there are namespaces. */
  hostAddresses?: Record<string, string>;
  /** Interface that carries {@link hostAddresses}: `eth0`, or the loopback interface without namespaces. */
  networkInterface?: string;
  /** Variables that lead scripts and pip to the internet (`HTTPS_PROXY`, `NO_PROXY`…); empty under network isolation. */
  egressEnvironment?: Record<string, string>;
}

export interface RegisterRequest {
  agentVersion: string;
  /** True when this agent found state of an earlier agent of the same host and attempt. */
  resumed: boolean;
  cpuCount: number;
  gpuCount: number;
  neuronCoreCount: number;
  /** `torch.__version__` etc. of the runtime, as far as found without importing it; null when absent. */
  frameworkVersion: string | null;
}

export interface AccessCredentials {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken: string;
  /** Epoch milliseconds. */
  expiresAt: number;
}

export type ChannelSource =
  | {
      kind: 's3';
      dataType: 'S3Prefix' | 'ManifestFile';
      uri: string;
      distribution: 'FullyReplicated' | 'ShardedByS3Key';
      /** Hosts among which `ShardedByS3Key` deals the objects, in order; absent means all hosts of the job. */
      shardHosts?: string[];
    }
  /** Already mounted (or linked) at the channel's directory by the executor. */
  | { kind: 'mounted'; directory: string; readOnly: boolean };

export interface ChannelPlan {
  name: string;
  source: ChannelSource;
  inputMode: 'File';
  contentType: string | null;
  compression: 'None' | 'Gzip';
  recordWrapper: 'None' | 'RecordIO';
}

export interface RuntimePlan {
  name: string;
  /** Absolute path of the interpreter. */
  python: string;
  /** Directories put before PATH, in order. */
  binDirs: string[];
  /** Ranks may be forked from the preloaded fork server reached through init. */
  preload: boolean;
}

/** Everything one host of one attempt needs; made once by the service and immutable for the attempt. */
export interface HostPlan {
  planVersion: 1;
  jobName: string;
  jobArn: string;
  attempt: number;
  host: string;
  /** All hosts of the job, sorted by code point (`algo-10` before `algo-2`); rank of a host = its index. */
  hosts: string[];
  instanceType: string;
  groupName: string;
  instanceGroups: { name: string; instanceType: string; hosts: string[] }[];
  networkInterfaceName: string;
  region: string;
  accountId: string;
  /** What scripts get as AWS_ENDPOINT_URL, as seen from inside the host. */
  endpointUrl: string;
  /** S3 endpoint for agent and scripts; equals `endpointUrl` for the embedded store. */
  s3EndpointUrl: string;
  /** The agent's own access to the job's objects; the same for all hosts of an attempt. */
  agentCredentials: AccessCredentials;
  /** What the script may use; null under network isolation. */
  scriptCredentials: AccessCredentials | null;
  networkIsolated: boolean;
  image: string;
  /** False: a client took its default image, so nobody asked for the version in its tag. @default true */
  imageChosen?: boolean;
  containerEntrypoint: string[] | null;
  containerArguments: string[] | null;
  /** Which AWS toolkit module the image runs: decides launcher precedence and exported variables. */
  frameworkModule:
    | 'sagemaker_pytorch_container.training:main'
    | 'sagemaker_tensorflow_container.training:main'
    | 'sagemaker_mxnet_container.training:main'
    | null;
  hyperParameters: Record<string, string>;
  environment: Record<string, string>;
  channels: ChannelPlan[];
  /** `s3://bucket/…/<job>/output/`, always with the trailing slash. */
  outputS3Uri: string;
  outputCompression: 'GZIP' | 'NONE';
  checkpoint: { s3Uri: string; localPath: string } | null;
  /** Left of MaxRuntimeInSeconds over all attempts when the plan was made; the agent counts it from `start`. */
  maxRuntimeMs: number;
  /** Between SIGTERM and SIGKILL. */
  stopGraceMs: number;
  runtime: RuntimePlan;
  /** Echo of the request for trainingjobconfig.json. */
  request: Record<string, unknown>;
}

/** The host's way through an attempt; it only moves forward. `failed` may follow any but `finished`. */
export type HostPhase =
  | 'registered'
  | 'downloading' // channels, checkpoints, code, requirements
  | 'ready' // waits for `start`
  | 'training'
  | 'exited' // ranks are gone; waits for `upload`
  | 'uploading'
  | 'uploaded' // waits for `finish`
  | 'failed';

export interface ArtifactFile {
  /** Relative POSIX path below the artifact's root. */
  path: string;
  sizeBytes: number;
}

/** Who has to act on a failure; the class is the first word of FailureReason. */
export type FailureClass = 'AlgorithmError' | 'ClientError' | 'InternalServerError';

/** The first cause as one host saw it. */
export interface RankFailure {
  host: string;
  /** Global rank; null when the launcher itself failed before there were ranks. */
  rank: number | null;
  localRank: number | null;
  exitCode: number | null;
  /** e.g. `SIGKILL`; null when the process exited by itself. */
  signal: string | null;
  /** Epoch milliseconds when it was seen. */
  at: number;
  /** e.g. `ValueError: bad batch`; null when no exception line was found. */
  exception: string | null;
  /** `train.py:42` of the innermost frame inside the user's code, null if unknown. */
  location: string | null;
  /** Last useful lines, at most 40. */
  trace: string[];
  /** How many ranks of this host ended with the same trace. */
  sameTraceRanks: number[];
  /** True when the error says that another rank went away (connection reset, peer closed): not a first cause. */
  isConsequence: boolean;
  /** Out-of-memory killer seen, when that could be read. */
  outOfMemory: boolean;
}

export type HostReport = { seq: number; at: number } & (
  | { kind: 'phase'; phase: HostPhase; detail: string | null }
  /** One sentence for the job's description: missing accelerator, other framework version, peer waits… */
  | { kind: 'notice'; code: string; message: string }
  /** The host could not do its part outside the script: data, code, requirements, upload. Implies phase `failed`. */
  | { kind: 'failed'; failureClass: FailureClass; message: string }
  /** Ranks are gone. Implies phase `exited`. */
  | {
      kind: 'exited';
      endedBy: 'script' | 'stop' | 'max_runtime';
      exitCode: number | null;
      signal: string | null;
      failure: RankFailure | null;
      /** First 1024 characters of /opt/ml/output/failure, null when absent. */
      failureFile: string | null;
      /** The command line as AWS's toolkit prints it, for ErrorMessage. */
      command: string;
      model: ArtifactFile[];
      output: ArtifactFile[];
    }
);

export type StopReason = 'user' | 'max_runtime' | 'peer_failed' | 'host_lost';

export interface UploadSelection {
  /** Paths of this host that go into the artifact; the lowest host wins a collision. */
  own: string[];
}

export type HostCommand = { id: number } & (
  | { kind: 'start' }
  /** SIGTERM to every process of the script, SIGKILL after `graceMs`. */
  | { kind: 'stop'; reason: StopReason; graceMs: number }
  /**
   * Upload artifacts. With GZIP every host but the lead sends its parts to the service first and the lead
   * writes `model.tar.gz` and `output.tar.gz`; with NONE every host uploads its own files below `model/`.
   */
  | {
      kind: 'upload';
      lead: boolean;
      /** For the lead: hosts whose parts must be fetched, by artifact. */
      parts: { model: string[]; output: string[] };
      model: UploadSelection;
      output: UploadSelection;
      /** Lines to log, e.g. collisions. */
      notes: string[];
    }
  /** The attempt is over; the agent exits 0 and init ends the host. */
  | { kind: 'finish' }
);

export interface SyncRequest {
  /** Reports not yet acknowledged, in order. */
  reports: HostReport[];
  /** Highest command id already carried out, -1 at first. */
  ackedCommand: number;
  phase: HostPhase;
  /** How long the service may hold the request, at most 20 000. */
  waitMs: number;
}

export interface SyncResponse {
  /** Reports below this number are stored and may be forgotten. */
  nextReportSeq: number;
  /** Commands above `ackedCommand`, in order. */
  commands: HostCommand[];
}

export type LogSource = 'stdout' | 'stderr' | 'agent';

export interface LogLine {
  /** Epoch milliseconds when the line was read. */
  at: number;
  source: LogSource;
  /** Global rank that wrote it; null for launcher and agent lines. */
  rank: number | null;
  message: string;
}

export interface LogBatch {
  /** Sequence number of the first line of this batch. */
  firstSeq: number;
  lines: LogLine[];
}

export interface LogReceipt {
  nextSeq: number;
}
