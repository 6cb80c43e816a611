import { escapeXml } from '@trainyard/api';

export const S3_NAMESPACE = 'http://s3.amazonaws.com/doc/2006-03-01/';

/** An array repeats its element; null and undefined leave it out. */
export interface XmlTree {
  [element: string]: XmlValue | readonly XmlValue[];
}
export type XmlValue = XmlTree | string | number | boolean | null | undefined;

export function writeXml(root: string, content: XmlValue, namespace: string | null = S3_NAMESPACE): string {
  const attribute = namespace === null ? '' : ` xmlns="${namespace}"`;
  return `<?xml version="1.0" encoding="UTF-8"?>\n<${root}${attribute}>${contentOf(content)}</${root}>`;
}

function contentOf(value: XmlValue): string {
  if (value === null || value === undefined) return '';
  if (typeof value !== 'object') return escapeText(String(value));
  return Object.entries(value)
    .flatMap(([name, child]) =>
      (Array.isArray(child) ? (child as XmlValue[]) : [child as XmlValue]).map((one) => [name, one] as const),
    )
    .filter(([, child]) => child !== null && child !== undefined)
    .map(([name, child]) => `<${name}>${contentOf(child)}</${name}>`)
    .join('');
}

/** Control characters become references, as S3 writes them, although XML 1.0 knows no such characters. */
function escapeText(text: string): string {
  return text.replace(/([\p{Cc}\ufffe\uffff])|[^\p{Cc}\ufffe\uffff]+/gu, (part, control?: string) =>
    control === undefined ? escapeXml(part) : `&#x${control.charCodeAt(0).toString(16)};`,
  );
}

/** Percent-encodes a key for `encoding-type=url`, leaving slashes as they are. */
export function encodeKey(key: string): string {
  return encodeURIComponent(key)
    .replace(/%2F/g, '/')
    .replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

export function isoTime(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}
