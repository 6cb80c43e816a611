import type { CredentialsSource } from '@trainyard/api';
import { isServiceError } from '@trainyard/api';
import { findCredentials, findEndpoints, findRegion } from './aws-environment.ts';
import type { Connection } from './connection.ts';
import { createConnection } from './connection.ts';
import {
  checkHealth,
  defaultDataDirectory,
  readServiceRecord,
  waitForExit,
} from './embedded/data-directory.ts';
import { ensureService, findService, settle } from './embedded/embedded-service.ts';
import type { EmbeddedService } from './embedded/embedded-service.ts';
import { InvalidOption, ServiceUnavailable } from './errors.ts';
import type { Problem, WarningHandler } from './problem.ts';
import { describeProblem } from './problem.ts';
import type { TrainyardApi } from './trainyard-api.ts';

export interface SessionOptions {
  /**
   * `aws`: AWS itself, whatever endpoints are configured. `embedded`: this machine, whatever is configured.
   * @default a configured endpoint, else this machine
   */
  on?: 'embedded' | 'aws';
  /**
   * URL of a Trainyard service, or, on AWS, of the SageMaker API.
   * @default TRAINYARD_ENDPOINT, AWS_ENDPOINT_URL_SAGEMAKER, AWS_ENDPOINT_URL or the profile's endpoint_url
   */
  endpoint?: string;
  /** @default AWS_REGION, AWS_DEFAULT_REGION or the profile's region; outside AWS then us-west-2 */
  region?: string;
  /** Profile of the AWS configuration files. @default AWS_PROFILE, else `default` */
  profile?: string;
  /** @default as AWS's SDKs find them; the embedded service's own */
  credentials?: CredentialsSource;
  /** Twelve digits. @default asked from STS when needed; the embedded service's own */
  accountId?: string;
  /** Data directory of the embedded service. @default TRAINYARD_DATA, else ~/.local/share/trainyard/data */
  dataDirectory?: string;
  /** Bucket for code, uploaded inputs and artifacts. @default sagemaker-{region}-{account}, made on first use */
  defaultBucket?: string;
  /** Put before keys in the default bucket. @default none */
  defaultBucketPrefix?: string;
  /** Receives what works here but not on AWS, and what has no effect. @default process.emitWarning */
  onWarning?: WarningHandler;
}

const DEFAULT_REGION = 'us-west-2';
const STOP_TIMEOUT_MS = 15_000;

/**
 * Where jobs go: the embedded service of this machine, started when needed and left running; a Trainyard service; or
 * AWS. AWS credentials alone do not choose AWS: a machine that has them still trains locally until `on: 'aws'` or an
 * endpoint is set.
 */
export class Session {
  readonly options: Readonly<SessionOptions>;
  #connection: Promise<Connection> | null = null;
  #hasDefaultBucket = false;

  constructor(options: SessionOptions = {}) {
    this.options = options;
  }

  /** Absolute path of the embedded service's data. */
  get dataDirectory(): string {
    return this.options.dataDirectory ?? defaultDataDirectory();
  }

  /** Keys before which every key in the default bucket is put: '' or `prefix/`. */
  get defaultKeyPrefix(): string {
    const prefix = this.options.defaultBucketPrefix?.replace(/^\/+|\/+$/g, '') ?? '';
    return prefix === '' ? '' : `${prefix}/`;
  }

