import type { ArnScope } from '@trainyard/api';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { CredentialLookup, Principal } from './principal.ts';
import type { AuthenticatedS3Request } from './s3/request.ts';

/** Everything the gateway needs from the rest of the service. */
export interface GatewayDeps {
  /** Region and account of every ARN. */
  account: ArnScope;
  /** Regions that a credential scope may name; null accepts any (one set of jobs, whatever the region). */
  allowedRegions: readonly string[] | null;
  /** Path of the public URL that a proxy leaves on requests, such as `/trainyard`; empty for none. */
  pathPrefix: string;
  /** Epoch milliseconds. */
  now: () => number;
  lookupCredentials: CredentialLookup;
  /** Handlers by SageMaker operation: `CreateTrainingJob`… */
  sagemaker: OperationHandlers;
  /** Handlers by CloudWatch Logs operation, as `createLogsOperations` makes them. */
  logs: OperationHandlers;
  s3: (request: AuthenticatedS3Request) => Promise<void>;
  /** Must be those of the S3 handler: `bucket.<domain>` in Host names a bucket. @default ['localhost'] */
  s3BaseDomains?: readonly string[];
  /** Everything below `/_trainyard/agent/v1/`: checks its own bearer token. */
  agent: AgentHandler;
  /** Everything below `/_trainyard/v1/`, signed as service `trainyard`. */
  trainyard: TrainyardHandler;
  /** Answer of `GET /_trainyard/v1/health`, the one call without a signature: nothing in it may be secret. */
  health: () => Record<string, unknown>;
  /** Told of every answer that is our own fault, with the request id that the client saw. */
  reportInternalError: (error: unknown, context: { requestId: string; action: string }) => void;
}

/** What every handler may know about its caller. */
export interface RequestContext {
  requestId: string;
  principal: Principal;
  /** Region of the credential scope. */
  region: string;
  /** Aborted when the client goes away before the answer. */
  signal: AbortSignal;
}

/**
 * One awsJson operation. `input` passed the published shape and constraints; the value returned is serialised
 * by the published output shape. Throws ServiceError for every refusal.
 */
// biome-ignore lint/suspicious/noExplicitAny: the table joins handlers of different input types
export type OperationHandler = (context: RequestContext, input: any) => unknown;

export type OperationHandlers = Readonly<Record<string, OperationHandler>>;

/** A request below `/_trainyard/v1/`, verified and read (at most 1 MiB). */
export interface TrainyardRequest extends RequestContext {
  method: string;
  /** Path after `/_trainyard/v1/`, still percent-encoded: `jobs/my-job/events`. */
  path: string;
  query: URLSearchParams;
  headers: IncomingHttpHeaders;
  body: Uint8Array;
}

/** May throw ServiceError before it writes headers: the gateway answers `{"__type","message"}`. */
export type TrainyardHandler = (request: TrainyardRequest, response: ServerResponse) => void | Promise<void>;

/** An agent's call; the body is unread and its size is the handler's to bound. */
export interface AgentRequest {
  requestId: string;
  method: string;
  /** Path after `/_trainyard/agent/v1/`, still percent-encoded: `parts/model`. */
  path: string;
  /** The value after `Bearer `, null when absent. */
  bearerToken: string | null;
  request: IncomingMessage;
  /** The client waits for `100 Continue`: call `response.writeContinue()` once the token is accepted. */
  expectsContinue: boolean;
  signal: AbortSignal;
}

export type AgentHandler = (request: AgentRequest, response: ServerResponse) => void | Promise<void>;
