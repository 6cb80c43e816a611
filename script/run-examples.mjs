// Runs the command of each example's README and compares what it reaches with what the README says. Writes the
// numbers in the form of vitest's JSON report. The service is one of its own and ends with this.
// usage: run-examples.mjs REPORT
import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
const examples = [
  'digits-ddp',
  'gpt-text',
  'huggingface',
  'mpi-numpy',
  'mxnet-servers',
  'smddp',
  'smp-pipeline',
  'smp-transform',
  'tensorflow-servers',
  'tensorflow-workers',
];
const programs = ['train', 'model-trainer', 'instance-groups'];
const environment = { ...process.env };
for (const name of Object.keys(environment)) if (/^AWS_(?!CA_BUNDLE)/.test(name)) delete environment[name];
const data = mkdtempSync(join(tmpdir(), 'trainyard-examples-'));
environment.TRAINYARD_DATA = data;

const outcomes = [];
try {
  for (const example of examples) outcomes.push(await check(`examples/${example}`, () => runReadme(example)));
  for (const program of programs) {
    const path = `examples/typescript/${program}.ts`;
    outcomes.push(await check(path, () => runTypeScript(path)));
  }
} finally {
  execFileSync(join(root, 'bin/trainyard'), ['serve', '--stop'], { env: environment, stdio: 'inherit' });
  rmSync(data, { recursive: true, force: true });
}
const failed = outcomes.filter(({ status }) => status === 'failed').length;
writeFileSync(
  process.argv[2],
  JSON.stringify({
    numPassedTests: outcomes.length - failed,
    numFailedTests: failed,
    numPendingTests: 0,
    numTodoTests: 0,
    testResults: [{ name: 'examples', status: failed > 0 ? 'failed' : 'passed', assertionResults: outcomes }],
  }),
);
process.exitCode = failed > 0 ? 1 : 0;

async function check(fullName, run) {
  const startedAt = Date.now();
  const seconds = () => ((Date.now() - startedAt) / 1000).toFixed(1);
  try {
    console.log(`ok   ${fullName}: ${await run()} (${seconds()} s)`);
    return { fullName, status: 'passed' };
  } catch (error) {
    console.log(`FAIL ${fullName} after ${seconds()} s: ${error.message}`);
    return { fullName, status: 'failed' };
  }
}

/** The README's first command, and its sentence "Reaches: `name` at most|at least NUMBER". */
async function runReadme(example) {
  const readme = readFileSync(join(root, 'examples', example, 'README.md'), 'utf8');
  const command = /```sh\n([\s\S]*?)```/.exec(readme)?.[1].trim();
  const goals = [...readme.matchAll(/^\| `(\w+)` \| (at most|at least) ([\d.]+) \|/gm)];
  if (!command || goals.length === 0) throw new Error('its README has no command or no table of results');
  const output = await shell(`${command} --json`);
  const events = output.split('\n').filter(Boolean).map((line) => JSON.parse(line));
  const result = events.at(-1);
  if (result.status !== 'Completed') throw new Error(`it ended ${result.status}: ${result.failureReason}`);
  const lines = events.filter(({ event }) => event === 'log').map(({ message }) => message);
  const reached = goals.map(([, name, bound, limit]) => {
    const value = lines.flatMap((line) => new RegExp(`\\b${name}=([\\d.]+)`).exec(line)?.[1] ?? []).at(-1);
    const isReached = bound === 'at most' ? Number(value) <= Number(limit) : Number(value) >= Number(limit);
    if (!isReached) throw new Error(`${name} is ${value}, and its README says ${bound} ${limit}`);
    return `${name} ${value}`;
  });
  return reached.join(', ');
}

async function runTypeScript(path) {
  const output = await shell(`bin/node ${path}`);
  const line = output.split('\n').find((text) => text.includes('left its model at'));
  if (!line) throw new Error(`it did not say where the model is:\n${output}`);
  return line;
}

function shell(command) {
  return new Promise((resolve, reject) => {
    execFile('sh', ['-c', command], { cwd: root, env: environment, maxBuffer: 1 << 28 }, (error, stdout, stderr) => {
      if (error) reject(new Error(`${command}: exit ${error.code}\n${stderr || stdout.split('\n').slice(-20).join('\n')}`));
      else resolve(stdout);
    });
  });
}
