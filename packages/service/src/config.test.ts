import { expect, test } from 'vitest';
import { readFileSystems } from './config.ts';

test('file systems are folders by id, writable unless the operator says otherwise', () => {
  expect(
    readFileSystems({
      'fs-0123456789abcdef0': '/data/imagenet/',
      'fs-0123456789abcdef1': { path: '/data/models', readOnly: true },
    }),
  ).toEqual({
    'fs-0123456789abcdef0': { path: '/data/imagenet', readOnly: false },
    'fs-0123456789abcdef1': { path: '/data/models', readOnly: true },
  });
});

test.each([
  [['/data'], 'must map ids to folders'],
  [{ 'fs-1': '/data' }, '"fs-1": "/data"; an id has at least 11'],
  [{ 'fs-0123456789abcdef0': 'data' }, 'give the absolute path of a folder'],
  [{ 'fs-0123456789abcdef0': { readOnly: true } }, 'give the absolute path of a folder'],
])('file systems of %j are refused', (value, reason) => {
  expect(() => readFileSystems(value)).toThrow(reason);
});
