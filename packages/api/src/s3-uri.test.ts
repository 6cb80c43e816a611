import { expect, test } from 'vitest';
import { formatS3Uri, isS3Uri, joinS3Uri, parseS3Uri } from './s3-uri.ts';

test.each([
  ['s3://b', 'b', ''],
  ['s3://b/', 'b', ''],
  ['s3://b/k', 'b', 'k'],
  ['s3://b//a/../ü %2F?#', 'b', '/a/../ü %2F?#'],
])('%s names bucket %s and key %j as they stand', (uri, bucket, key) => {
  expect(parseS3Uri(uri)).toEqual({ bucket, key });
  expect(isS3Uri(uri)).toBe(true);
  expect(parseS3Uri(formatS3Uri({ bucket, key }))).toEqual({ bucket, key });
});

test.each(['', 's3://', 's3:///k', 'https://b/k', 'b/k', 'S3://b/k'])('%j is refused', (uri) => {
  expect(() => parseS3Uri(uri)).toThrow(/write s3:\/\/BUCKET/);
  expect(isS3Uri(uri)).toBe(false);
});

test('segments are joined by one slash', () => {
  expect(joinS3Uri('s3://b', 'job', 'output/')).toBe('s3://b/job/output/');
  expect(joinS3Uri('s3://b/p/', 'job')).toBe('s3://b/p/job');
});
