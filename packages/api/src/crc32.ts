/** CRC-32 as in zlib. `value` continues an earlier sum; Node's `zlib.crc32` has this form and is faster. */
export type Crc32 = (data: Uint8Array, value?: number) => number;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let sum = byte;
  for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
  return sum;
});

export const crc32: Crc32 = (data, value = 0) => {
  let sum = ~value;
  for (let at = 0; at < data.length; at++) sum = (sum >>> 8) ^ TABLE[(sum ^ data[at]!) & 0xff]!;
  return ~sum >>> 0;
};

/** Big-endian base64, the form of `x-amz-checksum-crc32`. */
export const formatCrc32 = (sum: number): string =>
  btoa(String.fromCharCode(sum >>> 24, (sum >>> 16) & 0xff, (sum >>> 8) & 0xff, sum & 0xff));
