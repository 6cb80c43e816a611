import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseResponse, serializeRequest, serializeResponse } from './codec.ts';
import { compilePattern } from './constraints.ts';
import { ServiceError } from './errors.ts';
import type { CreateTrainingJobRequest } from './generated/sagemaker.ts';
import { modelOf, operationStatus, type ServiceName } from './models.ts';
import { type ParseOptions, parseRequest } from './validate.ts';

const minimal = {
  TrainingJobName: 'job-1',
  RoleArn: 'arn:aws:iam::123456789012:role/x',
  OutputDataConfig: { S3OutputPath: 's3://b/out' },
};

const parse = (body: unknown, options?: ParseOptions) =>
  parseRequest<CreateTrainingJobRequest>('sagemaker', 'CreateTrainingJob', body, options);

function refusal(act: () => unknown): ServiceError {
  try {
    act();
  } catch (error) {
    if (error instanceof ServiceError) return error;
    throw error;
  }
  throw new Error('was accepted');
}
const messageFor = (change: object, options?: ParseOptions) =>
  refusal(() => parse({ ...minimal, ...change }, options)).message;

describe('a request that fits', () => {
  test('comes back without unknown members and nulls, as a copy', () => {
    const body = { ...minimal, Unknown: { deep: 1 }, Tags: null, HyperParameters: { lr: '0.1' } };
    const parsed = parse(body);
    expect(parsed).toEqual({ ...minimal, HyperParameters: { lr: '0.1' } });
    expect(parsed.HyperParameters).not.toBe(body.HyperParameters);
  });

  test('keeps __proto__ as a key of its map and touches no prototype', () => {
    const body = JSON.parse(
      JSON.stringify(minimal).replace(
        /}$/,
        ',"__proto__":{"polluted":1},"HyperParameters":{"__proto__":"x","constructor":"y"}}',
      ),
    );
    const parsed = parse(body);
    expect(Object.keys(parsed.HyperParameters!)).toEqual(['__proto__', 'constructor']);
    expect(JSON.stringify(parsed.HyperParameters)).toBe('{"__proto__":"x","constructor":"y"}');
    expect(Object.keys(parsed)).toEqual([
      'TrainingJobName',
      'HyperParameters',
      'RoleArn',
      'OutputDataConfig',
    ]);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });

  test('takes members only from the body itself', () => {
    const body = Object.assign(Object.create({ Tags: [{ Key: 'a', Value: 'b' }] }), minimal);
    expect(parse(body)).not.toHaveProperty('Tags');
  });

  test('turns timestamps into dates, with fractions', () => {
    const list = (at: unknown) =>
      parseRequest<{ CreationTimeAfter: Date }>('sagemaker', 'ListTrainingJobs', { CreationTimeAfter: at })
        .CreationTimeAfter;
    expect(list(1_795_368_620.238).toISOString()).toBe('2026-11-22T17:30:20.238Z');
    expect(list('2026-11-22T17:30:20.238Z')).toEqual(list(1_795_368_620.238));
  });

  test('may name any well-formed instance type, unless the service says which it has', () => {
    const of = (InstanceType: string) => ({ ResourceConfig: { InstanceType, InstanceCount: 2 } });
    expect(parse({ ...minimal, ...of('trainyard.h200') }).ResourceConfig?.InstanceType).toBe(
      'trainyard.h200',
    );
    expect(messageFor(of('ml.p5'), { enums: { TrainingInstanceType: ['ml.local', 'trainyard.h200'] } })).toBe(
      "1 validation error detected: Value 'ml.p5' at 'resourceConfig.instanceType' failed to satisfy constraint: " +
        'Member must satisfy enum value set: [ml.local, trainyard.h200]',
    );
  });

  test('counts length in code points', () => {
    const tag = (value: string) => ({ ...minimal, Environment: { A: value } });
    expect(parse(tag('🚂'.repeat(512)))).toBeDefined();
    expect(() => parse(tag('🚂'.repeat(513)))).toThrow();
  });
});

