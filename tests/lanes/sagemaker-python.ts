import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { runClient } from '../support/clients.ts';
import { BUCKET, ROLE, ROOT, type TestService } from '../support/service.ts';

const run = promisify(execFile);

/** The unmodified SageMaker Python SDKs, pinned so that a failure is ours. */
const REQUIREMENTS = { v2: 'sagemaker==2.257.7', v3: 'sagemaker==3.27.0' } as const;
export type SdkVersion = keyof typeof REQUIREMENTS;

export const SCRIPTS = join(import.meta.dirname, 'scripts');

/** The interpreter of an environment with the SDK, made on first use (git ignores it) and then kept. */
export async function sdkPython(version: SdkVersion): Promise<string> {
  const folder = join(ROOT, `.trainyard/lanes/sagemaker-${version}`);
  const stamp = join(folder, '.complete');
  const python = join(folder, 'bin/python');
  const requirement = REQUIREMENTS[version];
  if ((await readFile(stamp, 'utf8').catch(() => '')) === requirement) return python;
  const uv = process.env['TRAINYARD_UV'] ?? join(ROOT, '.trainyard/tools/bin/uv');
  if (!existsSync(uv))
    throw new Error(`uv is needed to install ${requirement} and is not at ${uv}. Run script/bootstrap.`);
  await rm(folder, { recursive: true, force: true });
  await mkdir(join(folder, '..'), { recursive: true });
  const base = process.env['TRAINYARD_INIT_PYTHON'] ?? 'python3';
  await run(uv, ['venv', '--quiet', '--seed', '--python', base, folder]);
  await run(uv, ['pip', 'install', '--quiet', '--python', python, requirement]);
  await writeFile(stamp, requirement);
  return python;
}

/** What a user writes once: where the bucket is, since both SDKs ask AWS's own STS for the account otherwise. */
const SDK_CONFIG = `SchemaVersion: '1.0'
SageMaker:
  PythonSDK:
    Modules:
      TelemetryOptOut: true
      Session:
        DefaultS3Bucket: ${BUCKET}
`;

export interface Fitted {
  /** Both outputs of the program: what a user sees, with the job's log lines. */
  output: string;
  /** DescribeTrainingJob as the SDK got it after the end. */
  description: {
    TrainingJobName: string;
    TrainingJobStatus: string;
    SecondaryStatus: string;
    FailureReason?: string;
    [member: string]: unknown;
  };
}

const V2 = `
import json, warnings
warnings.filterwarnings('ignore')
from sagemaker.session import Session
from sagemaker.estimator import Estimator
from sagemaker.inputs import FileSystemInput, TrainingInput
from sagemaker.instance_group import InstanceGroup
from sagemaker.pytorch import PyTorch
from sagemaker.tensorflow import TensorFlow
from sagemaker.mxnet import MXNet
from sagemaker.huggingface import HuggingFace

session = Session()
common = dict(source_dir=${JSON.stringify(SCRIPTS)}, role=${JSON.stringify(ROLE)}, sagemaker_session=session, max_run=600)

def answer(estimator):
    description = session.describe_training_job(estimator.latest_training_job.name)
    print('ANSWER ' + json.dumps(description, default=str))
`;

const V3 = `
import boto3, json, logging, warnings
warnings.filterwarnings('ignore')
# Version 3 leaves it to the program whether what it logs is seen.
logging.basicConfig(level=logging.INFO, format='%(message)s')
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode
from sagemaker.train.distributed import MPI, SMP, Torchrun

scripts = ${JSON.stringify(SCRIPTS)}
role = ${JSON.stringify(ROLE)}

def answer(trainer):
    name = trainer._latest_training_job.training_job_name
    description = boto3.client('sagemaker').describe_training_job(TrainingJobName=name)
    print('ANSWER ' + json.dumps(description, default=str))
`;

/**
 * Runs a program of one of the SDKs against the service. It ends with `answer(…)` of the estimator or trainer that it ran to the end.
 *
 * @throws Error with what it printed when it failed, which it does when the job does
 */
export async function runSdk(service: TestService, version: SdkVersion, program: string): Promise<Fitted> {
  const config = join(service.dataDir, '..', `sagemaker-config-${process.pid}.yaml`);
  await writeFile(config, SDK_CONFIG);
  try {
    const { code, stdout, stderr } = await runClient(
      await sdkPython(version),
      ['-u', '-c', (version === 'v2' ? V2 : V3) + program],
      {
        environment: { ...service.environment, SAGEMAKER_USER_CONFIG_OVERRIDE: config, COLUMNS: '200' },
        home: service.dataDir,
        timeoutMs: 540_000,
      },
    );
    const line = stdout.split('\n').findLast((each) => each.startsWith('ANSWER '));
    if (code !== 0 || line === undefined)
      throw new Error(`the program ended with ${code}:\n${stdout}\n${stderr}`);
    return {
      output: `${stdout}\n${stderr}`,
      description: JSON.parse(line.slice('ANSWER '.length)) as Fitted['description'],
    };
  } finally {
    await rm(config, { force: true });
  }
}

/** The JSON objects that scripts print as `RESULT {…}`, as far as the SDK showed them. */
export function resultsOf(output: string): Record<string, unknown>[] {
  return [...output.matchAll(/RESULT (\{.*?\})(?=\s|$)/gm)].map(
    ([, text]) => JSON.parse(text!) as Record<string, unknown>,
  );
}
