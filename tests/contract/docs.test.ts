import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ERROR_CATALOGUE, parseRequest } from '@trainyard/api';
import { LAUNCHER_VARIABLES, VARIABLES } from '@trainyard/launch';
import { PROBLEMS } from '@trainyard/sdk';
import { describe, expect, test } from 'vitest';
import { checkTypes } from '../docs/check-types.ts';
import {
  allPages,
  anchorsOf,
  linked,
  linksOf,
  readPage,
  section,
  tableBelow,
  userPages,
} from '../docs/markdown.ts';
import { optionRows } from '../docs/option-docs.ts';
import { variablesRead } from '../docs/program-variables.ts';
import { ROOT } from '../support/service.ts';

const run = promisify(execFile);

describe('tables say what the code says', () => {
  const environment = readPage('docs/environment.md');
  const errors = readPage('docs/errors.md');
  const estimators = readPage('docs/estimators.md');

  test('every variable that a script sees, whose word counts, and why', () => {
    expect(tableBelow(environment, 'What a script sees')).toEqual(
      VARIABLES.map(({ name, strength, reason }) => [name, strength === 'fixed' ? 'ours' : 'yours', reason]),
    );
    expect(tableBelow(environment, 'What launchers add')).toEqual(Object.entries(LAUNCHER_VARIABLES));
  });

  test('every variable that our programs read', () => {
    const documented = tableBelow(environment, "What Trainyard's programs read").map(([name]) => name!);
    expect(documented.toSorted()).toEqual(variablesRead());
  });

  test.each([
    ['json', 'SageMaker, CloudWatch Logs and `/_trainyard/`'],
    ['query', 'STS and IAM'],
    ['s3', 'S3'],
    ['client', 'Before an answer'],
  ] as const)('every code of the protocol %s, its status and who acts', (protocol, heading) => {
    const rows = tableBelow(errors, heading);
    expect(rows.map(([code, status, actor]) => [code, Number(status), actor])).toEqual(
      Object.entries(ERROR_CATALOGUE[protocol]).map(([code, { status, actor }]) => [code, status, actor]),
    );
    for (const [code, , , advice] of rows) expect(advice, code).toMatch(/\w.*\.$/);
  });

  test('every problem of options', () => {
    expect(tableBelow(errors, 'Problems of options')).toEqual(Object.entries(PROBLEMS));
  });

  test.each([
    ['SessionOptions', 'session.ts'],
    ['PyTorchOptions', 'frameworks/pytorch.ts'],
    ['EstimatorOptions', 'estimator.ts'],
    ['SourceOptions', 'estimator-options.ts'],
    ['CommonOptions', 'estimator-options.ts'],
    ['FitOptions', 'estimator-base.ts'],
    ['TrainingInputOptions', 'inputs.ts'],
    ['FileSystemInputOptions', 'inputs.ts'],
  ])('every member of %s with its default and its doc comment', (name, file) => {
    const rows = optionRows(`packages/sdk/src/${file}`, name);
    expect(rows.length).toBeGreaterThan(0);
    for (const row of rows) expect(section(estimators, name)).toContain(`| ${row.join(' | ')} |\n`);
    expect(tableBelow(estimators, name)).toHaveLength(rows.length);
  });

  test('every package of the repository is in README.md', () => {
    const rows = tableBelow(readPage('README.md'), 'Packages').map(
      ([cell]) => /`packages\/(\w+)`/.exec(cell!)?.[1],
    );
    expect(rows.toSorted()).toEqual(['api', 'cli', 'launch', 'sdk', 'service']);
  });
});

describe('the help of each command', () => {
  const page = readPage('docs/cli.md');
  const commands = [...page.text.matchAll(/^#+ trainyard ?(.*)$/gm)].map((match) => match[1]!);

  test.each(commands)('trainyard %s', async (words) => {
    const program = join(ROOT, 'packages/cli/dist/trainyard.mjs');
    const env = { PATH: process.env['PATH'] ?? '', HOME: '/home/you' };
    const { stdout } = await run(process.execPath, [program, ...words.split(' ').filter(Boolean), '--help'], {
      env,
    });
    expect(section(page, `trainyard ${words}`.trim())).toContain(`\`\`\`text\n${stdout.trimEnd()}\n\`\`\`\n`);
  });

  test('no command is left out', async () => {
    const env = { PATH: process.env['PATH'] ?? '', HOME: '/home/you' };
    const { stdout } = await run(
      process.execPath,
      [join(ROOT, 'packages/cli/dist/trainyard.mjs'), '--help'],
      { env },
    );
    const named = [...stdout.matchAll(/^ {2}([a-z]+)(?: |$)/gm)].map((match) => match[1]!);
    expect(commands.filter((words) => /^[a-z]+$/.test(words)).toSorted()).toEqual(
      named.filter((name) => name !== 'help').toSorted(),
    );
  });
});

describe('links', () => {
  test.each(allPages().map((page) => [page.path, page] as const))('of %s lead somewhere', (_, page) => {
    const dead = linksOf(page).filter(({ target, anchor }) => {
      const path = linked(page, target);
      if (!existsSync(join(ROOT, path))) return true;
      return anchor !== '' && path.endsWith('.md') && !anchorsOf(readPage(path)).includes(anchor);
    });
    expect(dead).toEqual([]);
  });

  test('docs/README.md names every page', () => {
    const named = linksOf(readPage('docs/README.md')).map(({ target }) => `docs/${target}`);
    for (const { path } of userPages()) {
      if (path.startsWith('docs/') && path !== 'docs/README.md') expect(named).toContain(path);
    }
  });
});

describe('what is shown is true', () => {
  const pages = userPages();

  test('every fence has a language that this test knows, and one that is not run says why', () => {
    for (const { path, text, fences } of pages) {
      for (const { language, line } of fences) {
        expect(['sh', 'ts', 'json', 'python', 'text'], `${path}:${line}`).toContain(language);
      }
      expect(text, path).not.toMatch(/^```\w+ no-run(?!: \S)/m);
    }
  });

  test('TypeScript compiles against the built packages', async () => {
    const withTypes = [...pages, readPage('packages/sdk/README.md')].filter(({ fences }) =>
      fences.some(({ language }) => language === 'ts'),
    );
    expect(withTypes.length).toBeGreaterThan(2);
    expect(await checkTypes(withTypes)).toBe('');
  });

  test('JSON is JSON, and a request is one that the service takes', () => {
    for (const { path, fences } of pages) {
      for (const { language, body, line } of fences) {
        const request = language === 'json' ? body : /<<END\n(\{[^]*?\n\})\nEND/.exec(body)?.[1];
        if (request === undefined) continue;
        const value = JSON.parse(request.replaceAll('$bucket', 's3://bucket/prefix')) as object;
        if ('TrainingJobName' in value) parseRequest('sagemaker', 'CreateTrainingJob', value);
        else expect(Object.keys(value).length, `${path}:${line}`).toBeGreaterThan(0);
      }
    }
  });
});
