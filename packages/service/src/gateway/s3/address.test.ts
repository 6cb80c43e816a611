import { describe, expect, it } from 'vitest';
import { bucketOfHost, parseAddress, parseCopySource } from './address.ts';

const parse = (target: string, host = '127.0.0.1:9400') => {
  const { bucket, key, query } = parseAddress(target, host, ['localhost', 'ty.internal']);
  return { bucket, key, query: [...query] };
};

describe('address', () => {
  it.each([
    ['/', null, null],
    ['/b', 'b', null],
    ['/b/', 'b', null],
    ['/b/k', 'b', 'k'],
    ['/b/k/', 'b', 'k/'],
    ['/b//k', 'b', '/k'],
    ['/b/../../etc/passwd', 'b', '../../etc/passwd'],
    ['/b/./.', 'b', './.'],
    ['/b/%2e%2e%2f', 'b', '../'],
    ['/b/a+b%2Bc%20d', 'b', 'a+b+c d'],
    ['/b/%C3%A9%F0%9F%98%80', 'b', 'é😀'],
    ['/b/a%00b', 'b', 'a\0b'],
    ['/b/a%3Fb?c', 'b', 'a?b'],
  ])('reads %s as sent', (target, bucket, key) => {
    expect(parse(target)).toMatchObject({ bucket, key });
  });

  it('refuses percent-encoding that is broken or not UTF-8', () => {
    for (const target of ['/b/%', '/b/%zz', '/b/%ff', '/b/%ed%a0%80', '/b?prefix=%ff']) {
      expect(() => parse(target), target).toThrow(expect.objectContaining({ code: 'InvalidURI' }));
    }
    expect(() => parse('//k')).toThrow(expect.objectContaining({ code: 'InvalidBucketName' }));
  });

  it('takes the bucket from the host below a base domain', () => {
    expect(parse('/k/l', 'b.localhost:9400')).toMatchObject({ bucket: 'b', key: 'k/l' });
    expect(parse('/', 'my.data.TY.internal')).toMatchObject({ bucket: 'my.data', key: null });
    expect(parse('//k', 'b.localhost')).toMatchObject({ bucket: 'b', key: '/k' });
    for (const host of [
      'localhost:9400',
      'ty.internal',
      '127.0.0.1:9400',
      '[::1]:9400',
      'notlocalhost',
      '.localhost',
      '',
    ]) {
      expect(bucketOfHost(host, ['localhost', 'ty.internal']), host).toBeNull();
    }
  });

  it('reads the query with its first values, plus signs as spaces', () => {
    expect(parse('/b?uploads&prefix=a+b%2B&x=&prefix=c&=&y=1=2').query).toEqual([
      ['uploads', ''],
      ['prefix', 'a b+'],
      ['x', ''],
      ['', ''],
      ['y', '1=2'],
    ]);
  });

  it('reads the source of a copy with and without a leading slash', () => {
    expect(parseCopySource('/b/a%20b')).toEqual({ bucket: 'b', key: 'a b' });
    expect(parseCopySource('b//k?versionId=null')).toEqual({ bucket: 'b', key: '/k' });
    expect(parseCopySource('b/a+b')).toEqual({ bucket: 'b', key: 'a+b' });
    for (const header of ['', 'b', 'b/', '//k']) {
      expect(() => parseCopySource(header), header).toThrow('must be bucket/key');
    }
    expect(() => parseCopySource('b/k?versionId=3')).toThrow(
      expect.objectContaining({ code: 'NotImplemented' }),
    );
  });
});
