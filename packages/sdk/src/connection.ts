import type { AwsClient, CredentialsSource, S3Client } from '@trainyard/api';
import {
  awsEndpoint,
  createAwsClient,
  createS3Client,
  createSignedFetch,
  defaultBucketName,
} from '@trainyard/api';
import type { ConfiguredEndpoints, EndpointService } from './aws-environment.ts';
import { fetchFor } from './http-fetch.ts';
import { nodeHasher } from './node-hasher.ts';
import { createTrainyardApi } from './trainyard-api.ts';
import type { TrainyardApi } from './trainyard-api.ts';

/** Where requests of a session go, with the clients for it. */
export interface Connection extends AwsClient {
  kind: 'embedded' | 'service' | 'aws';
  region: string;
  /** Base URL for AWS clients; null when they find AWS's own. */
  endpointUrl: string | null;
  credentials: CredentialsSource;
  s3: S3Client;
  /** Null when the service is not a Trainyard. */
  trainyard: TrainyardApi | null;
  /** Files of this machine mean the same to the service. */
  sharesFiles: boolean;
  /** Twelve digits. */
  accountId: () => Promise<string>;
  /** Its name; it may not be there yet. */
  defaultBucket: () => Promise<string>;
}

export interface ConnectionInit {
  kind: Connection['kind'];
  region: string;
  credentials: CredentialsSource;
  endpoints: ConfiguredEndpoints;
  isTrainyard: boolean;
  sharesFiles: boolean;
  /** Asked from STS when null. */
  accountId: string | null;
  defaultBucket: string | null;
}

/** The typed clients call it with the address as text. */
const routedFetch = ((url: string, init?: RequestInit) => fetchFor(url)(url, init)) as typeof fetch;

export function createConnection(init: ConnectionInit): Connection {
  const { region, credentials, endpoints } = init;
  const base = endpoints.sagemaker ?? null;
  const signing = { region, credentials, hasher: nodeHasher, fetch: routedFetch };
  // A Trainyard serves all of them; AWS's own addresses stand in only for what is not configured on AWS.
  const endpointOf = (service: EndpointService): string =>
    endpoints[service] ?? (init.kind === 'aws' || base === null ? awsEndpoint(service, region) : base);
  const aws = createAwsClient({ ...signing, endpoint: endpointOf });
  let account: Promise<string> | null = init.accountId === null ? null : Promise.resolve(init.accountId);
  const accountId = (): Promise<string> => {
    account ??= aws.sts.getCallerIdentity().then((identity) => identity.Account ?? '');
    return account;
  };
  return {
    ...aws,
    kind: init.kind,
    region,
    endpointUrl: base,
    credentials,
    s3: createS3Client({ ...signing, endpoint: endpointOf('s3') }),
    trainyard:
      init.isTrainyard && base !== null ? createTrainyardApi(base, createSignedFetch(signing)) : null,
    sharesFiles: init.sharesFiles,
    accountId,
    defaultBucket: async () =>
      init.defaultBucket ?? defaultBucketName({ region, accountId: await accountId() }),
  };
}
