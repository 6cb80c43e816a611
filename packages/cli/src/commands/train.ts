import type { CommonOptions, EstimatorBase, Session, SourceOptions } from '@trainyard/sdk';
import { Argument, Option, type Command } from 'commander';
import { EXIT_CODE, type ExitCode } from '../exit-code.ts';
import { followJob, printJson, printOutcome, type FollowTarget } from '../follow-job.ts';
import { downloadArtifacts } from '../model-download.ts';
import { collect, parseHyperparameters, parsePairs, wholeNumber } from '../pairs.ts';
import { terminalOn } from '../render/terminal.ts';
import { addSessionOptions, commandLine, openSession, type SessionFlags } from '../session-options.ts';
import {
  DISTRIBUTIONS,
  describeLaunch,
  FRAMEWORKS,
  type LaunchFlags,
  type LaunchOptions,
  launchOptions,
} from '../train-options.ts';
import { UserError } from '../user-error.ts';

interface TrainFlags extends SessionFlags, LaunchFlags {
  sourceDir?: string;
  dependency?: string[];
  hyperparameter?: string[];
  input?: string[];
  environment?: string[];
  metric?: string[];
  pyVersion?: string;
  image?: string;
  role?: string;
  jobName?: string;
  maxRun?: number;
  maxRetryAttempts?: number;
  checkpointS3Uri?: string;
  checkpointLocalPath?: string;
  outputPath?: string;
  output?: string;
  wait: boolean;
  dryRun?: boolean;
  json?: boolean;
}

/** Finds what most scripts print; `--metric` replaces it. Names of other losses (`val_loss=`) are left alone. */
const DEFAULT_METRIC = {
  Name: 'loss',
  Regex: String.raw`\b(?:train(?:ing)?[_ ])?loss['"]?\s*[=: ]\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)`,
};

export function addTrain(program: Command): void {
  const command = program
    .command('train')
    .description('run a script as a training job and follow it')
    .addArgument(
      new Argument('<script>', 'what every host starts: train.py, start.sh; inside --source-dir if given'),
    )
    .addOption(
      new Option('--framework <name>', 'what the script trains with')
        .choices(Object.keys(FRAMEWORKS))
        .default('pytorch'),
    )
    .option('--instances <n>', 'number of hosts (default: 1)', wholeNumber('--instances', 1))
    .option(
      '--processes-per-host <m>',
      'ranks on each host (default: its accelerators, else 1)',
      wholeNumber('--processes-per-host', 1),
    )
    .addOption(
      new Option('--distribution <name>', 'what starts the ranks')
        .choices(Object.keys(DISTRIBUTIONS))
        .default('none'),
    )
    .option(
      '-p, --hyperparameter <key=value>',
      'argument of the script, --key value; may be repeated',
      collect,
    )
    .option('--input <channel=path>', 'local file or folder, or s3:// URI; may be repeated', collect)
    .option('--source-dir <dir>', 'folder (or s3:// archive) with the script and all it needs')
    .option('--dependency <path>', 'further file or folder put beside the script; may be repeated', collect)
    .option('--environment <name=value>', 'variable that the script finds; may be repeated', collect)
    .option(
      '--metric <name=regex>',
      'metric read from the log, its value the first group; may be repeated (default: loss)',
      collect,
    )
    .option('--mpi-options <text>', 'further arguments of mpirun')
    .option(
      '--model-parallel <key=value>',
      'parameter of smdistributed.modelparallel; may be repeated',
      collect,
    )
    .option('--instance-type <type>', 'ml.g5.2xlarge…; outside AWS a label')
    .option(
      '--instance-group <name=type:count>',
      'hosts of one type in a heterogeneous cluster, instead of --instances; may be repeated',
      collect,
    )
    .option('--distribution-group <name>', 'the group that the distribution starts ranks on')
    .option(
      '--framework-version <version>',
      'of the framework in the image, e.g. 2.8.0 (huggingface: of PyTorch below)',
    )
    .option('--transformers-version <version>', 'of transformers in the image (huggingface)')
    .option('--py-version <version>', 'Python of the image, e.g. py312')
    .option('--image <uri>', 'training image instead of the one for the versions')
    .option('--role <arn>', 'IAM role; needed on AWS')
    .option(
      '--job-name <name>',
      'at most 63 letters, digits and hyphens (default: from the image and the time)',
    )
    .option('--max-run <seconds>', 'stop it after so long (default: 86400)', wholeNumber('--max-run', 1))
    .option(
      '--max-retry-attempts <n>',
      'attempts after the first when a host fails',
      wholeNumber('--max-retry-attempts', 1),
    )
    .option('--checkpoint-s3-uri <uri>', 'where checkpoints are kept and restored from')
    .option('--checkpoint-local-path <dir>', 'where the script writes them (default: /opt/ml/checkpoints)')
    .option('--output-path <uri>', 'S3 prefix for the artifacts')
    .option('--output <dir>', 'also put model.tar.gz into this folder')
    .option('--no-wait', 'return once the job is accepted')
    .option('--dry-run', 'print the request instead of sending it')
    .option('--json', 'one JSON line per event, the result last');
  addSessionOptions(command).action(async (script: string, flags: TrainFlags) => {
    process.exitCode = await train(script, flags);
  });
}