describe("AWS's words for", () => {
  const of = (path: string, value: string, constraint: string) =>
    `Value ${value} at '${path}' failed to satisfy constraint: ${constraint}`;
  const one = (violation: string) => `1 validation error detected: ${violation}`;

  // https://github.com/zenml-io/zenml/issues/1502
  test('a name that is too long in letters: pattern, then length', () => {
    const name = 'basic-zenml-project-pipeline-2023-04-24-12-22-59-886794-step-show-sagemaker-s3-link';
    expect(messageFor({ TrainingJobName: name })).toBe(
      `2 validation errors detected: Value '${name}' at 'trainingJobName' failed to satisfy constraint: Member must ` +
        `satisfy regular expression pattern: ^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}; Value '${name}' at 'trainingJobName' ` +
        'failed to satisfy constraint: Member must have length less than or equal to 63',
    );
  });
  // https://github.com/zenml-io/zenml/issues/1517
  test('a name that is too long by its hyphens', () => {
    const name = 'generic-training-pipeline-2023-04-12-15-36-41-124330-model-trainer';
    expect(messageFor({ TrainingJobName: name })).toBe(
      one(of('trainingJobName', `'${name}'`, 'Member must have length less than or equal to 63')),
    );
  });
  test('missing members, all together', () => {
    expect(refusal(() => parse({})).message).toBe(
      `3 validation errors detected: ${['trainingJobName', 'roleArn', 'outputDataConfig']
        .map((path) => of(path, 'null', 'Member must not be null'))
        .join('; ')}`,
    );
  });
  test('a member inside a list', () => {
    const DataSource = { S3DataSource: { S3DataType: 'S3Prefix', S3Uri: 'bucket/key' } };
    expect(messageFor({ InputDataConfig: [{ ChannelName: 'a', DataSource }] })).toBe(
      one(
        of(
          'inputDataConfig.1.member.dataSource.s3DataSource.s3Uri',
          "'bucket/key'",
          'Member must satisfy regular expression pattern: ^(https|s3)://([^/]+)/?(.*)$',
        ),
      ),
    );
  });
  test('an enum', () => {
    expect(messageFor({ AlgorithmSpecification: { TrainingInputMode: 'Bogus' } })).toBe(
      one(
        of(
          'algorithmSpecification.trainingInputMode',
          "'Bogus'",
          'Member must satisfy enum value set: [Pipe, File, FastFile]',
        ),
      ),
    );
  });
  test('numbers', () => {
    expect(messageFor({ RetryStrategy: { MaximumRetryAttempts: 31 } })).toBe(
      one(
        of('retryStrategy.maximumRetryAttempts', "'31'", 'Member must have value less than or equal to 30'),
      ),
    );
    expect(messageFor({ StoppingCondition: { MaxRuntimeInSeconds: 0 } })).toBe(
      one(
        of(
          'stoppingCondition.maxRuntimeInSeconds',
          "'0'",
          'Member must have value greater than or equal to 1',
        ),
      ),
    );
  });
  // https://github.com/aws-samples/amazon-sagemaker-pytorch-detectron2/issues/10
  test('the values of a map', () => {
    const long = 'v'.repeat(2501);
    expect(messageFor({ HyperParameters: { k: long, ok: '1' } })).toBe(
      one(
        of(
          'hyperParameters',
          `'{k=${long}, ok=1}'`,
          'Map value must satisfy constraint: [Member must have length less than or equal to 2500, Member must have ' +
            'length greater than or equal to 0, Member must satisfy regular expression pattern: .*]',
        ),
      ),
    );
  });
  test('the keys of a map', () => {
    expect(messageFor({ Environment: { '1A': 'x' } })).toBe(
      one(
        of(
          'environment',
          "'{1A=x}'",
          'Map keys must satisfy constraint: [Member must have length less than or equal to 512, Member must have ' +
            'length greater than or equal to 0, Member must satisfy regular expression pattern: [a-zA-Z_][a-zA-Z0-9_]*]',
        ),
      ),
    );
  });
  test('the entries of a list', () => {
    expect(messageFor({ VpcConfig: { SecurityGroupIds: ['sg_1', 'sg-2'], Subnets: ['subnet-1'] } })).toBe(
      one(
        of(
          'vpcConfig.securityGroupIds',
          "'[sg_1, sg-2]'",
          'Member must satisfy constraint: [Member must have length less than or equal to 32, Member must have ' +
            'length greater than or equal to 0, Member must satisfy regular expression pattern: [-0-9a-zA-Z]+]',
        ),
      ),
    );
  });
  test('the size of lists and maps', () => {
    expect(messageFor({ InputDataConfig: [] })).toBe(
      one(of('inputDataConfig', "'[]'", 'Member must have length greater than or equal to 1')),
    );
    const HyperParameters = Object.fromEntries(Array.from({ length: 101 }, (_, at) => [`k${at}`, '']));
    expect(messageFor({ HyperParameters })).toMatch(/Member must have length less than or equal to 100$/);
  });
  test('null where a member of a list or map must be', () => {
    expect(messageFor({ Tags: [null] })).toBe(one(of('tags.1.member', 'null', 'Member must not be null')));
    expect(messageFor({ Environment: { A: null } })).toMatch(/, Member must not be null\]$/);
  });
  test("a newline where Java's dot does not match one", () => {
    expect(messageFor({ HyperParameters: { k: 'a\nb' } })).toMatch(
      /^1 validation error detected: .*Map value/s,
    );
    expect(parse({ ...minimal, Environment: { A: 'a\nb' } })).toBeDefined();
  });
});

