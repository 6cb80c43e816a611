export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  /** Present with temporary keys; sent as `x-amz-security-token`. */
  sessionToken?: string;
}

/** Fixed credentials, or a function asked before every request so that temporary keys can be renewed. */
export type CredentialsSource = Credentials | (() => Credentials | Promise<Credentials>);
