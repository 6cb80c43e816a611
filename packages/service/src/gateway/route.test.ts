import { expect, test } from 'vitest';
import { routeOf, withoutPrefix } from './route.ts';

const FORM = { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' };

test.each([
  ['POST', '/', { 'x-amz-target': 'SageMaker.CreateTrainingJob' }, 'json'],
  ['POST', '/', { 'x-amz-target': 'Logs_20140328.GetLogEvents' }, 'json'],
  ['POST', '/', { 'x-amz-target': 'SageMaker.X', ...FORM }, 'json'],
  ['GET', '/', { 'x-amz-target': 'SageMaker.ListTrainingJobs' }, 'refused'],
  ['POST', '/', FORM, 'query'],
  ['POST', '/?x=1', { 'content-type': 'Application/X-WWW-Form-Urlencoded' }, 'query'],
  ['POST', '/bucket?delete', { 'content-type': 'application/xml' }, 's3'],
  ['POST', '/bucket', FORM, 's3'],
  ['POST', '/', { 'content-type': 'multipart/form-data; boundary=x' }, 's3'],
  ['GET', '/', {}, 's3'],
  ['PUT', '/bucket/../key//x', {}, 's3'],
  [
    'POST',
    '/service/GraniteServiceVersion20100801/operation/ListMetrics',
    { 'smithy-protocol': 'rpc-v2-cbor' },
    'refused',
  ],
  ['POST', '/_trainyard/agent/v1/sync', {}, 'agent'],
  ['GET', '/_trainyard/v1/jobs/a/events?after=1', {}, 'trainyard'],
  ['GET', '/_trainyard/v1/health', {}, 'health'],
  ['POST', '/_trainyard/v1/health', {}, 'trainyard'],
  ['GET', '/_trainyard/v2/jobs', {}, 'refused'],
  ['POST', '/_trainyard/v1/jobs', { 'x-amz-target': 'SageMaker.X' }, 'trainyard'],
  ['GET', 'http://elsewhere/bucket', {}, 'refused'],
  ['OPTIONS', '*', {}, 'refused'],
])('%s %s with %j goes to %s', (method, target, headers, kind) => {
  expect(routeOf({ method, target, headers }).kind).toBe(kind);
});

test('the target is split at its last dot, and the path keeps its encoding', () => {
  const headers = { 'x-amz-target': 'a.b.Operation' };
  expect(routeOf({ method: 'POST', target: '/', headers })).toMatchObject({
    targetPrefix: 'a.b',
    operation: 'Operation',
  });
  expect(routeOf({ method: 'POST', target: '/', headers: { 'x-amz-target': 'nothing' } })).toMatchObject({
    targetPrefix: '',
    operation: 'nothing',
  });
  expect(routeOf({ method: 'GET', target: '/_trainyard/v1/jobs/a%2Fb?x=%3F?', headers: {} })).toMatchObject({
    path: 'jobs/a%2Fb',
    query: 'x=%3F?',
  });
});

test.each([
  ['/t/bucket/key', '/t', '/bucket/key'],
  ['/t', '/t', '/'],
  ['/t?x', '/t', '/?x'],
  ['/tt/key', '/t', '/tt/key'],
  ['/bucket', '', '/bucket'],
  ['/other', '/t', '/other'],
])('%s without prefix %s is %s', (target, prefix, expected) => {
  expect(withoutPrefix(target, prefix)).toBe(expected);
});
