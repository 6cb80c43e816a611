import { execFile } from 'node:child_process';
import { request as httpRequest } from 'node:http';
import { createRequire } from 'node:module';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { awsCli, boto3 } from '../support/clients.ts';
import { BUCKET, startService, type TestService } from '../support/service.ts';
import { until } from '../support/until.ts';

const run = promisify(execFile);

/** Sends the path as it stands: fetch would resolve its dots. */
function send(method: string, url: string): Promise<string> {
  const [, host, port, path] = /^http:\/\/([^:/]+):(\d+)(.*)$/.exec(url) ?? [];
  return new Promise((resolve, reject) => {
    httpRequest({ method, host, port, path, agent: false }, (response) => {
      text(response).then((body) => resolve(`${response.statusCode} ${body}`), reject);
    })
      .on('error', reject)
      .end();
  });
}
const require = createRequire(import.meta.url);
const { SageMakerClient, ListModelsCommand, ListTrainingJobsCommand } =
  require('@aws-sdk/client-sagemaker') as typeof import('@aws-sdk/client-sagemaker');
const { STSClient, GetCallerIdentityCommand } =
  require('@aws-sdk/client-sts') as typeof import('@aws-sdk/client-sts');

let service: TestService;
beforeAll(async () => {
  service = await startService();
});
afterAll(() => service?.dispose());

const javascript = (): { endpoint: string; region: string; credentials: TestService['credentials'] } => ({
  endpoint: service.url,
  region: 'us-west-2',
  credentials: service.credentials,
});

const REFUSALS = `
calls = {'sagemaker': lambda c: c.list_training_jobs(), 'logs': lambda c: c.describe_log_groups(),
         'sts': lambda c: c.get_caller_identity(), 's3': lambda c: c.list_buckets()}
def refusal(service, **change):
    key = {'aws_access_key_id': os.environ['AWS_ACCESS_KEY_ID'], 'aws_secret_access_key': os.environ['AWS_SECRET_ACCESS_KEY']}
    try:
        calls[service](client(service, **{**key, **change}))
    except ClientError as error:
        meta = error.response['ResponseMetadata']
        return [error.response['Error']['Code'], meta['HTTPStatusCode'], meta['RetryAttempts'], bool(meta['RequestId'])]
`;

describe('boto3', () => {
  test('is known by every service', async () => {
    const result = await boto3(
      service,
      `answer([call(client(name)) is not None for name, call in calls.items()])`,
      REFUSALS,
    );
    expect(result).toEqual([true, true, true, true]);
  });

  test.each([
    [
      'a wrong secret',
      `aws_secret_access_key='wrong'`,
      {
        sagemaker: ['InvalidSignatureException', 403],
        logs: ['InvalidSignatureException', 403],
        sts: ['SignatureDoesNotMatch', 403],
        s3: ['SignatureDoesNotMatch', 403],
      },
    ],
    [
      'an unknown key',
      `aws_access_key_id='AKIANOBODY'`,
      {
        sagemaker: ['UnrecognizedClientException', 403],
        logs: ['UnrecognizedClientException', 403],
        sts: ['InvalidClientTokenId', 403],
        s3: ['InvalidAccessKeyId', 403],
      },
    ],
    [
      'a token that nobody gave',
      `aws_session_token='made-up'`,
      {
        sagemaker: ['UnrecognizedClientException', 403],
        logs: ['UnrecognizedClientException', 403],
        sts: ['InvalidClientTokenId', 403],
        s3: ['InvalidToken', 400],
      },
    ],
  ])(
    'reports %s with the code of each service, without trying again',
    async (_title, credentials, expected) => {
      const result = await boto3(
        service,
        `answer({name: refusal(name, ${credentials}) for name in calls})`,
        REFUSALS,
      );
      for (const [name, [code, status]] of Object.entries(expected)) {
        expect(result).toHaveProperty(name, [code, status, 0, true]);
      }
    },
  );

  test.each([
    ['by its default, SigV2', 'Config()'],
    ['by SigV4', `Config(signature_version='s3v4')`],
  ])('presigns URLs %s that open one object, for a time', async (_title, config) => {
    const [fresh, short] = (await boto3(
      service,
      `
s3 = client('s3', config=${config})
params = {'Bucket': '${BUCKET}', 'Key': 'a b/../c'}
s3.put_object(Body=b'content', **params)
answer([s3.generate_presigned_url('get_object', Params=params, ExpiresIn=seconds) for seconds in (60, 1)])`,
    )) as [string, string];
    expect(await send('GET', fresh)).toBe('200 content');
    expect(await send('GET', fresh.replace('/c?', '/d?'))).toMatch(/^403 .*SignatureDoesNotMatch/s);
    expect(await send('DELETE', fresh)).toMatch(/^403 .*SignatureDoesNotMatch/s);
    const expired = await until('the URL to expire', async () => {
      const answer = await send('GET', short);
      return answer.startsWith('403') && answer;
    });
    expect(expired).toContain('<Code>AccessDenied</Code><Message>Request has expired</Message>');
  });
});

