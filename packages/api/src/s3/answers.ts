import { clientError, errorFromCode, type ServiceError } from '../errors.ts';
import { fromBinary } from '../sigv4/bytes.ts';
import { decodeFormPart } from '../sigv4/canonical.ts';
import { parseXml, type XmlElement, xmlChildren, xmlText } from '../xml.ts';
import type { BucketInfo, ListEntry, ObjectHead } from './client.ts';

/** What S3 answers, read into values: XML documents, errors and object headers. */

export function readXml(text: string, rootName: string): XmlElement {
  let root: XmlElement;
  try {
    root = parseXml(text);
  } catch (error) {
    throw notUnderstood(`its XML cannot be read (${(error as Error).message})`, error);
  }
  // S3 may start an answer with status 200 and find the error afterwards.
  if (root.name === 'Error') throw errorOf(root, 500, {});
  if (root.name !== rootName) throw notUnderstood(`<${rootName}> was expected, not <${root.name}>`);
  return root;
}

export const notUnderstood = (what: string, cause?: unknown) =>
  clientError(
    'InvalidResponse',
    { message: `S3 gave an answer that makes no sense: ${what}. Check the endpoint.` },
    cause,
  );

const need = (element: XmlElement, name: string): string => {
  const text = xmlText(element, name);
  if (text === undefined) throw notUnderstood(`<${element.name}> has no <${name}>`);
  return text;
};

const errorOf = (element: XmlElement, status: number, data: Record<string, unknown>): ServiceError =>
  errorFromCode(
    's3',
    xmlText(element, 'Code') ?? 'InternalError',
    status,
    xmlText(element, 'Message') ?? '',
    {
      ...Object.fromEntries(element.children.map(({ name, text }) => [name, text])),
      ...data,
    },
  );

/** Codes for answers without a body: HEAD, and proxies in between. */
const CODES_OF_STATUS: Readonly<Record<number, string>> = {
  301: 'PermanentRedirect',
  304: 'NotModified',
  400: 'InvalidRequest',
  403: 'AccessDenied',
  405: 'MethodNotAllowed',
  409: 'OperationAborted',
  411: 'MissingContentLength',
  412: 'PreconditionFailed',
  416: 'InvalidRange',
  429: 'SlowDown',
  500: 'InternalError',
  501: 'NotImplemented',
  503: 'ServiceUnavailable',
};

/** @param address names what was asked for; it goes into the error's data and message. */
export async function errorFrom(
  answer: Response,
  address: { bucket?: string; key?: string },
): Promise<ServiceError> {
  const text = await answer.text().catch(() => '');
  const where = `s3://${address.bucket ?? ''}${address.key === undefined ? '' : `/${address.key}`}`;
  const data = { ...address, requestId: answer.headers.get('x-amz-request-id') };
  if (text !== '') {
    try {
      const root = parseXml(text);
      if (root.name === 'Error') return errorOf(root, answer.status, data);
    } catch {
      // Not S3's own answer: the status has to do.
    }
  }
  const notFound = address.key === undefined ? 'NoSuchBucket' : 'NoSuchKey';
  const code = answer.status === 404 ? notFound : (CODES_OF_STATUS[answer.status] ?? 'InternalError');
  return errorFromCode('s3', code, answer.status, `${where}: status ${answer.status}`, data);
}

export function readHead(headers: Headers): ObjectHead {
  const metadata: Record<string, string> = {};
  headers.forEach((value, name) => {
    if (name.startsWith('x-amz-meta-')) metadata[name.slice('x-amz-meta-'.length)] = value;
  });
  const total = /\/(\d+)$/.exec(headers.get('content-range') ?? '')?.[1];
  return {
    sizeBytes: Number(total ?? headers.get('content-length') ?? 0),
    etag: headers.get('etag') ?? '',
    lastModified: new Date(headers.get('last-modified') ?? 0),
    contentType: headers.get('content-type'),
    metadata,
  };
}

export const readBuckets = (text: string): BucketInfo[] =>
  readXml(text, 'ListAllMyBucketsResult')
    .children.filter(({ name }) => name === 'Buckets')
    .flatMap((buckets) => xmlChildren(buckets, 'Bucket'))
    .map((bucket) => {
      const createdAt = xmlText(bucket, 'CreationDate');
      return { name: need(bucket, 'Name'), createdAt: createdAt ? new Date(createdAt) : null };
    });

export interface ListPage {
  entries: ListEntry[];
  nextToken: string | null;
}

export function readListPage(text: string): ListPage {
  const root = readXml(text, 'ListBucketResult');
  const isEncoded = xmlText(root, 'EncodingType') === 'url';
  const decode = (name: string) => (isEncoded ? fromBinary(decodeFormPart(name)) : name);
  const objects = xmlChildren(root, 'Contents').map(
    (element): ListEntry => ({
      kind: 'object',
      key: decode(need(element, 'Key')),
      sizeBytes: Number(need(element, 'Size')),
      etag: xmlText(element, 'ETag') ?? '',
      lastModified: new Date(need(element, 'LastModified')),
    }),
  );
  const prefixes = xmlChildren(root, 'CommonPrefixes').map(
    (element): ListEntry => ({ kind: 'prefix', prefix: decode(need(element, 'Prefix')) }),
  );
  const isTruncated = xmlText(root, 'IsTruncated') === 'true';
  return {
    entries: [...objects, ...prefixes],
    nextToken: isTruncated ? need(root, 'NextContinuationToken') : null,
  };
}
