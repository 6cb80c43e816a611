import { type ArnScope, assumedRoleArn } from '@trainyard/api';

/** Who signed a request: a key of the operator, or the expiring key of one attempt of one job. */
export type Principal = OperatorPrincipal | JobPrincipal;

export interface OperatorPrincipal {
  kind: 'operator';
  accessKeyId: string;
  /** Name of the role in the ARN that GetCallerIdentity answers. */
  roleName: string;
}

export interface JobPrincipal {
  kind: 'job';
  accessKeyId: string;
  jobName: string;
  attempt: number;
  /** Name, without path, of the job's `RoleArn`: a script finds itself in it, as on SageMaker. @default TrainyardJob */
  roleName?: string;
}

/** What a key may do and how it proves itself. */
export interface CredentialRecord {
  secretAccessKey: string;
  /** Must accompany the key when set; a key without one must come without one. */
  sessionToken: string | null;
  /** Epoch milliseconds; null never expires. */
  expiresAt: number | null;
  principal: Principal;
}

/** Finds a key; undefined when there is none. Called for every request, so it should not be slow. */
export type CredentialLookup = (accessKeyId: string) => CredentialRecord | undefined;

const JOB_ROLE_NAME = 'TrainyardJob';

/**
 * The caller's ARN. Always an assumed role: the SageMaker SDKs derive the execution role from it and fail on a
 * user's ARN (sagemaker-core helper/iam_role_resolver.py).
 */
export function principalArn(principal: Principal, account: ArnScope): string {
  const { role, session } = roleOf(principal);
  return assumedRoleArn(account, role, session);
}

export function roleOf(principal: Principal): { role: string; session: string } {
  return principal.kind === 'operator'
    ? { role: principal.roleName, session: principal.accessKeyId }
    : { role: principal.roleName ?? JOB_ROLE_NAME, session: principal.jobName };
}
