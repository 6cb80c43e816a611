import { createHmac, randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { newAccessKeyId, newSecret } from './store/key-store.ts';

/** The operator's key pair and the secret from which host tokens are made; `DATA/credentials.json`, mode 0600. */
export interface Identity {
  accessKeyId: string;
  secretAccessKey: string;
  accountId: string;
  region: string;
  /** Tells one data directory from another. */
  dataId: string;
  /** Never leaves the service. */
  tokenSecret: string;
}

/** Reads the identity of a data directory, or makes it at first start. */
export function loadIdentity(dataDir: string, account: { accountId: string; region: string }): Identity {
  const path = join(dataDir, 'credentials.json');
  const save = (identity: Identity): Identity => {
    writeFileSync(`${path}.new`, `${JSON.stringify(identity, null, 2)}\n`, { mode: 0o600 });
    renameSync(`${path}.new`, path);
    return identity;
  };
  try {
    const known = JSON.parse(readFileSync(path, 'utf8')) as Identity;
    const isCurrent = known.accountId === account.accountId && known.region === account.region;
    // Clients read account and region here; config.json may have changed them.
    return isCurrent ? known : save({ ...known, ...account });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw new Error(`${path} cannot be read: ${(error as Error).message}`, { cause: error });
    }
  }
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  return save({
    accessKeyId: newAccessKeyId('AKIA'),
    secretAccessKey: newSecret(30),
    ...account,
    dataId: randomBytes(8).toString('hex'),
    tokenSecret: newSecret(32),
  });
}

/**
 * The token of one host of one attempt. A function of the secret, so that a step that was cut off by a crash
 * gives the hosts it already started the same token again.
 */
export function hostToken(
  identity: Identity,
  job: string,
  attempt: number,
  host: string,
  madeAt: number,
): string {
  return createHmac('sha256', identity.tokenSecret)
    .update([job, attempt, host, madeAt].join('\n'))
    .digest('base64url');
}
