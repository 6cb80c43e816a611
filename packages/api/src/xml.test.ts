import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { escapeXml, parseXml, xmlChildren, xmlText } from './xml.ts';

test('reads what S3 sends', () => {
  const root = parseXml(`<?xml version="1.0" encoding="UTF-8"?>
    <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix/>
    <Contents><Key>a &amp; b&#x20;&#128642;</Key><Size>1</Size></Contents><Contents><Key>c</Key></Contents></ListBucketResult>\n`);
  expect(root.name).toBe('ListBucketResult');
  expect(xmlText(root, 'Prefix')).toBe('');
  expect(xmlText(root, 'Missing')).toBeUndefined();
  expect(xmlChildren(root, 'Contents').map((item) => xmlText(item, 'Key'))).toEqual(['a & b 🚂', 'c']);
});

describe('refuses', () => {
  test.each([
    ['nothing', ''],
    ['text alone', 'NoSuchKey'],
    ['HTML', '<!DOCTYPE html><html></html>'],
    ['entities', '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'],
    ['an unknown entity', '<a>&nbsp;</a>'],
    ['a bare ampersand', '<a>b & c</a>'],
    ['a reference to nothing', '<a>&#0;</a>'],
    ['a reference beyond Unicode', '<a>&#x110000;</a>'],
    ['a name on Object.prototype as entity', '<a>&constructor;</a>'],
    ['comments', '<a><!-- x --></a>'],
    ['CDATA', '<a><![CDATA[x]]></a>'],
    ['instructions', '<a><?php x?></a>'],
    ['tags that do not match', '<a><b></a></b>'],
    ['an end without a start', '</a>'],
    ['a missing end', '<a><b></b>'],
    ['two roots', '<a/><b/>'],
    ['text behind the root', '<a/>x'],
    ['a broken tag', '<a'],
    ['a broken attribute', '<a b=c/>'],
    ['deep nesting', '<a>'.repeat(100_000)],
  ])('%s', (_title, source) => {
    expect(() => parseXml(source)).toThrow(SyntaxError);
  });
});

test('text that was escaped is read back', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      const written = `<a b="${escapeXml(text)}">${escapeXml(text)}</a>`;
      expect(parseXml(written).text).toBe(text);
    }),
  );
  expect(escapeXml('\u0000\ud800\r\n"')).toBe('\ufffd\ufffd&#13;\n&quot;');
});
