import type { CreateTrainingJobRequest } from '@trainyard/api';
import type { GitConfig } from './source/git-config.ts';
import type { SourceSelection } from './source/source-files.ts';

interface PlannedObject {
  bucket: string;
  key: string;
  /** Key that encrypts it, beside what AWS's SDK does with packed code. */
  kmsKeyId?: string;
}

export type PlannedUpload = PlannedObject &
  /** `git` names the repository in which the selection's paths are. */
  (
    | { kind: 'source'; selection: SourceSelection; git?: GitConfig }
    /** A local file; `key` is the object's. */
    | { kind: 'file'; path: string }
    /** A local directory without names that match; `key` is a prefix that ends with a slash. */
    | { kind: 'directory'; path: string; channel: string; ignoredNames?: readonly string[] }
    /** An object with this text. */
    | { kind: 'text'; body: string }
  );

/** Everything that `fit` will send, as a value that can be printed and compared. */
export interface JobPlan {
  request: CreateTrainingJobRequest;
  uploads: PlannedUpload[];
  /** Made first when it is missing; null when nothing goes there. */
  defaultBucket: string | null;
}
