import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { afterPrefix, assertKey, bucketNameProblem, compareKeys } from './names.ts';

describe('names', () => {
  it('accepts what S3 accepts as a bucket name', () => {
    for (const name of ['abc', 'sagemaker-us-west-2-123456789012', 'a.b-c.d', '1bucket', 'x'.repeat(63)]) {
      expect(bucketNameProblem(name), name).toBeNull();
    }
  });

  it('refuses other bucket names with the rule they break', () => {
    expect(bucketNameProblem('ab')).toContain('3 to 63');
    expect(bucketNameProblem('x'.repeat(64))).toContain('3 to 63');
    for (const name of ['Abc', 'a_b', '-abc', 'abc-', 'a/b', '...', 'a\0b', 'bücket', 'abc\n']) {
      expect(bucketNameProblem(name), name).toContain('must consist of');
    }
    expect(bucketNameProblem('a..b')).toContain('two dots');
    expect(bucketNameProblem('192.168.0.1')).toContain('IP address');
    expect(bucketNameProblem('xn--abc')).toContain('xn--');
    expect(bucketNameProblem('abc-s3alias')).toContain('-s3alias');
  });

  it('takes any text as a key up to 1024 bytes, not characters', () => {
    for (const key of ['..', '/', '//a', '/etc/passwd', 'a\0b', 'ü'.repeat(512), ' '])
      expect(() => assertKey(key)).not.toThrow();
    expect(() => assertKey('ü'.repeat(513))).toThrow('1026 bytes');
    expect(() => assertKey('')).toThrow('at least one character');
    expect(() => assertKey('\ud800')).toThrow('well-formed');
  });

  it('orders keys by their UTF-8 bytes', () => {
    // U+FF5E sorts before an emoji in UTF-8 and after it in UTF-16.
    expect(compareKeys('\uff5e', '😀')).toBeLessThan(0);
  });

  it('finds the end of a prefix: above all that begins with it, not above anything greater', () => {
    const unit = fc.constantFrom(
      'a',
      'b',
      '/',
      '\x7f',
      'é',
      '\ud7ff',
      '\ue000',
      '\uffff',
      '😀',
      '\u{10ffff}',
    );
    const key = fc.string({ unit, minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(key, fc.string({ unit, maxLength: 6 }), key, (prefix, rest, other) => {
        const end = afterPrefix(prefix);
        if (end === null) return;
        expect(compareKeys(prefix + rest, end)).toBeLessThan(0);
        if (compareKeys(other, prefix) > 0 && !other.startsWith(prefix)) {
          expect(compareKeys(other, end)).toBeGreaterThanOrEqual(0);
        }
      }),
    );
    expect(afterPrefix('')).toBeNull();
    expect(afterPrefix('\u{10ffff}')).toBeNull();
    expect(afterPrefix('a\u{10ffff}')).toBe('b');
    expect(afterPrefix('\ud7ff')).toBe('\ue000');
  });
});
