import { afterAll, beforeAll, expect, test } from 'vitest';
import { nameIn, readPage, tableBelow, transcriptsOf, userPages } from '../docs/markdown.ts';
import { createReader, PATIENCE_MS, type Reader } from '../docs/run-page.ts';

let reader: Reader;
beforeAll(() => {
  reader = createReader();
});
afterAll(() => reader.dispose());

const followed = userPages().filter(({ fences }) =>
  fences.some(({ language, noRun }) => language === 'sh' && noRun === null),
);

test.each(followed.map((page) => [page.path, page] as const))(
  'the commands of %s work',
  async (_, page) => {
    const { code, stdout, stderr } = await reader.follow(page);
    expect(code, `${stderr}\n${stdout}`).toBe(0);
    for (const transcript of transcriptsOf(page)) expect(stdout).toMatch(transcript);
  },
  PATIENCE_MS + 20_000,
);

test('the program of docs/api.md runs', async () => {
  const program = readPage('docs/api.md').fences.find(({ language }) => language === 'ts')!;
  const { code, stdout, stderr } = await reader.runProgram(program.body);
  expect(code, stderr).toBe(0);
  expect(stdout).toContain('hostLimit');
});

/** Every kind of event comes of it: a metric of the loss, a notice of the missing GPU. */
const JOB = `
echo 'print("loss=0.5")' > answers.py
trainyard train answers.py --job-name answers --instance-type ml.g5.xlarge
`;

test('answers and events have the members that docs/api.md lists', async () => {
  const fence = { language: 'sh', noRun: null, body: JOB, line: 1 };
  const made = await reader.follow({ path: 'answers', text: JOB, fences: [fence] });
  expect(made.code, made.stderr).toBe(0);
  const api = readPage('docs/api.md');
  const names = (cell: string): string[] => (cell.match(/[A-Za-z]+/g) ?? []).toSorted();
  for (const [path, heading] of [
    ['health', 'health'],
    ['doctor', 'doctor'],
    ['jobs/answers', 'jobs/NAME'],
  ] as const) {
    const answer = (await (await reader.ask(path)).json()) as Record<string, unknown>;
    const listed = tableBelow(api, heading).map(([cell]) => cell!);
    expect(Object.keys(answer).toSorted(), heading).toEqual(names(listed.join(' ')));
  }

  const stream = await (await reader.ask('jobs/answers/events')).text();
  const seen = new Map<string, string[]>();
  for (const [, type, data] of stream.matchAll(/^event: (\w+)\ndata: (.+)$/gm)) {
    seen.set(type!, Object.keys(JSON.parse(data!) as object).toSorted());
  }
  const listed = tableBelow(api, 'Events').map(([type, data]): [string, string[]] => [
    nameIn(type),
    names(data!.split(/[:;]/)[0]!),
  ]);
  expect(Object.fromEntries(seen)).toEqual(Object.fromEntries(listed));
});
