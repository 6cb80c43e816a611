import {
  createBucket,
  deleteBucket,
  getBucketLocation,
  getBucketVersioning,
  headBucket,
  listBuckets,
} from './buckets.ts';
import type { S3Context } from './context.ts';
import { copyObject, uploadPartCopy } from './copies.ts';
import { S3Error } from './errors.ts';
import { listObjects, listObjectsV2 } from './listings.ts';
import {
  abortMultipartUpload,
  completeMultipartUpload,
  createMultipartUpload,
  listMultipartUploads,
  listParts,
  uploadPart,
} from './multipart.ts';
import {
  deleteObject,
  deleteObjects,
  getObject,
  getObjectTagging,
  headObject,
  putObject,
} from './objects.ts';
import type { S3Access } from './request.ts';

export interface S3Route {
  /** As AWS names it. */
  operation: string;
  /** Asked of the authorizer first; null where the operation asks for each key itself. */
  action: S3Access['action'] | null;
  run(context: S3Context): Promise<void>;
}

type Level = 'service' | 'bucket' | 'object';

/** By method, level and sub-resource; `+copy` when the request names a source to copy. */
const ROUTES: Readonly<Record<string, S3Route>> = {
  'GET service': { operation: 'ListBuckets', action: 'list-buckets', run: listBuckets },

  'HEAD bucket': { operation: 'HeadBucket', action: 'list', run: headBucket },
  'PUT bucket': { operation: 'CreateBucket', action: 'create-bucket', run: createBucket },
  'DELETE bucket': { operation: 'DeleteBucket', action: 'delete-bucket', run: deleteBucket },
  'GET bucket': { operation: 'ListObjects', action: 'list', run: listObjects },
  'GET bucket ?list-type=2': { operation: 'ListObjectsV2', action: 'list', run: listObjectsV2 },
  'GET bucket ?location': { operation: 'GetBucketLocation', action: 'list', run: getBucketLocation },
  'GET bucket ?versioning': { operation: 'GetBucketVersioning', action: 'list', run: getBucketVersioning },
  'GET bucket ?uploads': { operation: 'ListMultipartUploads', action: 'list', run: listMultipartUploads },
  'POST bucket ?delete': { operation: 'DeleteObjects', action: null, run: deleteObjects },

  'GET object': { operation: 'GetObject', action: 'read', run: getObject },
  'HEAD object': { operation: 'HeadObject', action: 'read', run: headObject },
  'PUT object': { operation: 'PutObject', action: 'write', run: putObject },
  'PUT object +copy': { operation: 'CopyObject', action: 'write', run: copyObject },
  'DELETE object': { operation: 'DeleteObject', action: 'delete', run: deleteObject },
  'GET object ?tagging': { operation: 'GetObjectTagging', action: 'read', run: getObjectTagging },

  'POST object ?uploads': { operation: 'CreateMultipartUpload', action: 'write', run: createMultipartUpload },
  'PUT object ?uploadId': { operation: 'UploadPart', action: 'write', run: uploadPart },
  'PUT object ?uploadId +copy': { operation: 'UploadPartCopy', action: 'write', run: uploadPartCopy },
  'POST object ?uploadId': {
    operation: 'CompleteMultipartUpload',
    action: 'write',
    run: completeMultipartUpload,
  },
  'DELETE object ?uploadId': {
    operation: 'AbortMultipartUpload',
    action: 'write',
    run: abortMultipartUpload,
  },
  'GET object ?uploadId': { operation: 'ListParts', action: 'read', run: listParts },
};

/** Names in a query that make another operation of a request; of S3's model 2006-03-01. */
// biome-ignore format: a list of words
const SUB_RESOURCES = new Set([
  'abac', 'accelerate', 'acl', 'analytics', 'annotation', 'append', 'attributes', 'cors', 'delete', 'encryption',
  'intelligent-tiering', 'inventory', 'legal-hold', 'lifecycle', 'list-type', 'location', 'logging',
  'metadataConfiguration', 'metadataInventoryTable', 'metadataJournalTable', 'metadataTable', 'metrics',
  'notification', 'object-lock', 'ownershipControls', 'policy', 'policyStatus', 'publicAccessBlock', 'renameObject',
  'replication', 'requestPayment', 'restore', 'retention', 'select', 'session', 'tagging', 'torrent', 'uploadId',
  'uploads', 'versioning', 'versions', 'website',
]);

/** @throws S3Error NotImplemented, naming what was asked for */
export function findRoute(
  method: string,
  { bucket, key, query }: { bucket: string | null; key: string | null; query: ReadonlyMap<string, string> },
  isCopy: boolean,
): S3Route {
  const version = query.get('versionId');
  if (version !== undefined && version !== 'null') {
    throw new S3Error('NotImplemented', 'Versions of objects are not kept; leave out versionId.');
  }
  const level: Level = bucket === null ? 'service' : key === null ? 'bucket' : 'object';
  const subResources = [...query.keys()]
    .filter((name) => SUB_RESOURCES.has(name))
    .map((name) => (name === 'list-type' ? `?${name}=${query.get(name)}` : `?${name}`));
  const route = ROUTES[[method, level, ...subResources, ...(isCopy ? ['+copy'] : [])].join(' ')];
  if (route) return route;
  throw new S3Error(
    'NotImplemented',
    `${[method, `(${level})`, ...subResources].join(' ')} is not implemented by the embedded S3.`,
  );
}
