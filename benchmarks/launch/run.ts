/**
 * Time from starting a command to the first optimizer step of a 2 × 2 job: `bin/trainyard train` against two
 * `torchrun --nnodes 2` in the same kind of namespaces. The variants of one round run one after the other, so
 * that drift of the machine meets all of them; figures are medians of the rounds' ratios.
 *
 * usage: node benchmarks/launch/run.ts [--rounds 15]      (as root, after script/bootstrap, on a quiet machine)
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

const ROOT = resolve(import.meta.dirname, '../..');
const PYTHON = process.env['TRAINYARD_PYTHON'] ?? join(ROOT, '.trainyard/runtimes/pytorch/bin/python');
const SCRIPT = join(import.meta.dirname, 'first_step.py');
const rounds = Number(parseArgs({ options: { rounds: { type: 'string', default: '15' } } }).values.rounds);

/** Seconds from the exec of the command to the first optimizer step. */
async function firstStep(command: string[], environment: Record<string, string> = {}): Promise<number> {
  const startedAt = Date.now() / 1000;
  const child = spawn(command[0]!, command.slice(1), {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const code = await new Promise<number | null>((done) => child.on('exit', done));
  const match = /FIRST_STEP_AT (\d+\.\d+)/.exec(output);
  if (code !== 0 || !match) throw new Error(`${command.join(' ')} ended with ${code}:\n${output}`);
  return Number(match[1]) - startedAt;
}

const train = (data: string): string[] => [
  join(ROOT, 'bin/trainyard'),
  'train',
  SCRIPT,
  '--data',
  data,
  '--instances',
  '2',
  '--processes-per-host',
  '2',
  '--distribution',
  'torch_distributed',
];
const stop = (data: string): Promise<void> =>
  new Promise((done) => {
    spawn(join(ROOT, 'bin/trainyard'), ['serve', '--stop', '--data', data], { stdio: 'ignore' }).on(
      'exit',
      () => done(),
    );
  });

const peer = (): Promise<number> => firstStep([join(import.meta.dirname, 'peer.sh'), PYTHON, SCRIPT]);

async function round(): Promise<Record<string, number>> {
  const data = mkdtempSync(join(tmpdir(), 'trainyard-bench-'));
  const cold = mkdtempSync(join(tmpdir(), 'trainyard-bench-'));
  try {
    const result: Record<string, number> = { peer: await peer() };
    result['fresh'] = await firstStep(train(data));
    result['second'] = await firstStep(train(data));
    await stop(data);
    result['peer again'] = await peer();
    result['no fork server'] = await firstStep(train(cold), { TRAINYARD_PRELOAD: '0' });
    await stop(cold);
    return result;
  } finally {
    await stop(data);
    await stop(cold);
    rmSync(data, { recursive: true, force: true });
    rmSync(cold, { recursive: true, force: true });
  }
}

const quantile = (values: number[], q: number): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const low = Math.floor(at);
  return sorted[low]! + (sorted[Math.ceil(at)]! - sorted[low]!) * (at - low);
};

const results: Record<string, number>[] = [];
for (let index = 0; index < rounds; index++) {
  const result = await round();
  results.push(result);
  console.log(
    `round ${index + 1}: ${Object.entries(result)
      .map(([name, seconds]) => `${name} ${seconds.toFixed(2)} s`)
      .join(', ')}`,
  );
}
const peers = results.map((result) => (result['peer']! + result['peer again']!) / 2);
const lines = [
  `${cpus().length} × ${cpus()[0]?.model}, Node ${process.version}, ${rounds} rounds, 2 hosts × 2 ranks`,
  '',
  '| variant | min s | median s | max s | ratio to the peer, median | first and third quartile |',
  '| --- | --- | --- | --- | --- | --- |',
];
for (const name of ['peer', 'fresh', 'second', 'no fork server']) {
  const seconds = name === 'peer' ? peers : results.map((result) => result[name]!);
  const ratios = seconds.map((value, index) => value / peers[index]!);
  const row = [quantile(seconds, 0), quantile(seconds, 0.5), quantile(seconds, 1), quantile(ratios, 0.5)].map(
    (value) => value.toFixed(2),
  );
  lines.push(
    `| ${name} | ${row.join(' | ')} | ${quantile(ratios, 0.25).toFixed(2)} – ${quantile(ratios, 0.75).toFixed(2)} |`,
  );
}
console.log(`\n${lines.join('\n')}`);
writeFileSync(join(import.meta.dirname, 'results.md'), `${lines.join('\n')}\n`);