describe('the wrong JSON type is a SerializationException naming place, found and wanted', () => {
  test.each([
    [
      'a number for a string',
      { TrainingJobName: 42 },
      "'trainingJobName': NUMBER_VALUE 42 can not be converted to a String",
    ],
    [
      'a string for an integer',
      { ResourceConfig: { InstanceCount: 'two' } },
      "'resourceConfig.instanceCount': STRING_VALUE can not be converted to an Integer",
    ],
    [
      'a fraction for an integer',
      { ResourceConfig: { InstanceCount: 1.5 } },
      "'resourceConfig.instanceCount': NUMBER_VALUE 1.5 can not be converted to an Integer",
    ],
    [
      'more than 32 bits for an integer',
      { ResourceConfig: { InstanceCount: 2 ** 31 } },
      "'resourceConfig.instanceCount': NUMBER_VALUE 2147483648 can not be converted to an Integer",
    ],
    [
      'a string for a boolean',
      { EnableNetworkIsolation: 'true' },
      "'enableNetworkIsolation': STRING_VALUE can not be converted to a Boolean",
    ],
    ['an object for a list', { Tags: {} }, "'tags': START_OBJECT can not be converted to a List"],
    [
      'a list for a structure',
      { OutputDataConfig: [] },
      "'outputDataConfig': START_ARRAY can not be converted to a Structure",
    ],
    [
      'a list for a map',
      { HyperParameters: [] },
      "'hyperParameters': START_ARRAY can not be converted to a Map",
    ],
    [
      'a number in a map',
      { HyperParameters: { lr: 0.1 } },
      "'hyperParameters.lr': NUMBER_VALUE 0.1 can not be converted to a String",
    ],
    [
      'a boolean in a list',
      { VpcConfig: { Subnets: [true], SecurityGroupIds: ['a'] } },
      "'vpcConfig.subnets.1.member': BOOLEAN_VALUE can not be converted to a String",
    ],
  ])('%s', (_title, change, message) => {
    expect(refusal(() => parse({ ...minimal, ...change }))).toMatchObject({
      code: 'SerializationException',
      status: 400,
      message,
    });
  });
  test.each([null, [], 'text', 1, undefined])('the body %j', (body) => {
    expect(refusal(() => parse(body)).code).toBe('SerializationException');
  });
});

test('hostile bodies are refused or accepted, never thrown over', () => {
  const nested = JSON.parse(`${'[{"Key":'.repeat(4000)}1${'}]'.repeat(4000)}`) as unknown;
  expect(refusal(() => parse({ ...minimal, Tags: nested })).code).toBe('SerializationException');
  expect(refusal(() => parse({ ...minimal, TrainingJobName: '', Unknown: nested })).code).toBe(
    'ValidationException',
  );
  expect(
    refusal(() => parse({ ...minimal, Tags: Array(51).fill({ Key: 'a', Value: '', x: nested }) })).code,
  ).toBe('ValidationException');
  fc.assert(
    fc.property(
      fc.dictionary(
        fc.constantFrom(...Object.keys(modelOf('sagemaker').shapes.CreateTrainingJobRequest!.members!)),
        fc.jsonValue(),
      ),
      (body) => {
        try {
          parse(body);
        } catch (error) {
          expect(error).toBeInstanceOf(ServiceError);
        }
      },
    ),
  );
});

describe('the generated tables', () => {
  const services: ServiceName[] = ['sagemaker', 'logs', 'sts'];
  test.each(services)('of %s are closed: every name leads to a shape, every pattern compiles', (service) => {
    const { shapes, operations } = modelOf(service);
    const named = Object.values(shapes).flatMap((shape) => [
      ...Object.values(shape.members ?? {}),
      ...[shape.member, shape.key, shape.value].filter((name) => name !== undefined),
    ]);
    for (const name of [
      ...named,
      ...Object.values(operations).flatMap(({ input, output }) => [input ?? [], output ?? []].flat()),
    ]) {
      expect(shapes, name).toHaveProperty([name]);
    }
    for (const shape of Object.values(shapes)) {
      if (shape.pattern !== undefined) expect(compilePattern(shape)).toBeInstanceOf(RegExp);
      for (const member of shape.required ?? []) expect(shape.members).toHaveProperty([member]);
    }
  });
  test('tell a served operation from one that AWS alone has, and from none', () => {
    expect(operationStatus('sagemaker', 'CreateTrainingJob')).toBe('served');
    expect(operationStatus('sagemaker', 'CreateEndpoint')).toBe('known');
    expect(operationStatus('sagemaker', 'CreateTrainingJobs')).toBe('unknown');
    expect(operationStatus('sagemaker', '__proto__')).toBe('unknown');
    expect(operationStatus('logs', 'StartLiveTail')).toBe('known');
    expect(() => parseRequest('sagemaker', 'CreateEndpoint', {})).toThrow(TypeError);
  });
});

