import { storedEncoding } from './body.ts';
import type { S3Context } from './context.ts';
import { S3Error, type S3ErrorCode } from './errors.ts';

/** Kept with an object and sent again with it. */
const KEPT_HEADERS = ['cache-control', 'content-disposition', 'content-language', 'expires'] as const;
/** Kept and shown, but without effect: what encrypts the disk is the operator's choice. */
const ENCRYPTION_HEADERS = [
  'x-amz-server-side-encryption',
  'x-amz-server-side-encryption-aws-kms-key-id',
  'x-amz-server-side-encryption-context',
  'x-amz-server-side-encryption-bucket-key-enabled',
] as const;
/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html */
const MAX_USER_METADATA_BYTES = 2048;
const USER_PREFIX = 'x-amz-meta-';

/** Headers that change what storing means: refused, never passed over. `allowed` are the values without effect. */
const REFUSED_HEADERS: {
  pattern: RegExp;
  allowed?: readonly string[];
  code: S3ErrorCode;
  message: string;
}[] = [
  {
    pattern: /^x-amz-acl$/,
    allowed: ['private', 'bucket-owner-full-control', 'bucket-owner-read'],
    code: 'AccessControlListNotSupported',
    message: 'The bucket does not allow ACLs: access follows from the access key.',
  },
  {
    pattern: /^x-amz-grant-/,
    code: 'AccessControlListNotSupported',
    message: 'The bucket does not allow ACLs: access follows from the access key.',
  },
  {
    pattern: /^x-amz-storage-class$/,
    allowed: ['STANDARD'],
    code: 'InvalidStorageClass',
    message: 'The only storage class is STANDARD.',
  },
  {
    pattern: /^x-amz-(copy-source-)?server-side-encryption-customer-/,
    code: 'NotImplemented',
    message:
      'Encryption with keys of the client is not implemented; leave the header out and encrypt before you upload.',
  },
  {
    pattern: /^x-amz-tagging$/,
    allowed: [''],
    code: 'NotImplemented',
    message: 'Tags of objects are not implemented.',
  },
  { pattern: /^x-amz-object-lock-/, code: 'NotImplemented', message: 'Object lock is not implemented.' },
  {
    pattern: /^x-amz-website-redirect-location$/,
    code: 'NotImplemented',
    message: 'Website redirects are not implemented.',
  },
  {
    pattern: /^x-amz-write-offset-bytes$/,
    code: 'NotImplemented',
    message: 'Appending to an object is not implemented; put it as a whole or in parts.',
  },
];

/** @throws S3Error for a header that asks for something that is not done */
export function assertHonoured(context: S3Context): void {
  for (const [name, value] of Object.entries(context.headers)) {
    const refusal = REFUSED_HEADERS.find(({ pattern }) => pattern.test(name));
    if (!refusal || refusal.allowed?.includes(String(value))) continue;
    throw new S3Error(refusal.code, `${refusal.message} Header ${name} was ${JSON.stringify(value)}.`, {
      Header: name,
    });
  }
}

/** What a request attaches to the object that it writes. */
export function metadataOf(context: S3Context): Record<string, string> {
  const metadata: Record<string, string> = {
    'content-type': context.header('content-type') ?? 'binary/octet-stream',
  };
  const encoding = storedEncoding(context);
  if (encoding !== undefined) metadata['content-encoding'] = encoding;
  for (const name of [...KEPT_HEADERS, ...ENCRYPTION_HEADERS]) {
    const value = context.header(name);
    if (value !== undefined) metadata[name] = value;
  }
  let userBytes = 0;
  for (const name of Object.keys(context.headers).filter((header) => header.startsWith(USER_PREFIX))) {
    const value = context.header(name) ?? '';
    // Node reads header bytes as latin1, so lengths are bytes and UTF-8 comes out as it went in.
    userBytes += name.length - USER_PREFIX.length + value.length;
    metadata[name] = value;
  }
  if (userBytes > MAX_USER_METADATA_BYTES) {
    throw new S3Error(
      'MetadataTooLarge',
      `The metadata has ${userBytes} bytes; at most ${MAX_USER_METADATA_BYTES} are allowed.`,
      {
        Size: userBytes,
        MaxSizeAllowed: MAX_USER_METADATA_BYTES,
      },
    );
  }
  return metadata;
}

export function encryptionHeaders(metadata: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    ENCRYPTION_HEADERS.flatMap((name) => (metadata[name] === undefined ? [] : [[name, metadata[name]]])),
  );
}

const OVERRIDES = [
  'cache-control',
  'content-disposition',
  'content-encoding',
  'content-language',
  'content-type',
  'expires',
] as const;

/** `response-content-type=…` and its like in the query of a read. */
export function overridesOf(context: S3Context): Record<string, string> {
  const overrides: Record<string, string> = {};
  for (const name of OVERRIDES) {
    const value = context.query.get(`response-${name}`);
    if (value === undefined) continue;
    if (/\p{Cc}/u.test(value)) {
      throw new S3Error('InvalidArgument', `response-${name} contains control characters.`, {
        ArgumentName: `response-${name}`,
      });
    }
    overrides[name] = Buffer.from(value).toString('latin1'); // headers are bytes: send its UTF-8
  }
  return overrides;
}
