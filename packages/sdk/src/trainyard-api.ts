import type { ServiceError, SignedFetch } from '@trainyard/api';
import { clientError, errorFromCode } from '@trainyard/api';

export interface TrainyardJob {
  attempt: number;
  waitReason: string | null;
  /** What differs from the request, and what happened on the way. */
  notices: { code: string; message: string; host: string | null; attempt: number; at: number }[];
  hosts: {
    host: string;
    phase: string | null;
    exitCode: number | null;
    signal: string | null;
    gone: string | null;
  }[];
}

/** The calls that a Trainyard service has besides AWS's, below `/_trainyard/v1/`. */
export interface TrainyardApi {
  /** Lets jobs use a directory of the service's machine in place. The same path keeps its id. */
  registerFolder(path: string): Promise<string>;
  /** The server-sent events of a job after `lastEventId`, or all. */
  openEvents(
    jobName: string,
    lastEventId: string | null,
    signal?: AbortSignal,
  ): Promise<ReadableStream<Uint8Array>>;
  /** What DescribeTrainingJob cannot say: notices, why a job waits, where each host stands. */
  describeJob(jobName: string): Promise<TrainyardJob>;
  /** Ends the service. Its jobs keep running and are adopted by the next start. */
  shutdown(): Promise<void>;
}

export function createTrainyardApi(url: string, signedFetch: SignedFetch): TrainyardApi {
  const call = async (
    method: string,
    path: string,
    options: { body?: unknown; headers?: Record<string, string>; signal?: AbortSignal | undefined } = {},
  ): Promise<Response> => {
    const response = await signedFetch({
      service: 'trainyard',
      method,
      url: `${url}/_trainyard/v1/${path}`,
      headers: {
        ...options.headers,
        ...(options.body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(options.body !== undefined && { body: JSON.stringify(options.body) }),
      ...(options.signal && { signal: options.signal }),
    });
    if (!response.ok) throw await readError(response);
    return response;
  };
  return {
    registerFolder: async (path) => {
      const response = await call('POST', 'file-systems', { body: { path } });
      return ((await response.json()) as { fileSystemId: string }).fileSystemId;
    },
    describeJob: async (jobName) => {
      const response = await call('GET', `jobs/${encodeURIComponent(jobName)}`);
      return (await response.json()) as TrainyardJob;
    },
    openEvents: async (jobName, lastEventId, signal) => {
      const headers = {
        accept: 'text/event-stream',
        ...(lastEventId !== null && { 'last-event-id': lastEventId }),
      };
      const response = await call('GET', `jobs/${encodeURIComponent(jobName)}/events`, { headers, signal });
      if (!response.body)
        throw clientError('InvalidResponse', { message: `The events of ${jobName} came without a body.` });
      return response.body;
    },
    shutdown: async () => {
      await call('POST', 'shutdown', { body: {} });
    },
  };
}

async function readError(response: Response): Promise<ServiceError> {
  const text = await response.text();
  let body: { __type?: string; message?: string } = {};
  try {
    body = JSON.parse(text) as typeof body;
  } catch {
    // A proxy's page: the status says what there is to say.
  }
  const code = body.__type?.split('#').at(-1) ?? 'InvalidResponse';
  return errorFromCode('json', code, response.status, body.message ?? '');
}
