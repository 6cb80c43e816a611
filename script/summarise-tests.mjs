// Reads what the stages of script/test left and prints a table and the plain last line. Exits 1 on any failure.
// usage: summarise-tests.mjs RESULTS_DIR SECONDS
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const [folder, seconds] = process.argv.slice(2);
const stagesFile = join(folder, 'stages.tsv');
const stages = existsSync(stagesFile)
  ? readFileSync(stagesFile, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => line.split('\t'))
  : [];

const total = { passed: 0, failed: 0, skipped: 0 };
console.log('\n== summary');
for (const [name, status, stageSeconds, reason] of stages) {
  const counts = status === 'skipped' ? { passed: 0, failed: 0, skipped: 1, failures: [] } : countsOf(name);
  // A stage that broke before it could count anything, or after, is a failure by itself.
  if (status !== 'skipped' && status !== '0' && counts.failed === 0) counts.failed = 1;
  for (const key of Object.keys(total)) total[key] += counts[key];
  const outcome = status === 'skipped' ? `skipped: ${reason}` : counts.failed > 0 ? 'FAILED' : 'ok';
  const numbers = counts.passed + counts.failed + counts.skipped > 0 && status !== 'skipped' ? describe(counts) : '';
  console.log(`${name.padEnd(18)} ${`${stageSeconds} s`.padStart(6)}  ${outcome.padEnd(8)} ${numbers}`.trimEnd());
  for (const failure of counts.failures) console.log(`    ${failure}`);
}
if (stages.length === 0) {
  console.log('no stage ran');
  total.failed += 1;
}
console.log(`${Math.floor(seconds / 60)} min ${seconds % 60} s`);
console.log(describe(total));
process.exitCode = total.failed > 0 ? 1 : 0;

function describe({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/** Numbers of a stage by the report that it wrote: vitest's JSON, ours in the same form, or JUnit's XML of pytest. */
function countsOf(name) {
  const [json, xml] = [join(folder, `${name}.json`), join(folder, `${name}.xml`)];
  if (existsSync(json)) return countsOfVitest(JSON.parse(readFileSync(json, 'utf8')));
  if (existsSync(xml)) return countsOfJunit(readFileSync(xml, 'utf8'));
  return { passed: 0, failed: 0, skipped: 0, failures: [] };
}

function countsOfVitest(report) {
  // A file that could not be loaded, or whose set-up failed, has no failed test of its own.
  const broken = report.testResults.filter(
    ({ status, assertionResults }) => status === 'failed' && !assertionResults.some((test) => test.status === 'failed'),
  );
  const failed = report.testResults.flatMap(({ name, assertionResults }) =>
    assertionResults.filter((test) => test.status === 'failed').map((test) => `${relative(name)}: ${test.fullName}`),
  );
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests + broken.length,
    skipped: report.numPendingTests + report.numTodoTests,
    failures: [...failed, ...broken.map(({ name }) => `${relative(name)}: did not load or set up`)],
  };
}

function countsOfJunit(text) {
  const suites = [...text.matchAll(/<testsuite [^>]*>/g)].map(([tag]) => tag);
  const sum = (attribute) =>
    suites.reduce((total, tag) => total + Number(new RegExp(`\\b${attribute}="(\\d+)"`).exec(tag)?.[1] ?? 0), 0);
  const failed = sum('failures') + sum('errors');
  return { passed: sum('tests') - failed - sum('skipped'), failed, skipped: sum('skipped'), failures: [] };
}

function relative(path) {
  return path.startsWith(process.cwd()) ? path.slice(process.cwd().length + 1) : path;
}
