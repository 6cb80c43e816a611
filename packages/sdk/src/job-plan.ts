import type { CreateTrainingJobRequest } from '@trainyard/api';
import type { SourceSelection } from './source/source-files.ts';

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
  /** Made first when it is missing; null when nothing goes there. */
  defaultBucket: string | null;
}