  /**
   * Clients for the place that the options and the environment name; starts the embedded service when it is that and
   * does not run. May be called often: the work is done once.
   * @throws ServiceUnavailable, InvalidOption
   */
  connect(): Promise<Connection> {
    this.#connection ??= this.#resolve().catch((error: unknown) => {
      this.#connection = null;
      throw error;
    });
    return this.#connection;
  }

  /**
   * Runs `action` with the connection. When the embedded service is gone it is started again and the action runs a
   * second time, so it must bear repetition. With `revive: false` a service that was stopped on purpose stays so: it
   * removed its record, one that died did not.
   * @throws ServiceUnavailable when no service answers
   */
  async use<Result>(
    action: (connection: Connection) => Promise<Result>,
    options: { revive?: boolean } = {},
  ): Promise<Result> {
    const connection = await this.connect();
    try {
      return await action(connection);
    } catch (error) {
      if (!isServiceError(error, 'ConnectionFailed')) throw error;
      if (connection.kind !== 'embedded') throw unreachable(connection.endpointUrl ?? 'AWS', error);
      await settle(this.dataDirectory);
      if (options.revive === false && readServiceRecord(this.dataDirectory) === null) {
        const problem = `The service of ${this.dataDirectory} was stopped; its jobs run on, and any next command starts it again.`;
        throw new ServiceUnavailable(this.dataDirectory, problem);
      }
      return await action(await this.reconnect());
    }
  }

  /** As {@link use} for the calls that only a Trainyard service has. */
  async useTrainyard<Result>(
    action: (trainyard: TrainyardApi) => Promise<Result>,
    options: { revive?: boolean } = {},
  ): Promise<Result> {
    return await this.use(({ trainyard, endpointUrl }) => {
      if (!trainyard) throw unreachable(endpointUrl ?? 'AWS', new Error('it is not a Trainyard service'));
      return action(trainyard);
    }, options);
  }

  /** Looks again for the service: an embedded one has another port after each start. */
  reconnect(): Promise<Connection> {
    this.#connection = null;
    return this.connect();
  }

  /** Makes the default bucket unless it is there. @returns its name */
  async ensureDefaultBucket(): Promise<string> {
    return await this.use(async (connection) => {
      const { s3 } = connection;
      const bucket = await connection.defaultBucket();
      if (this.#hasDefaultBucket) return bucket;
      if (!(await s3.headBucket({ bucket }))) await s3.createBucket({ bucket });
      this.#hasDefaultBucket = true;
      return bucket;
    });
  }

  /**
   * Ends the embedded service; its jobs keep running and the next start adopts them.
   * @returns false when none was running
   * @throws ServiceUnavailable when it has not ended after 15 s
   */
  async stopService(): Promise<boolean> {
    const service = await findService(this.dataDirectory);
    if (!service) return false;
    await this.#embeddedConnection(service).trainyard?.shutdown();
    this.#connection = null;
    if (await waitForExit(service.pid, STOP_TIMEOUT_MS)) return true;
    throw new ServiceUnavailable(
      service.url,
      `The service (process ${service.pid}) did not end within ${STOP_TIMEOUT_MS / 1000} s.`,
    );
  }

  /** @internal */
  warn(warnings: readonly Problem[]): void {
    const handler =
      this.options.onWarning ??
      ((warning) => {
        process.emitWarning(describeProblem(warning), { type: 'TrainyardWarning', code: warning.id });
      });
    for (const warning of warnings) handler(warning);
  }

  async #resolve(): Promise<Connection> {
    const { on, endpoint, profile } = this.options;
    if (on === 'aws') return await this.#awsConnection();
    if (on === 'embedded') return this.#embeddedConnection(await ensureService(this.dataDirectory));
    const everywhere = endpoint ?? process.env['TRAINYARD_ENDPOINT'];
    const endpoints = everywhere
      ? { sagemaker: everywhere.replace(/\/+$/, '') }
      : await findEndpoints(profile);
    if (endpoints.sagemaker === undefined)
      return this.#embeddedConnection(await ensureService(this.dataDirectory));
    return createConnection({
      kind: 'service',
      region: this.options.region ?? (await findRegion(profile)) ?? DEFAULT_REGION,
      credentials: this.options.credentials ?? (await findCredentials(profile)),
      endpoints,
      isTrainyard: await this.#checkEndpoint(endpoints.sagemaker),
      sharesFiles: false,
      accountId: this.options.accountId ?? null,
      defaultBucket: this.options.defaultBucket ?? null,
    });
  }

  async #checkEndpoint(url: string): Promise<boolean> {
    if (!/^https?:\/\/[^/]/.test(url)) {
      const rule = 'An endpoint is an http:// or https:// URL.';
      const nextStep = 'Write e.g. http://127.0.0.1:9400.';
      throw new InvalidOption([{ id: 'E-ENDPOINT', field: 'endpoint', value: url, rule, nextStep }]);
    }
    const health = await checkHealth({ url });
    if (health === 'absent' || health === 'silent') throw unreachable(url);
    return health === 'healthy';
  }

  #embeddedConnection(service: EmbeddedService): Connection {
    const { accessKeyId, secretAccessKey, accountId, region } = service.credentials;
    return createConnection({
      kind: 'embedded',
      region: this.options.region ?? region,
      credentials: { accessKeyId, secretAccessKey },
      endpoints: { sagemaker: service.url },
      isTrainyard: true,
      sharesFiles: service.isSameUser,
      accountId,
      defaultBucket: this.options.defaultBucket ?? null,
    });
  }

  async #awsConnection(): Promise<Connection> {
    const { endpoint, profile } = this.options;
    const region = this.options.region ?? (await findRegion(profile));
    if (region === undefined) {
      const rule = 'AWS needs a region, and neither AWS_REGION nor the profile has one.';
      const nextStep = 'Pass region, or set AWS_REGION.';
      throw new InvalidOption([{ id: 'E-REGION', field: 'region', value: undefined, rule, nextStep }]);
    }
    return createConnection({
      kind: 'aws',
      region,
      credentials: this.options.credentials ?? (await findCredentials(profile)),
      endpoints: endpoint === undefined ? {} : { sagemaker: endpoint.replace(/\/+$/, '') },
      isTrainyard: false,
      sharesFiles: false,
      accountId: this.options.accountId ?? null,
      defaultBucket: this.options.defaultBucket ?? null,
    });
  }
}

function unreachable(endpoint: string, cause?: Error): ServiceUnavailable {
  const detail = cause ? `: ${cause.message}` : '';
  return new ServiceUnavailable(
    endpoint,
    `No service answers at ${endpoint}${detail}. Start it there, or correct the endpoint.`,
    { cause },
  );
}
