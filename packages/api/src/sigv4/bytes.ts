/**
 * SigV4 is defined over bytes, HTTP gives text. Here a *binary string* has one character per byte (U+0000 to
 * U+00FF), which is how Node hands over header values and request targets, so that bytes which are not UTF-8
 * survive being split, sorted and encoded.
 */
export type BinaryString = string;

const utf8 = new TextEncoder();
const strictUtf8 = new TextDecoder('utf-8', { ignoreBOM: true });

export const encodeUtf8 = (text: string): Uint8Array => utf8.encode(text);

/** UTF-8 bytes as a binary string. */
export const toBinary = (text: string): BinaryString =>
  Array.from(utf8.encode(text), (byte) => String.fromCharCode(byte)).join('');

/** Bytes that are not UTF-8 become U+FFFD. */
export const fromBinary = (binary: BinaryString): string => strictUtf8.decode(binaryBytes(binary));

/** Characters above U+00FF cannot come from the wire; their UTF-8 bytes are taken. */
export function binaryBytes(binary: BinaryString): Uint8Array {
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) {
    const code = binary.charCodeAt(at);
    if (code > 0xff) return utf8.encode(binary);
    bytes[at] = code;
  }
  return bytes;
}

export const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

/** RFC 3986: everything but `A-Z a-z 0-9 - _ . ~` as `%XX` in upper case. */
export const percentEncode = (binary: BinaryString): string =>
  binary.replace(
    /[^A-Za-z0-9\-_.~]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );

/** A `%` without two hexadecimal digits stands for itself. */
export const percentDecode = (text: BinaryString): BinaryString =>
  text.replace(/%([0-9A-Fa-f]{2})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)));

/** Takes the same time wherever the first difference is; only a difference in length shows. */
export function equalsConstantTime(a: string, b: string): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let at = 0; at < a.length; at++) difference |= a.charCodeAt(at) ^ b.charCodeAt(at);
  return difference === 0;
}
