import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ERROR_CATALOGUE, parseRequest } from '@trainyard/api';
import { describe, expect, test } from 'vitest';
import { checkTypes } from '../docs/check-types.ts';
import { GENERATED_TABLES, helpOf } from '../docs/generated.ts';
import {
  allPages,
  anchorsOf,
  commandsOfCli,
  linked,
  linksOf,
  nameIn,
  readPage,
  section,
  tableBelow,
  userPages,
} from '../docs/markdown.ts';
import { variablesRead } from '../docs/program-variables.ts';
import { ROOT } from '../support/service.ts';

const UPDATE = 'tests/docs/update.ts writes it anew';

describe('tables say what the code says', () => {
  test.each(GENERATED_TABLES)('$path: $heading', ({ path, heading, rows }) => {
    expect(rows().length).toBeGreaterThan(0);
    expect(tableBelow(readPage(path), heading), UPDATE).toEqual(rows());
  });

  test('every variable that our programs read', () => {
    const documented = tableBelow(readPage('docs/environment.md'), "What Trainyard's programs read");
    expect(documented.map(([name]) => nameIn(name)).toSorted()).toEqual(variablesRead());
  });

  test.each([
    ['json', 'SageMaker, CloudWatch Logs and `/_trainyard/`'],
    ['query', 'STS and IAM'],
    ['s3', 'S3'],
    ['client', 'Before an answer'],
  ] as const)('every code of the protocol %s, its status and who acts', (protocol, heading) => {
    const rows = tableBelow(readPage('docs/errors.md'), heading);
    expect(rows.map(([code, status, actor]) => [nameIn(code), Number(status), actor])).toEqual(
      Object.entries(ERROR_CATALOGUE[protocol]).map(([code, { status, actor }]) => [code, status, actor]),
    );
    for (const [code, , , advice] of rows) expect(advice, code).toMatch(/\w.*\.$/);
  });

  test('every package of the repository is in README.md', () => {
    const rows = tableBelow(readPage('README.md'), 'Packages');
    const named = rows.map(([cell]) => /`packages\/(\w+)`/.exec(cell!)?.[1]);
    expect(named.toSorted()).toEqual(readdirSync(join(ROOT, 'packages')).toSorted());
  });
});

describe('the help of each command', () => {
  const page = readPage('docs/cli.md');
  const commands = commandsOfCli(page);

  test.each(commands)('trainyard %s', async (words) => {
    const shown = section(page, `trainyard ${words}`.trim());
    expect(shown, UPDATE).toContain(`\`\`\`text\n${await helpOf(words)}\n\`\`\`\n`);
  });

  test('no command is left out', async () => {
    const named = [...(await helpOf('')).matchAll(/^ {2}([a-z]+)(?: |$)/gm)].map((match) => match[1]!);
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

  test('the README.md of its folder names every page, and that of docs/ every folder', () => {
    for (const { path } of userPages()) {
      if (!path.startsWith('docs/') || path === 'docs/README.md') continue;
      const index = join(path.endsWith('/README.md') ? 'docs' : dirname(path), 'README.md');
      const named = linksOf(readPage(index)).map(({ target }) => join(dirname(index), target));
      expect(named, index).toContain(path);
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
