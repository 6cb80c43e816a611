import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { ROOT } from '../support/service.ts';

export interface Fence {
  /** First word after the three backticks. */
  language: string;
  /** Why it is not run, after `no-run:`; null when it is. */
  noRun: string | null;
  body: string;
  /** Line of the page on which the body begins, from 1. */
  line: number;
}

export interface Page {
  /** Relative to the repository. */
  path: string;
  text: string;
  fences: Fence[];
}

/** The pages that a user reads, and those that belong to the code. */
export function allPages(): Page[] {
  const patterns = [
    '*.md',
    'docs/*.md',
    'docs/parallel/*.md',
    'examples/**/*.md',
    'packages/*/*.md',
    'packages/*/{src,init}/**/*.md',
    'libs/*/*.md',
  ];
  return globSync(patterns, { cwd: ROOT, exclude: (path) => path.includes('node_modules') })
    .map(readPage)
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Pages whose fences are held to be true: README.md and docs/. */
export const userPages = (): Page[] =>
  allPages().filter(({ path }) => path === 'README.md' || path.startsWith('docs/'));

export function readPage(path: string): Page {
  const text = readFileSync(join(ROOT, path), 'utf8');
  return { path, text, fences: fencesOf(text) };
}

function fencesOf(text: string): Fence[] {
  const fences: Fence[] = [];
  let open: Fence | null = null;
  for (const [index, line] of text.split('\n').entries()) {
    if (open && line === '```') {
      fences.push(open);
      open = null;
    } else if (open) {
      open.body += `${line}\n`;
    } else if (line.startsWith('```')) {
      const [language = '', ...rest] = line.slice(3).split(' ');
      const noRun = /^no-run: (.+)$/.exec(rest.join(' '))?.[1] ?? null;
      open = { language, noRun, body: '', line: index + 2 };
    }
  }
  if (open) throw new Error(`the fence of line ${open.line - 1} is not closed`);
  return fences;
}

/** Output that a page shows right below commands that are run: its lines in their order, `…` for any text. */
export function transcriptsOf({ text, fences }: Page): RegExp[] {
  const lines = text.split('\n');
  return fences.flatMap((fence, index) => {
    const before = fences[index - 1];
    if (fence.language !== 'text' || before?.language !== 'sh' || before.noRun !== null) return [];
    const end = before.line - 1 + before.body.split('\n').length;
    if (lines.slice(end, fence.line - 2).some((line) => line !== '')) return [];
    const escaped = fence.body.trimEnd().replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
    return [new RegExp(escaped.replaceAll('…', '[^\\n]*').replaceAll('\n', '\\n(?:[^\\n]*\\n)*?'))];
  });
}

/** The part of a page below a heading, up to the next heading of any level. */
export function section(page: Page, heading: string): string {
  const body = page.text
    .split(/^(?=#+ )/m)
    .find((part) => part.replace(/^#+ /, '').startsWith(`${heading}\n`));
  if (body === undefined) throw new Error(`${page.path} has no heading "${heading}"`);
  return body;
}

/** Cells of the first table below a heading, without its head. */
export function tableBelow(page: Page, heading: string): string[][] {
  const rows = /(?:^\| .*\n)+/m.exec(section(page, heading))?.[0].trimEnd().split('\n') ?? [];
  if (rows.length < 3) throw new Error(`${page.path} has no table below "${heading}"`);
  return rows.slice(2).map((row) =>
    row
      .slice(2, -2)
      .split(' | ')
      .map((cell) => cell.trim()),
  );
}

/** The name in a cell, without backticks. */
export const nameIn = (cell: string | undefined): string => cell?.replace(/^`([^`]+)`$/, '$1') ?? '';

/** The commands that docs/cli.md has a section for, without `trainyard`. */
export const commandsOfCli = (page: Page): string[] =>
  [...page.text.matchAll(/^#+ trainyard ?(.*)$/gm)].map((match) => match[1]!);

/** Relative links and images outside fences, with the heading they name. */
export function linksOf({ text }: Page): { target: string; anchor: string }[] {
  const prose = text.replace(/^```[^]*?^```$/gm, '').replace(/`[^`\n]*`/g, '');
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)]
    .map((match) => match[1]!)
    .filter((link) => !/^[a-z]+:/.test(link))
    .map((link) => {
      const [target = '', anchor = ''] = link.split('#');
      return { target, anchor };
    });
}

/** Path of a link relative to the repository. */
export const linked = (page: Page, target: string): string =>
  target === '' ? page.path : relative(ROOT, join(ROOT, dirname(page.path), target));

/** Anchors of a page's headings, as Git forges make them. */
export const anchorsOf = ({ text }: Page): string[] =>
  [...text.replace(/^```[^]*?^```$/gm, '').matchAll(/^#+ (.+)$/gm)].map((match) =>
    match[1]!
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