async function train(script: string, flags: TrainFlags): Promise<ExitCode> {
  const target: FollowTarget = { terminal: terminalOn(process.stdout), json: flags.json ?? false };
  if (!flags.wait && flags.output !== undefined)
    throw new UserError('--output needs the end of the job, so it cannot be used with --no-wait.');
  const inputs = parsePairs('--input', flags.input);
  const launch = launchOptions(flags);
  const session = await openSession(flags, (warning) =>
    warn(target, `${warning.field}: ${warning.rule} ${warning.nextStep}`),
  );
  const estimator = await makeEstimator(flags, { ...estimatorOptions(script, flags, session), ...launch });
  const naming = flags.jobName === undefined ? {} : { jobName: flags.jobName };
  if (flags.dryRun) {
    const { request } = await estimator.render(inputs, naming);
    target.terminal.write(`${JSON.stringify(request, null, target.json ? 0 : 2)}\n`);
    return EXIT_CODE.completed;
  }
  const job = await estimator.fit(inputs, { ...naming, wait: false });
  announce(job.name, flags, target);
  if (!flags.wait) return EXIT_CODE.completed;
  const followed = await followJob(job, target, flags);
  if (followed.isDetached) return followed.exitCode;
  const isFetched = flags.output !== undefined && followed.exitCode === EXIT_CODE.completed;
  const files = isFetched ? await downloadArtifacts(job, flags.output ?? '.') : [];
  printOutcome(followed.description, target, { flags, modelPath: files[0]?.path ?? null });
  return followed.exitCode;
}

type Options = CommonOptions & SourceOptions & { pyVersion?: string; imageUri?: string };

async function makeEstimator(
  { framework }: TrainFlags,
  options: Options & LaunchOptions,
): Promise<EstimatorBase> {
  const sdk = await import('@trainyard/sdk');
  // Which combinations there are is checked when the estimator is made, with every problem at once.
  const Framework = sdk[FRAMEWORKS[framework]] as new (options: never) => EstimatorBase;
  return new Framework(options as never);
}

function estimatorOptions(script: string, flags: TrainFlags, session: Session): Options {
  const metrics = Object.entries(parsePairs('--metric', flags.metric)).map(([Name, Regex]) => ({
    Name,
    Regex,
  }));
  const environment = parsePairs('--environment', flags.environment);
  return {
    session,
    entryPoint: script,
    sourceDir: flags.sourceDir,
    dependencies: flags.dependency,
    hyperparameters: parseHyperparameters('-p', flags.hyperparameter),
    environment: Object.keys(environment).length > 0 ? environment : undefined,
    metricDefinitions: metrics.length > 0 ? metrics : [DEFAULT_METRIC],
    pyVersion: flags.pyVersion,
    imageUri: flags.image,
    role: flags.role,
    maxRun: flags.maxRun,
    maxRetryAttempts: flags.maxRetryAttempts,
    checkpointS3Uri: flags.checkpointS3Uri,
    checkpointLocalPath: flags.checkpointLocalPath,
    outputPath: flags.outputPath,
  };
}

function announce(name: string, flags: TrainFlags, target: FollowTarget): void {
  if (target.json) return printJson(target.terminal, { event: 'created', job: name });
  const { write, style } = target.terminal;
  write(`${style('bold', name)}  ${describeLaunch(flags)}\n`);
  if (!flags.wait) write(`Follow it with: ${commandLine(['jobs', 'logs', name, '--follow'], flags)}\n`);
}

/** Warnings go where they disturb neither the view, which has not begun, nor JSON. */
function warn({ json }: FollowTarget, message: string): void {
  if (json) process.stderr.write(`${JSON.stringify({ event: 'warning', message })}\n`);
  else process.stderr.write(`note ${message}\n`);
}
