import type { ServerResponse } from 'node:http';
import { type ErrorProtocol, escapeXml, type ServiceError } from '@trainyard/api';
import type { Call } from './call.ts';

/** The form in which a protocol says no. */
export type AnswerForm = Exclude<ErrorProtocol, 'client'>;

/** Every answer carries an id that the service's log knows too; S3 clients look for their own names. */
export function setRequestId(response: ServerResponse, requestId: string, form: AnswerForm): void {
  if (form === 's3') {
    response.setHeader('x-amz-request-id', requestId);
    response.setHeader('x-amz-id-2', hostIdOf(requestId));
  } else {
    response.setHeader('x-amzn-RequestId', requestId);
  }
}

export function sendJson(
  response: ServerResponse,
  status: number,
  value: unknown,
  contentType = 'application/x-amz-json-1.1',
): void {
  send(response, status, contentType, JSON.stringify(value));
}

/** A success of our own calls below `/_trainyard/`, which are plain JSON. */
export const sendOwnJson = (response: ServerResponse, value: unknown): void =>
  sendJson(response, 200, value, 'application/json');

export function sendXml(response: ServerResponse, status: number, xml: string): void {
  send(response, status, 'text/xml', xml);
}

/** Says no in the protocol's own form. Headers must not have been sent. */
export function sendError(
  { response, requestId, method }: Call,
  form: AnswerForm,
  error: ServiceError,
): void {
  const { code, message, status } = error;
  if (form === 'json') {
    response.setHeader('x-amzn-ErrorType', code);
    sendJson(response, status, { __type: code, message });
  } else if (form === 'query') {
    const type = status < 500 ? 'Sender' : 'Receiver';
    sendXml(
      response,
      status,
      `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>${type}</Type><Code>${escapeXml(code)}</Code><Message>${escapeXml(message)}</Message></Error><RequestId>${requestId}</RequestId></ErrorResponse>\n`,
    );
  } else if (method === 'HEAD') {
    // The client knows nothing but the status: SDKs turn it into "404 Not Found".
    response.writeHead(status).end();
  } else {
    response.writeHead(status, { 'content-type': 'application/xml' });
    response.end(
      `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${escapeXml(code)}</Code><Message>${escapeXml(message)}</Message>${s3Details(error)}<RequestId>${requestId}</RequestId><HostId>${hostIdOf(requestId)}</HostId></Error>`,
    );
  }
}

function send(response: ServerResponse, status: number, contentType: string, text: string): void {
  const body = Buffer.from(text);
  response.writeHead(status, { 'content-type': contentType, 'content-length': body.length });
  response.end(body);
}

/** What S3 clients act on: with the region they sign again, by the time they set their clock right. */
function s3Details({ code, data }: ServiceError): string {
  const details: Record<string, unknown> = {};
  if (code === 'AuthorizationHeaderMalformed' && data.region !== undefined) details.Region = data.expected;
  if (code === 'RequestTimeTooSkewed') {
    details.ServerTime = new Date(Number(data.now)).toISOString();
    details.MaxAllowedSkewMilliseconds = data.maxSkewMs;
  }
  return Object.entries(details)
    .map(([tag, value]) => `<${tag}>${escapeXml(String(value))}</${tag}>`)
    .join('');
}

const hostIdOf = (requestId: string): string => Buffer.from(`trainyard ${requestId}`).toString('base64');
