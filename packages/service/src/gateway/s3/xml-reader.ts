import { S3Error } from './errors.ts';

export interface XmlElement {
  /** Without namespace prefix. */
  name: string;
  /** Character data outside child elements. */
  text: string;
  children: XmlElement[];
}

const MAX_DEPTH = 8;
const NAME = /[A-Za-z_][\w.-]*(?::[A-Za-z_][\w.-]*)?/y;
const ATTRIBUTE = /\s+[A-Za-z_][\w.:-]*\s*=\s*(?:"[^"<]*"|'[^'<]*')/y;
const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

/**
 * Reads the small documents that S3 requests carry. Strict: UTF-8, one root of the given name, no DOCTYPE (and so
 * no entities of its own), no processing instructions, at most eight levels.
 *
 * @throws S3Error MalformedXML with the place
 */
export function readXml(body: Uint8Array, root: string): XmlElement {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(body);
  } catch {
    throw new S3Error('MalformedXML', 'The request body is not UTF-8.');
  }
  const element = new Reader(text).document();
  if (element.name !== root) {
    throw new S3Error('MalformedXML', `The root element must be ${root}, not ${element.name}.`);
  }
  return element;
}

export function childrenOf(element: XmlElement, name: string): XmlElement[] {
  return element.children.filter((child) => child.name === name);
}

/** Text of the only child of that name; undefined when there is none. */
export function textOf(element: XmlElement, name: string): string | undefined {
  const [child, second] = childrenOf(element, name);
  if (second || (child && child.children.length > 0)) {
    throw new S3Error(
      'MalformedXML',
      `${element.name} must contain at most one ${name}, and that only text.`,
    );
  }
  return child?.text;
}

class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): XmlElement {
    if (this.#text.startsWith('<?xml')) {
      const end = this.#text.indexOf('?>');
      if (end < 0) this.#fail('the XML declaration does not end');
      this.#at = end + 2;
    }
    this.#space();
    if (this.#text[this.#at] !== '<') this.#fail('an element was expected');
    const element = this.#element(1);
    this.#space();
    if (this.#at < this.#text.length) this.#fail('nothing may follow the root element');
    return element;
  }

  #element(depth: number): XmlElement {
    if (depth > MAX_DEPTH) this.#fail(`elements are nested deeper than ${MAX_DEPTH}`);
    this.#at++; // <
    const tag = this.#match(NAME) ?? this.#fail('a name was expected');
    while (this.#match(ATTRIBUTE) !== undefined);
    this.#match(/\s*/y);
    const element: XmlElement = { name: tag.slice(tag.indexOf(':') + 1), text: '', children: [] };
    if (this.#skip('/>')) return element;
    if (!this.#skip('>')) this.#fail(`the tag ${tag} does not end`);
    for (;;) {
      const next = this.#text.indexOf('<', this.#at);
      if (next < 0) this.#fail(`${tag} is not closed`);
      element.text += this.#unescape(this.#text.slice(this.#at, next));
      this.#at = next;
      if (this.#comment()) continue;
      if (this.#skip('</')) {
        if (!this.#skip(tag)) this.#fail(`${tag} is not closed`);
        this.#match(/\s*/y);
        if (!this.#skip('>')) this.#fail(`the end tag of ${tag} does not end`);
        return element;
      }
      if (/[!?]/.test(this.#text[this.#at + 1] ?? ''))
        this.#fail('declarations and instructions are not allowed');
      element.children.push(this.#element(depth + 1));
    }
  }

  #unescape(text: string): string {
    return text.replace(/&(?:#x([0-9a-fA-F]{1,6})|#(\d{1,7})|(\w+));|&/g, (all, hex, decimal, name) => {
      if (name !== undefined) return ENTITIES[name] ?? this.#fail(`the entity ${all} is unknown`);
      const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16);
      const isCharacter = code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff); // NaN is none either
      return isCharacter ? String.fromCodePoint(code) : this.#fail(`${all} is no character`);
    });
  }

  #space(): void {
    do this.#match(/\s*/y);
    while (this.#comment());
  }

  #comment(): boolean {
    if (!this.#text.startsWith('<!--', this.#at)) return false;
    const end = this.#text.indexOf('-->', this.#at + 4);
    if (end < 0) this.#fail('a comment does not end');
    this.#at = end + 3;
    return true;
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #skip(expected: string): boolean {
    if (!this.#text.startsWith(expected, this.#at)) return false;
    this.#at += expected.length;
    return true;
  }

  #fail(problem: string): never {
    throw new S3Error(
      'MalformedXML',
      `The request body is not the expected XML: ${problem} (character ${this.#at}).`,
    );
  }
}