describe('the AWS CLI', () => {
  test('finds an assumed role', async () => {
    const { stdout } = await awsCli(service, [
      'sts',
      'get-caller-identity',
      '--query',
      'Arn',
      '--output',
      'text',
    ]);
    expect(stdout.trim()).toMatch(/^arn:aws:sts::\d{12}:assumed-role\/[^/]+\/[^/]+$/);
  });

  test('shows a refusal in the words of the service and ends with 255', async () => {
    const wrong = { AWS_SECRET_ACCESS_KEY: 'wrong' };
    await expect(awsCli(service, ['sagemaker', 'list-training-jobs'], wrong)).rejects.toMatchObject({
      code: 255,
      stderr: expect.stringContaining(
        'An error occurred (InvalidSignatureException) when calling the ListTrainingJobs operation',
      ),
    });
  });
});

describe('the AWS SDK for JavaScript', () => {
  test('finds the same caller as the CLI', async () => {
    const { Arn, UserId } = await new STSClient(javascript()).send(new GetCallerIdentityCommand({}));
    expect(Arn).toContain(':assumed-role/');
    expect(UserId?.split(':')[1]).toBe(Arn?.split('/').at(-1));
  });

  test('gets a refusal that it does not repeat for an operation that is not served', async () => {
    const error = await new SageMakerClient(javascript())
      .send(new ListModelsCommand({}))
      .catch((caught: unknown) => caught);
    expect(error).toMatchObject({
      name: 'ValidationException',
      message: expect.stringContaining('sagemaker:ListModels is not served here; docs/compatibility.md'),
      $metadata: { httpStatusCode: 400, attempts: 1, requestId: expect.stringMatching(/^[0-9a-f-]{36}$/) },
    });
  });

  test('gets an error with code, status and id for a wrong secret', async () => {
    const credentials = { ...service.credentials, secretAccessKey: 'wrong' };
    const call = new SageMakerClient({ ...javascript(), credentials }).send(new ListTrainingJobsCommand({}));
    await expect(call).rejects.toMatchObject({
      name: 'InvalidSignatureException',
      $metadata: { httpStatusCode: 403, requestId: expect.any(String) },
    });
  });

  test.each([-20, 20])(
    'sets a clock that is %i minutes off right by our date, for JSON and for S3',
    async (minutes) => {
      const program = `
      const RealDate = Date;
      const now = () => RealDate.now() + ${minutes} * 60000;
      globalThis.Date = class extends RealDate {
        constructor(...parts) { if (parts.length === 0) super(now()); else super(...parts); }
        static now() { return now(); }
      };
      const { SageMakerClient, ListTrainingJobsCommand } = require('@aws-sdk/client-sagemaker');
      const { S3Client, ListBucketsCommand } = require('@aws-sdk/client-s3');
      (async () => {
        const attempts = [];
        for (const [client, command] of [[new SageMakerClient({}), new ListTrainingJobsCommand({})], [new S3Client({}), new ListBucketsCommand({})]]) {
          attempts.push((await client.send(command)).$metadata.attempts);
        }
        console.log(JSON.stringify(attempts));
      })();`;
      const { stdout } = await run(process.execPath, ['-e', program], {
        cwd: import.meta.dirname,
        env: { PATH: process.env['PATH'], ...service.environment },
      });
      expect(JSON.parse(stdout)).toEqual([2, 2]);
    },
  );
});
