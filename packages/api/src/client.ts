import type { CredentialsSource } from './credentials.ts';
import type { LogsOperations } from './generated/logs.ts';
import type { SagemakerOperations } from './generated/sagemaker.ts';
import type { GetCallerIdentityResponse } from './generated/sts.ts';
import type { Hasher } from './hasher.ts';
import type { ServiceName } from './validate.ts';

export interface ConnectionOptions {
  region: string;
  credentials: CredentialsSource;
  /** @default webCryptoHasher */
  hasher?: Hasher;
  /** @default globalThis.fetch, looked up at each request */
  fetch?: typeof fetch;
  /** Tries per request including the first; only throttling, 5xx and connection errors are tried again. @default 3 */
  maxAttempts?: number;
}

export interface AwsClientOptions extends ConnectionOptions {
  /** Base URL of all services, or a function: see {@link awsEndpoint} for AWS itself. */
  endpoint: string | ((service: ServiceName) => string);
}

export interface CallOptions {
  signal?: AbortSignal;
}

export interface ServiceClient<Operations> {
  /** @throws ServiceError with the service's code; `ConnectionFailed` when no answer came. */
  call<O extends keyof Operations & string>(
    operation: O,
    input: Operations[O] extends { input: infer I } ? I : never,
    options?: CallOptions,
  ): Promise<Operations[O] extends { output: infer R } ? R : never>;
}

export interface AwsClient {
  sagemaker: ServiceClient<SagemakerOperations>;
  logs: ServiceClient<LogsOperations>;
  sts: { getCallerIdentity(options?: CallOptions): Promise<GetCallerIdentityResponse> };
}

export function createAwsClient(_options: AwsClientOptions): AwsClient {
  throw new Error('follows');
}

/** URL of a service on AWS: `https://api.sagemaker.us-west-2.amazonaws.com`. */
export function awsEndpoint(_service: ServiceName | 's3', _region: string): string {
  throw new Error('follows');
}
