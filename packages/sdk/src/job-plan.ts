import type { CreateTrainingJobRequest } from '@trainyard/api';
import type { SourceSelection } from './source/source-files.ts';

/** What an estimator's request depends on besides its options. */
export interface Place {
  kind: 'embedded' | 'service' | 'aws';
  region: string;
  accountId: string;
  defaultBucket: string;
  /** Put before keys in the default bucket: '' or `prefix/`. */
  keyPrefix: string;
}

export type PlannedUpload = { bucket: string; key: string } & (
  | { kind: 'source'; selection: SourceSelection }
  /** A local file; `key` is the object's. */
  | { kind: 'file'; path: string }
  /** A local directory; `key` is a prefix that ends with a slash. */
  | { kind: 'directory'; path: string; channel: string }
);

/** Everything that `fit` will send, as a value that can be printed and compared. */
export interface JobPlan {
  request: CreateTrainingJobRequest;
  uploads: PlannedUpload[];
}
