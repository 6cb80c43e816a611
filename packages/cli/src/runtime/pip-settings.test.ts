import { expect, test } from 'vitest';
import { uvEnvironment } from './pip-settings.ts';

test("a mirror and local wheels of pip's configuration are handed to uv", () => {
  const listing = [
    ":env:.find-links='/srv/wheels'",
    "global.cert='/etc/ssl/ca.crt'",
    "global.extra-index-url='https://a.example/simple https://b.example/simple'",
    "global.find-links='/elsewhere'",
    "global.index-url='https://global.example/simple'",
    "install.index-url='https://mirror.example/simple'",
    '',
  ].join('\n');
  expect(uvEnvironment(listing)).toEqual({
    UV_DEFAULT_INDEX: 'https://mirror.example/simple',
    UV_INDEX: 'https://a.example/simple https://b.example/simple',
    UV_INDEX_STRATEGY: 'unsafe-best-match',
    UV_FIND_LINKS: '/srv/wheels',
    SSL_CERT_FILE: '/etc/ssl/ca.crt',
  });
});

test('several folders over several lines become one list', () => {
  expect(uvEnvironment(String.raw`global.find-links='\n/a\n/b'`)).toEqual({ UV_FIND_LINKS: '/a,/b' });
});

test('nothing configured changes nothing', () => {
  expect(uvEnvironment('')).toEqual({});
  expect(uvEnvironment("global.disable-pip-version-check='1'")).toEqual({});
});
