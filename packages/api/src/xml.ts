/**
 * The XML that AWS's REST and query services exchange, and nothing else: elements, text, attributes (dropped),
 * the five named and numeric character references. DOCTYPE, comments, CDATA, processing instructions other than
 * the declaration, and nesting beyond {@link MAX_DEPTH} are refused.
 */
export interface XmlElement {
  /** Without prefix. */
  name: string;
  children: XmlElement[];
  /** All text directly inside, references resolved; white space as it stands. */
  text: string;
}

const MAX_DEPTH = 32;

/** @throws SyntaxError naming the offset. */
export function parseXml(source: string): XmlElement {
  const root: XmlElement = { name: '', children: [], text: '' };
  const open: XmlElement[] = [root];
  let at = source.startsWith('\ufeff') ? 1 : 0;
  const declaration = /^<\?xml[^?<>]*\?>/.exec(source.slice(at, at + 200));
  if (declaration) at += declaration[0].length;

  const fail = (what: string): never => {
    throw new SyntaxError(`XML: ${what} at offset ${at}`);
  };
  while (at < source.length) {
    const parent = open.at(-1)!;
    const next = source.indexOf('<', at);
    const text = source.slice(at, next < 0 ? source.length : next);
    if (open.length === 1) {
      if (text.trim() !== '') fail('text outside the root element');
    } else parent.text += resolveReferences(text, fail);
    if (next < 0) break;
    at = next;
    TAG.lastIndex = at;
    const tag = TAG.exec(source);
    if (!tag) return fail('a tag that is not plain XML');
    const [whole, closing, name, , selfClosing] = tag;
    const local = name!.slice(name!.indexOf(':') + 1);
    if (closing) {
      if (open.length === 1 || parent.name !== local) fail(`</${local}> closes nothing`);
      open.pop();
    } else {
      if (open.length === 1 && root.children.length > 0) fail('a second root element');
      if (open.length > MAX_DEPTH) fail(`nesting deeper than ${MAX_DEPTH}`);
      const element: XmlElement = { name: local, children: [], text: '' };
      parent.children.push(element);
      if (!selfClosing) open.push(element);
    }
    at += whole!.length;
  }
  if (open.length > 1) fail(`<${open.at(-1)!.name}> is not closed`);
  return root.children[0] ?? fail('no element');
}

const NAME = '[A-Za-z_][\\w.\\-]*(?::[A-Za-z_][\\w.\\-]*)?';
const TAG = new RegExp(`<(/?)(${NAME})((?:\\s+${NAME}\\s*=\\s*(?:"[^"<]*"|'[^'<]*'))*)\\s*(/?)>`, 'y');

const NAMED: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

function resolveReferences(text: string, fail: (what: string) => never): string {
  return text.replace(/&([^;&]{0,12};?)/g, (whole, body: string) => {
    const name = body.slice(0, -1);
    if (body.endsWith(';') && Object.hasOwn(NAMED, name)) return NAMED[name]!;
    const [, hex, decimal] = /^#(?:x([0-9A-Fa-f]{1,6})|(\d{1,7}));$/.exec(body) ?? [];
    const code = hex ? Number.parseInt(hex, 16) : decimal ? Number(decimal) : Number.NaN;
    if (!(code >= 1 && code <= 0x10ffff)) fail(`unknown reference ${whole}`);
    return String.fromCodePoint(code);
  });
}

export const xmlChild = (element: XmlElement, name: string): XmlElement | undefined =>
  element.children.find((child) => child.name === name);

export const xmlChildren = (element: XmlElement, name: string): XmlElement[] =>
  element.children.filter((child) => child.name === name);

/** Text of the child of that name; undefined when there is none. */
export const xmlText = (element: XmlElement, name: string): string | undefined =>
  xmlChild(element, name)?.text;

/** For text and attribute values. Characters that XML 1.0 cannot hold at all become U+FFFD. */
export function escapeXml(text: string): string {
  return Array.from(text, (char) => {
    if (char === '\r') return '&#13;';
    if (char === '\t' || char === '\n') return char;
    const code = char.codePointAt(0)!;
    if (code < 0x20 || (code >= 0xd800 && code <= 0xdfff) || code === 0xfffe || code === 0xffff)
      return '\ufffd';
    return ESCAPES[char] ?? char;
  }).join('');
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};
