import { describe, expect, test } from 'vitest';
import {
  clientError,
  ERROR_CATALOGUE,
  errorFromCode,
  isServiceError,
  jsonError,
  queryError,
  ServiceError,
  s3Error,
} from './errors.ts';
import { instanceLimitExceeded, trainingJobNameTaken, trainingJobNotFound } from './sagemaker-errors.ts';
import { signatureError } from './signature-errors.ts';
import type { SignatureFailureReason } from './sigv4/raw-request.ts';

describe('the catalogue', () => {
  const rows = Object.entries(ERROR_CATALOGUE).flatMap(([protocol, entries]) =>
    Object.entries(entries).map(([code, entry]) => [protocol, code, entry] as const),
  );
  test.each(rows)('%s %s has a status, an actor and a public page', (protocol, code, entry) => {
    expect(code).toMatch(/^[A-Z][A-Za-z0-9]+$/);
    if (protocol === 'client') expect(entry.status).toBe(0);
    else expect(entry.status >= 400 && entry.status < 600).toBe(true);
    expect(entry.actor === 'us').toBe(entry.status === 500);
    expect(entry.docs).toMatch(/^https:\/\//);
  });
});

test('one code has another status in another protocol', () => {
  expect(queryError('ExpiredToken').status).toBe(403);
  expect(s3Error('ExpiredToken').status).toBe(400);
});

test('a template takes its fields from the data and refuses to go without', () => {
  expect(queryError('InvalidAction', { operation: 'Foo', version: '2011-06-15' }).message).toBe(
    'Could not find operation Foo for version 2011-06-15',
  );
  expect(() => queryError('InvalidAction', { operation: 'Foo' })).toThrow('needs the field "version"');
  expect(() => jsonError('ValidationException')).toThrow('needs the field "message"');
  expect(s3Error('NoSuchKey').message).toBe('The specified key does not exist.');
  expect(s3Error('NoSuchKey', { message: 'own' }).message).toBe('own');
  expect(s3Error('AccessDenied', { message: 'braces {stay}' }).message).toBe('braces {stay}');
});

test('errors carry data and cause and are told apart by code', () => {
  const cause = new Error('socket');
  const error = clientError('ConnectionFailed', { message: 'x', url: 'http://h/' }, cause);
  expect(error).toMatchObject({
    code: 'ConnectionFailed',
    status: 0,
    actor: 'operator',
    cause,
    data: { url: 'http://h/' },
  });
  expect(isServiceError(error)).toBe(true);
  expect(isServiceError(error, 'NoSuchKey')).toBe(false);
  expect(isServiceError(cause)).toBe(false);
  expect(error).toBeInstanceOf(ServiceError);
});

test('codes that the catalogue lacks are kept', () => {
  expect(errorFromCode('json', 'NewException', 400, '')).toMatchObject({
    code: 'NewException',
    actor: 'caller',
    message: 'NewException (status 400)',
  });
  expect(errorFromCode('s3', 'constructor', 503, 'x')).toMatchObject({
    code: 'constructor',
    actor: 'operator',
  });
});

test('the texts that SDKs match on are verbatim', () => {
  expect(trainingJobNotFound('a')).toMatchObject({
    code: 'ValidationException',
    message: 'Requested resource not found.',
  });
  const taken = trainingJobNameTaken('arn:x');
  expect(taken).toMatchObject({ code: 'ResourceInUse', status: 400 });
  expect(taken.message).toContain('names must be unique within an AWS account and region');
  expect(taken.message).toContain('already exists (arn:x)');
  expect(instanceLimitExceeded('ml.local', 2, 1, 4).message).toMatch(
    /^The account-level service limit 'ml\.local for training job usage' is 2 Instances, with current utilization of 1 Instances and a request delta of 4 Instances\./,
  );
});

test.each([
  ['unknown_key', 'UnrecognizedClientException', 403, 'InvalidClientTokenId', 'InvalidAccessKeyId', 403],
  ['bad_signature', 'InvalidSignatureException', 403, 'SignatureDoesNotMatch', 'SignatureDoesNotMatch', 403],
  [
    'malformed',
    'IncompleteSignatureException',
    403,
    'IncompleteSignature',
    'AuthorizationHeaderMalformed',
    400,
  ],
  ['missing', 'MissingAuthenticationTokenException', 403, 'MissingAuthenticationToken', 'AccessDenied', 403],
  ['expired_token', 'ExpiredTokenException', 403, 'ExpiredToken', 'ExpiredToken', 400],
  ['skewed_past', 'InvalidSignatureException', 403, 'SignatureDoesNotMatch', 'RequestTimeTooSkewed', 403],
  ['expired', 'InvalidSignatureException', 403, 'SignatureDoesNotMatch', 'AccessDenied', 403],
] as const)(
  'a signature that failed by %s is %s for JSON',
  (reason, json, jsonStatus, query, s3, s3Status) => {
    const failure = {
      ok: false as const,
      reason: reason as SignatureFailureReason,
      message: 'why',
      data: { part: 1 },
    };
    expect(signatureError(failure, 'json')).toMatchObject({
      code: json,
      status: jsonStatus,
      data: { reason, part: 1 },
    });
    expect(signatureError(failure, 'query')).toMatchObject({ code: query });
    expect(signatureError(failure, 's3')).toMatchObject({ code: s3, status: s3Status });
  },
);

test('S3 tells a malformed query from a malformed header', () => {
  const failure = { ok: false as const, reason: 'malformed' as const, message: 'why', data: {} };
  expect(signatureError(failure, 's3', { inQuery: true }).code).toBe('AuthorizationQueryParametersError');
});
