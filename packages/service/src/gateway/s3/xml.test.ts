import { describe, expect, it } from 'vitest';
import { childrenOf, readXml, textOf } from './xml-reader.ts';
import { encodeKey, writeXml } from './xml-writer.ts';

const read = (text: string, root = 'Delete') => readXml(Buffer.from(text), root);

describe('XML', () => {
  it('writes trees, repeats arrays, leaves out what is absent', () => {
    expect(writeXml('A', { B: ['x', 2], C: { D: true }, E: null, F: undefined, G: '' }, null)).toBe(
      '<?xml version="1.0" encoding="UTF-8"?>\n<A><B>x</B><B>2</B><C><D>true</D></C><G></G></A>',
    );
    expect(writeXml('A', '')).toContain('<A xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></A>');
  });

  it('reads back every key that it writes', () => {
    const key = '<a href="x">&\'\r\n\t\0\x7f\uffff é😀]]>';
    const element = read(writeXml('Delete', { Object: { Key: key } }));
    expect(textOf(childrenOf(element, 'Object')[0]!, 'Key')).toBe(key);
  });

  it('encodes keys for encoding-type=url so that nothing but slashes stays reserved', () => {
    expect(encodeKey("a b+c/é!'()*~&")).toBe('a%20b%2Bc/%C3%A9%21%27%28%29%2A~%26');
  });

  it('reads namespaces, prefixes, attributes, comments and references', () => {
    const element = read(
      '<?xml version="1.0"?>\n<!-- c --><s:Delete xmlns:s="urn:x" a=\'1\'>\n<s:Object><Key>a&amp;&#x62;&#99;</Key><!-- > --><Empty/></s:Object></s:Delete>\n',
    );
    expect(childrenOf(element, 'Object')[0]).toEqual({
      name: 'Object',
      text: '',
      children: [
        { name: 'Key', text: 'a&bc', children: [] },
        { name: 'Empty', text: '', children: [] },
      ],
    });
  });

  it.each([
    ['', 'an element was expected'],
    ['<!DOCTYPE Delete [<!ENTITY a "b">]><Delete>&a;</Delete>', 'a name was expected'],
    ['<Delete><!DOCTYPE x></Delete>', 'not allowed'],
    ['<Delete><![CDATA[x]]></Delete>', 'not allowed'],
    ['<Delete><?php ?></Delete>', 'not allowed'],
    ['<Delete>&lol;</Delete>', 'entity &lol; is unknown'],
    ['<Delete>&</Delete>', 'no character'],
    ['<Delete>&#xd800;</Delete>', 'no character'],
    ['<Delete>&#1114112;</Delete>', 'no character'],
    ['<Delete><A></Delete>', 'A is not closed'],
    ['<Delete><A></B></Delete>', 'A is not closed'],
    ['<Delete>', 'Delete is not closed'],
    ['<Delete', 'does not end'],
    ['<Delete a=b/>', 'does not end'],
    ['<Delete/><Delete/>', 'nothing may follow'],
    ['<Delete/>x', 'nothing may follow'],
    ['<Other/>', 'must be Delete'],
    [`${'<Delete>'.repeat(9)}${'</Delete>'.repeat(9)}`, 'deeper than 8'],
  ])('refuses %j', (text, problem) => {
    expect(() => read(text)).toThrow(problem);
    expect(() => read(text)).toThrow(expect.objectContaining({ code: 'MalformedXML' }));
  });

  it('refuses bytes that are not UTF-8', () => {
    expect(() => readXml(Buffer.from('<Delete>\xff</Delete>', 'latin1'), 'Delete')).toThrow('not UTF-8');
  });

  it('refuses a second child where one is expected', () => {
    expect(() => textOf(read('<Delete><Quiet>a</Quiet><Quiet>b</Quiet></Delete>'), 'Quiet')).toThrow(
      'at most one Quiet',
    );
  });

  it('takes time in proportion to the size of hostile documents', () => {
    // Each would take minutes if any step looked at the rest of the document again and again.
    for (const text of [
      '<Delete>' + '&'.repeat(500_000),
      '<Delete' + ' a'.repeat(500_000),
      '<Delete>' + '<a '.repeat(500_000),
    ]) {
      expect(() => read(text)).toThrow();
    }
    expect(childrenOf(read(`<Delete>${'<a/>'.repeat(200_000)}</Delete>`), 'a')).toHaveLength(200_000);
  });
});
