import type { IncomingMessage, ServerResponse } from 'node:http';

/** One request on its way through the gateway. */
export interface Call {
  request: IncomingMessage;
  response: ServerResponse;
  requestId: string;
  method: string;
  /** Path and query as on the request line, without the configured prefix. */
  target: string;
  /** The client waits for `100 Continue`. */
  expectsContinue: boolean;
  /** Aborted when the client goes away before the answer, and when the gateway closes. */
  signal: AbortSignal;
}
