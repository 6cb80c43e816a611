import { appendFileSync } from 'node:fs';

/** In the file a line must stay whole: below the limit of `lines.ts`, however its characters are escaped. */
const MAX_MESSAGE = 32 * 1024;

/** One sentence of the agent in the job's log. */
export interface AgentLine {
  at: number;
  message: string;
}

/**
 * The agent's own lines. They go through a file like those of the script, so that one mechanism carries all lines
 * over a crash; see `log-shipper.ts`.
 */
export class AgentLog {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  say(message: string): void {
    const line: AgentLine = { at: Date.now(), message: message.slice(0, MAX_MESSAGE) };
    try {
      appendFileSync(this.#path, `${JSON.stringify(line)}\n`);
    } catch (error) {
      // A full disk must not end the agent: it still has to report and to upload.
      console.error(`${message} (not logged: ${String(error)})`);
    }
  }
}
