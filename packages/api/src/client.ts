import { dnsSuffixOfRegion } from './arn.ts';
import { parseResponse, serializeRequest } from './codec.ts';
import { clientError, errorFromCode, type ServiceError } from './errors.ts';
import type { LogsOperations } from './generated/logs.ts';
import type { SagemakerOperations } from './generated/sagemaker.ts';
import type { GetCallerIdentityResponse } from './generated/sts.ts';
import { modelOf, type ServiceName } from './models.ts';
import { type ConnectionOptions, createSignedFetch, type SignedFetch } from './signed-fetch.ts';
import { parseXml, type XmlElement, xmlChild, xmlText } from './xml.ts';

export interface AwsClientOptions extends ConnectionOptions {
  /** Base URL of all services, or a function: see {@link awsEndpoint} for AWS itself. */
  endpoint: string | ((service: ServiceName) => string);
}

export interface CallOptions {
  signal?: AbortSignal | undefined;
}

export interface ServiceClient<Operations> {
  /**
   * @throws ServiceError with the service's code; `ConnectionFailed` when no answer came; TypeError when the
   * input does not fit the operation's shape.
   */
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

/** Typed client of the JSON services and of `GetCallerIdentity`; holds no connection of its own, so there is nothing to close. */
export function createAwsClient(options: AwsClientOptions): AwsClient {
  const send = createSignedFetch(options);
  const endpointOf = (service: ServiceName) => {
    const base = typeof options.endpoint === 'function' ? options.endpoint(service) : options.endpoint;
    return base.endsWith('/') ? base : `${base}/`;
  };
  const client = <Operations>(service: ServiceName): ServiceClient<Operations> => ({
    call: async (operation, input, callOptions) =>
      parseResponse(
        service,
        operation,
        await callJson(send, service, operation, input, endpointOf(service), callOptions),
      ),
  });
  return {
    sagemaker: client('sagemaker'),
    logs: client('logs'),
    sts: { getCallerIdentity: (callOptions) => getCallerIdentity(send, endpointOf('sts'), callOptions) },
  };
}

/** URL of a service on AWS: `https://api.sagemaker.us-west-2.amazonaws.com`. */
export function awsEndpoint(service: ServiceName | 's3', region: string): string {
  const prefix = service === 's3' ? 's3' : modelOf(service).endpointPrefix;
  return `https://${prefix}.${region}.${dnsSuffixOfRegion(region)}`;
}

const THROTTLING =
  /^(Throttling(Exception)?|TooManyRequestsException|RequestLimitExceeded|ThrottledException)$/;

async function callJson(
  send: SignedFetch,
  service: ServiceName,
  operation: string,
  input: unknown,
  url: string,
  { signal }: CallOptions = {},
): Promise<unknown> {
  const { signingName, targetPrefix } = modelOf(service);
  const answer = await send({
    service: signingName,
    method: 'POST',
    url,
    headers: { 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': `${targetPrefix}.${operation}` },
    body: JSON.stringify(serializeRequest(service, operation, input)),
    signal,
    isThrottled: async (copy) => THROTTLING.test(errorOf(await copy.text(), copy, operation).code),
  });
  const text = await answer.text();
  if (!answer.ok) throw errorOf(text, answer, operation);
  if (text === '') return {};
  try {
    return JSON.parse(text);
  } catch (error) {
    throw notUnderstood(operation, answer, text, error);
  }
}

function errorOf(text: string, answer: Response, operation: string): ServiceError {
  let body: Record<string, unknown>;
  try {
    body = JSON.parse(text || '{}') as Record<string, unknown>;
  } catch (error) {
    return notUnderstood(operation, answer, text, error);
  }
  const type = body?.__type ?? answer.headers.get('x-amzn-errortype');
  if (typeof type !== 'string') return notUnderstood(operation, answer, text);
  // Other framings put a namespace in front and a URL behind.
  const code = type.replace(/^.*#/, '').replace(/:.*$/, '');
  const message = body.message ?? body.Message;
  return errorFromCode('json', code, answer.status, typeof message === 'string' ? message : '', {
    operation,
    requestId: answer.headers.get('x-amzn-requestid'),
  });
}

function notUnderstood(operation: string, answer: Response, text: string, cause?: unknown): ServiceError {
  const message = `${operation} got status ${answer.status} and a body that is not AWS JSON, beginning '${text.slice(0, 80)}'. Check that the endpoint is the service and not a proxy or another server.`;
  return clientError('InvalidResponse', { message, operation, status: answer.status }, cause);
}

async function getCallerIdentity(
  send: SignedFetch,
  url: string,
  { signal }: CallOptions = {},
): Promise<GetCallerIdentityResponse> {
  const answer = await send({
    service: 'sts',
    method: 'POST',
    url,
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: `Action=GetCallerIdentity&Version=${modelOf('sts').apiVersion}`,
    signal,
  });
  const text = await answer.text();
  let document: XmlElement;
  try {
    document = parseXml(text);
  } catch (error) {
    throw notUnderstood('GetCallerIdentity', answer, text, error);
  }
  if (!answer.ok) {
    const error = xmlChild(document, 'Error') ?? document;
    throw errorFromCode(
      'query',
      xmlText(error, 'Code') ?? '',
      answer.status,
      xmlText(error, 'Message') ?? '',
      {
        operation: 'GetCallerIdentity',
        requestId: xmlText(document, 'RequestId'),
      },
    );
  }
  const result = xmlChild(document, 'GetCallerIdentityResult');
  const [UserId, Account, Arn] = ['UserId', 'Account', 'Arn'].map((name) => result && xmlText(result, name));
  if (!Account || !Arn) throw notUnderstood('GetCallerIdentity', answer, text);
  return { Account, Arn, ...(UserId === undefined ? {} : { UserId }) };
}
