import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { findCredentials, findEndpoints, findRegion } from './aws-environment.ts';

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'trainyard-aws-'));
  for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) vi.stubEnv(name, undefined);
  vi.stubEnv('AWS_CONFIG_FILE', join(directory, 'config'));
  vi.stubEnv('AWS_SHARED_CREDENTIALS_FILE', join(directory, 'credentials'));
  vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true');
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(directory, { recursive: true, force: true });
});

const config = (text: string): void => writeFileSync(join(directory, 'config'), text);

const PROFILES = `
[default]
region = eu-west-1
endpoint_url = http://default.test

[profile yard]
region = eu-central-1
services = yard-services
endpoint_url = http://yard.test/

[profile quiet]
endpoint_url = http://quiet.test
ignore_configured_endpoint_urls = true

[services yard-services]
s3 =
  endpoint_url = http://objects.test
`;

test('nothing configured gives no endpoint, no region', async () => {
  expect(await findEndpoints(undefined)).toEqual({});
  expect(await findRegion(undefined)).toBeUndefined();
});

test("an endpoint is the service's own variable, then the common one, then the profile's", async () => {
  config(PROFILES);
  const fromProfile = { sagemaker: 'http://yard.test', logs: 'http://yard.test', sts: 'http://yard.test' };
  expect(await findEndpoints('yard')).toEqual({ ...fromProfile, s3: 'http://objects.test' });
  vi.stubEnv('AWS_ENDPOINT_URL', 'http://all.test/');
  const common = {
    sagemaker: 'http://all.test',
    logs: 'http://all.test',
    sts: 'http://all.test',
    s3: 'http://all.test',
  };
  expect(await findEndpoints('yard')).toEqual(common);
  vi.stubEnv('AWS_ENDPOINT_URL_SAGEMAKER', 'http://training.test');
  vi.stubEnv('AWS_ENDPOINT_URL_CLOUDWATCH_LOGS', 'http://logs.test');
  expect(await findEndpoints('yard')).toEqual({
    ...common,
    sagemaker: 'http://training.test',
    logs: 'http://logs.test',
  });
});

test('configured endpoints are ignored when variable or profile say so', async () => {
  config(PROFILES);
  expect(await findEndpoints('quiet')).toEqual({});
  vi.stubEnv('AWS_ENDPOINT_URL', 'http://all.test');
  vi.stubEnv('AWS_IGNORE_CONFIGURED_ENDPOINT_URLS', 'TRUE');
  expect(await findEndpoints('yard')).toEqual({});
});

test('the region is AWS_REGION, then AWS_DEFAULT_REGION, then that of the profile', async () => {
  config(PROFILES);
  expect(await findRegion(undefined)).toBe('eu-west-1');
  expect(await findRegion('yard')).toBe('eu-central-1');
  vi.stubEnv('AWS_PROFILE', 'yard');
  expect(await findRegion(undefined)).toBe('eu-central-1');
  vi.stubEnv('AWS_DEFAULT_REGION', 'us-east-1');
  expect(await findRegion(undefined)).toBe('us-east-1');
  vi.stubEnv('AWS_REGION', 'us-east-2');
  expect(await findRegion(undefined)).toBe('us-east-2');
});

test('keys of the environment are taken as they are', async () => {
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'AKIAENV');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'env-secret');
  expect(await findCredentials(undefined)).toEqual({ accessKeyId: 'AKIAENV', secretAccessKey: 'env-secret' });
  vi.stubEnv('AWS_SESSION_TOKEN', 'token');
  expect(await findCredentials(undefined)).toMatchObject({ sessionToken: 'token' });
});
