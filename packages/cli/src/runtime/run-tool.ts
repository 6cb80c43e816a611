import { execFile } from 'node:child_process';

export interface ToolResult {
  ok: boolean;
  /** Both outputs, in the order they came. */
  output: string;
}

/** Runs a program to its end with its output kept. Never throws; a program that does not exist is a failure. */
export function runTool(
  program: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv = {},
): Promise<ToolResult> {
  return new Promise((resolve) => {
    const child = execFile(
      program,
      [...args],
      { env: { ...process.env, ...environment }, maxBuffer: 64 * 1024 * 1024 },
      (error) => {
        if (error && output === '') output = error.message;
        resolve({ ok: error === null, output });
      },
    );
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
    }
  });
}