describe('a response', () => {
  const at = new Date('2026-11-22T17:30:20.238Z');
  const summary = {
    TrainingJobName: 'a',
    TrainingJobArn: 'arn:aws:sagemaker:us-west-2:123456789012:training-job/a',
    CreationTime: at,
    TrainingJobStatus: 'InProgress',
  };
  test('has epoch seconds and no member outside the model', () => {
    const json = serializeResponse('sagemaker', 'ListTrainingJobs', {
      TrainingJobSummaries: [{ ...summary, secret: 1, TrainingEndTime: undefined }],
      secret: 1,
    });
    expect(json).toEqual({ TrainingJobSummaries: [{ ...summary, CreationTime: 1_795_368_620.238 }] });
    expect(parseResponse('sagemaker', 'ListTrainingJobs', JSON.parse(JSON.stringify(json)))).toEqual({
      TrainingJobSummaries: [summary],
    });
  });
  test('of Logs keeps milliseconds as they are', () => {
    const events = {
      events: [{ timestamp: at.getTime(), message: 'x', ingestionTime: at.getTime() }],
      nextForwardToken: 'f/1',
    };
    expect(serializeResponse('logs', 'GetLogEvents', events)).toEqual(events);
  });
  test('writes NaN as text, and reads it', () => {
    const metrics = [{ MetricName: 'loss', Value: Number.NaN, Timestamp: at }];
    const wire = serializeResponse('sagemaker', 'DescribeTrainingJob', {
      ...describe_,
      FinalMetricDataList: metrics,
    }) as {
      FinalMetricDataList: unknown[];
    };
    expect(wire.FinalMetricDataList).toEqual([
      { MetricName: 'loss', Value: 'NaN', Timestamp: 1_795_368_620.238 },
    ]);
    expect(parseResponse('sagemaker', 'DescribeTrainingJob', wire)).toMatchObject({
      FinalMetricDataList: metrics,
    });
  });
  const describe_ = {
    ...summary,
    ModelArtifacts: { S3ModelArtifacts: 's3://b/m' },
    SecondaryStatus: 'Training',
    StoppingCondition: {},
  };
  test('that lacks a required member or has one of another type is our fault, with its path', () => {
    expect(() => serializeResponse('sagemaker', 'CreateTrainingJob', {})).toThrow(
      new TypeError('CreateTrainingJob.TrainingJobArn is required but missing'),
    );
    expect(() =>
      serializeResponse('sagemaker', 'ListTrainingJobs', {
        TrainingJobSummaries: [{ ...summary, CreationTime: 5 }],
      }),
    ).toThrow(/ListTrainingJobs\.TrainingJobSummaries\[0\]\.CreationTime does not fit Timestamp/);
  });
  test('of an operation without output is an empty object', () => {
    expect(serializeResponse('sagemaker', 'StopTrainingJob', undefined)).toEqual({});
    expect(parseResponse('sagemaker', 'StopTrainingJob', undefined)).toEqual({});
  });
  test('with nulls and members of newer services is read leniently', () => {
    expect(parseResponse('sagemaker', 'CreateTrainingJob', { TrainingJobArn: 'x', New: 1 })).toEqual({
      TrainingJobArn: 'x',
    });
    expect(
      parseResponse('sagemaker', 'ListTrainingJobs', { TrainingJobSummaries: [], NextToken: null }),
    ).toEqual({ TrainingJobSummaries: [] });
  });
  test('round-trips what a client sends', () => {
    const input = { CreationTimeAfter: at, MaxResults: 10 };
    const wire = serializeRequest('sagemaker', 'ListTrainingJobs', input);
    expect(wire).toEqual({ CreationTimeAfter: 1_795_368_620.238, MaxResults: 10 });
    expect(parseRequest('sagemaker', 'ListTrainingJobs', wire)).toEqual(input);
  });
});
