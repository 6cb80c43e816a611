import type { IncomingHttpHeaders } from 'node:http';
import type { DiskObjectStore } from '../../objects/disk-object-store.ts';
import { S3Error } from './errors.ts';
import type { AuthenticatedS3Request, S3Access, S3Authorizer } from './request.ts';
import { writeXml, type XmlTree } from './xml-writer.ts';

export interface S3Deps {
  store: DiskObjectStore;
  /** Region of buckets that are created without one. */
  region: string;
  authorize: S3Authorizer;
  /** `bucket.<domain>` in the Host header names a bucket. @default ['localhost'] */
  baseDomains?: readonly string[];
}

/** One request as the operations see it. */
export class S3Context {
  readonly request: AuthenticatedS3Request;
  readonly deps: S3Deps;
  /** Empty where the operation has no bucket or key. */
  readonly bucket: string;
  readonly key: string;
  readonly query: ReadonlyMap<string, string>;

  constructor(
    request: AuthenticatedS3Request,
    deps: S3Deps,
    address: { bucket: string; key: string; query: ReadonlyMap<string, string> },
  ) {
    this.request = request;
    this.deps = deps;
    this.bucket = address.bucket;
    this.key = address.key;
    this.query = address.query;
  }

  get store(): DiskObjectStore {
    return this.deps.store;
  }

  get headers(): IncomingHttpHeaders {
    return this.request.req.headers;
  }

  /** A header that may come once; Node has joined repetitions with a comma. */
  header(name: string): string | undefined {
    const value = this.headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  }

  isAllowed(access: S3Access): boolean {
    return this.deps.authorize(this.request.principal, access);
  }

  /** @throws S3Error AccessDenied */
  assertAllowed(access: S3Access): void {
    if (this.isAllowed(access)) return;
    throw new S3Error('AccessDenied', 'Access Denied: this access key may not do that.');
  }

  /** A whole number in the query, at most `most`; larger ones are cut to it as S3 does. */
  count(name: string, fallback: number, most: number): number {
    const text = this.query.get(name);
    if (text === undefined || text === '') return fallback;
    if (!/^\d{1,10}$/.test(text)) {
      throw new S3Error(
        'InvalidArgument',
        `${name} is ${JSON.stringify(text)}; it must be a whole number, 0 or more.`,
        {
          ArgumentName: name,
          ArgumentValue: text,
        },
      );
    }
    return Math.min(Number(text), most);
  }

  /** True when names in the answer are to be percent-encoded. */
  wantsUrlEncoding(): boolean {
    const encoding = this.query.get('encoding-type');
    if (encoding === undefined || encoding === '') return false;
    if (encoding === 'url') return true;
    throw new S3Error('InvalidArgument', `encoding-type is ${JSON.stringify(encoding)}; only url is known.`, {
      ArgumentName: 'encoding-type',
      ArgumentValue: encoding,
    });
  }

  send(status: number, headers: Readonly<Record<string, string>> = {}): void {
    this.request.res.writeHead(status, headers).end();
  }

  sendXml(root: string, content: XmlTree | string, headers: Readonly<Record<string, string>> = {}): void {
    const body = Buffer.from(writeXml(root, content));
    this.request.res.writeHead(200, {
      ...headers,
      'content-type': 'application/xml',
      'content-length': String(body.length),
    });
    this.request.res.end(body);
  }
}
