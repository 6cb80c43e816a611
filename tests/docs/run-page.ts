import { cpSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { createSignedFetch } from '@trainyard/api';
import { clientBin, type Outcome, runClient } from '../support/clients.ts';
import { endProcessesOf, ROOT, RUNTIMES } from '../support/service.ts';
import type { Page } from './markdown.ts';

/** A place where pages are followed as a reader would: a folder that looks like a clone, a service of its own. */
export interface Reader {
  /** Runs the commands of a page in their order, as one shell; `python` fences run in the shell's environment. */
  follow(page: Page): Promise<Outcome>;
  /** Runs a TypeScript program as a file of the repository. */
  runProgram(source: string): Promise<Outcome>;
  /** Answers of `/_trainyard/v1/`, signed by the operator's key. */
  ask(path: string): Promise<Response>;
  /** Ends the service and everything it started. */
  dispose(): Promise<void>;
}

/** Of a page's commands; most of it is for machines that have much else to do. */
export const PATIENCE_MS = 280_000;

export function createReader(): Reader {
  // The data directory's name must stand in the command line of all that is started, for the clean-up.
  const home = realpathSync(mkdtempSync(join(tmpdir(), 'trainyard-docs-')));
  const data = join(home, 'data');
  mkdirSync(join(home, 'bin'));
  symlinkSync(join(ROOT, 'bin/trainyard'), join(home, 'bin/trainyard'));
  cpSync(join(ROOT, 'examples/digits-ddp'), join(home, 'examples/digits-ddp'), { recursive: true });
  const environment = async (): Promise<Record<string, string>> => ({
    PATH: [join(home, 'bin'), await clientBin(), dirname(process.execPath), process.env['PATH'] ?? ''].join(
      delimiter,
    ),
    TRAINYARD_DATA: data,
    TRAINYARD_RUNTIMES: RUNTIMES,
    AWS_PAGER: '',
    AWS_EC2_METADATA_DISABLED: 'true',
  });
  return {
    async follow(page) {
      const script = join(home, `${page.path.replaceAll('/', '-')}.sh`);
      writeFileSync(script, ['set -euo pipefail', ...commandsOf(page)].join('\n'));
      return await runClient('bash', [script], {
        environment: await environment(),
        home,
        timeoutMs: PATIENCE_MS,
      });
    },
    async runProgram(source) {
      const folder = mkdtempSync(join(ROOT, '.trainyard/docs-program-'));
      try {
        writeFileSync(join(folder, 'program.mts'), source);
        return await runClient(process.execPath, [join(folder, 'program.mts')], {
          environment: await environment(),
          home,
        });
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
    async ask(path) {
      const { stdout } = await runClient(join(home, 'bin/trainyard'), ['env'], {
        environment: await environment(),
        home,
      });
      const value = (name: string): string =>
        new RegExp(`^export ${name}=(.+)$`, 'm').exec(stdout)?.[1] ?? '';
      const credentials = {
        accessKeyId: value('AWS_ACCESS_KEY_ID'),
        secretAccessKey: value('AWS_SECRET_ACCESS_KEY'),
      };
      const url = `${value('AWS_ENDPOINT_URL')}/_trainyard/v1/${path}`;
      return await createSignedFetch({ region: value('AWS_REGION'), credentials })({
        service: 'trainyard',
        method: 'GET',
        url,
      });
    },
    async dispose() {
      await runClient(join(home, 'bin/trainyard'), ['serve', '--stop'], {
        environment: await environment(),
        home,
      });
      await endProcessesOf(data);
      rmSync(home, { recursive: true, force: true });
    },
  };
}

/** Each command is preceded by the page's line, so that a failure names it. */
function commandsOf({ path, fences }: Page): string[] {
  return fences
    .filter(({ language, noRun }) => noRun === null && (language === 'sh' || language === 'python'))
    .map(({ language, body, line }) => {
      const commands = language === 'python' ? `python - <<'END_OF_PYTHON'\n${body}END_OF_PYTHON\n` : body;
      return `echo '== ${path}:${line}' >&2\n${commands}`;
    });
}
