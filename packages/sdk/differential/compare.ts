// Renders random estimator calls with this SDK and SageMaker's Python SDK 2 and compares them; README.md says how to run it.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { HuggingFace, InvalidOption, MXNet, PyTorch, Session, TensorFlow } from '@trainyard/sdk';
import type { JobPlan } from '@trainyard/sdk';
import type { Case } from './cases.ts';
import { makeCases } from './cases.ts';

type Result = { request: unknown; error?: never } | { error: string; request?: never };
type Estimator = { render(inputs: object, naming: object): Promise<JobPlan> };

/** Faults of the original that are not repeated, by what one of the two says. */
const EXPLAINED: readonly { error: RegExp; why: string }[] = [
  {
    error: /^AttributeError: 'NoneType' object has no attribute 'split'/,
    why: 'MXNet with instance groups crashes',
  },
  { error: /^TypeError: '>' not supported/, why: 'checkpoints with instance groups crash' },
  { error: /Unsupported pytorch-smp version/, why: 'an image of PyTorch is looked up for TensorFlow' },
  { error: /The Training Compiler takes TensorFlow/, why: 'its upper bound of TensorFlow is not read' },
  {
    error: /no training image of PyTorch for Trainium/,
    why: 'every version gets the image of 1.11.0 on Trainium',
  },
];

const CLASSES = { PyTorch, TensorFlow, MXNet, HuggingFace } as unknown as Record<
  Case['class'],
  new (
    options: object,
  ) => Estimator
>;
const [python = 'python3', count = '400', seed = '1'] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), 'trainyard-differential-'));
try {
  process.exitCode = await compare();
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function compare(): Promise<number> {
  const cases = makeCases(Number(count), Number(seed));
  const sourceDir = join(folder, 'src');
  mkdirSync(sourceDir);
  for (const script of ['train.py', 'train.sh']) writeFileSync(join(sourceDir, script), '\n');
  const path = join(folder, 'cases.json');
  writeFileSync(path, JSON.stringify(cases));
  const program = join(import.meta.dirname, 'render.py');
  const output = execFileSync(python, [program, path, sourceDir], { encoding: 'utf8', maxBuffer: 2 ** 30 });
  const theirs = JSON.parse(output) as Result[];

  const counts = { equal: 0, refused: 0, explained: 0, different: 0 };
  for (const [index, each] of cases.entries()) {
    const ours = await renderOurs(each, sourceDir);
    const verdict = judge(ours, theirs[index] as Result);
    counts[verdict]++;
    if (verdict === 'different') console.error(JSON.stringify({ call: each, ours, theirs: theirs[index] }));
  }
  console.log(
    `${cases.length} calls: ${counts.equal} requests equal, ${counts.refused} refused by both, ${counts.explained} explained, ${counts.different} different`,
  );
  for (const { why } of EXPLAINED) console.log(`explained: ${why}`);
  return counts.different === 0 ? 0 : 1;
}

function judge(ours: Result, theirs: Result): 'equal' | 'refused' | 'explained' | 'different' {
  if (ours.request && theirs.request)
    return isDeepStrictEqual(ours.request, theirs.request) ? 'equal' : 'different';
  if (ours.error !== undefined && theirs.error !== undefined) return 'refused';
  const error = theirs.error ?? ours.error ?? '';
  return EXPLAINED.some((fault) => fault.error.test(error)) ? 'explained' : 'different';
}

async function renderOurs({ class: name, options }: Case, sourceDir: string): Promise<Result> {
  const session = new Session({
    on: 'aws',
    region: 'us-west-2',
    accountId: '123456789012',
    credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' },
    onWarning: () => {},
  });
  const role = 'arn:aws:iam::123456789012:role/x';
  try {
    const estimator = new CLASSES[name]({ ...options, role, sourceDir, session, strict: true });
    const { request } = await estimator.render({ training: 's3://my-bucket/train' }, { jobName: 'job' });
    // What is undefined is not sent.
    return { request: JSON.parse(JSON.stringify(request)) };
  } catch (error) {
    if (error instanceof InvalidOption) return { error: error.message };
    throw error;
  }
}
