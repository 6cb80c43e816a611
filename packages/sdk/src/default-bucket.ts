import type { Connection } from './connection.ts';

/** The account's default bucket, asked for only when something goes there: its name may cost a call to STS. */
export class DefaultBucket {
  readonly #connection: Pick<Connection, 'defaultBucket'>;
  #used: string | null = null;

  constructor(connection: Pick<Connection, 'defaultBucket'>) {
    this.#connection = connection;
  }

  async name(): Promise<string> {
    this.#used = await this.#connection.defaultBucket();
    return this.#used;
  }

  /** Null as long as nothing has gone there. */
  get used(): string | null {
    return this.#used;
  }
}
