/**
 * The two cyclic checksums that Node lacks, and the arithmetic that joins checksums of adjacent byte ranges.
 *
 * All are reflected, start from all ones and are inverted at the end. The tables are for slicing-by-8: table k
 * advances a byte over k further zero bytes, so eight lookups replace eight dependent steps.
 */
const CRC32C_POLYNOMIAL = 0x82f63b78;

/** Width in bits and reflected polynomial of the checksums that can be joined. */
const POLYNOMIALS = {
  CRC32: { width: 32n, polynomial: 0xedb88320n },
  CRC32C: { width: 32n, polynomial: BigInt(CRC32C_POLYNOMIAL) },
  CRC64NVME: { width: 64n, polynomial: 0x9a6c9329ac4bc9b5n },
} as const;

const crc32cTables = buildCrc32cTables();
const crc64Tables = buildCrc64Tables();

/** CRC-32C (Castagnoli) of `data`, continued from `previous`. */
export function crc32c(data: Uint8Array, previous = 0): number {
  const table = crc32cTables;
  let crc = ~previous;
  let i = 0;
  for (const end = data.length - 7; i < end; i += 8) {
    const word = crc ^ (data[i]! | (data[i + 1]! << 8) | (data[i + 2]! << 16) | (data[i + 3]! << 24));
    crc =
      table[0x700 | (word & 0xff)]! ^
      table[0x600 | ((word >>> 8) & 0xff)]! ^
      table[0x500 | ((word >>> 16) & 0xff)]! ^
      table[0x400 | (word >>> 24)]! ^
      table[0x300 | data[i + 4]!]! ^
      table[0x200 | data[i + 5]!]! ^
      table[0x100 | data[i + 6]!]! ^
      table[data[i + 7]!]!;
  }
  for (; i < data.length; i++) crc = (crc >>> 8) ^ table[(crc ^ data[i]!) & 0xff]!;
  return ~crc >>> 0;
}

/** State of a CRC-64/NVME as two unsigned halves: a bigint per byte would be fifty times slower. */
export interface Crc64 {
  high: number;
  low: number;
}

/** CRC-64/NVME of `data`, continued from and stored into `state` (initially both 0). */
export function updateCrc64Nvme(state: Crc64, data: Uint8Array): void {
  const { high: tableHigh, low: tableLow } = crc64Tables;
  let high = ~state.high;
  let low = ~state.low;
  let i = 0;
  for (const end = data.length - 7; i < end; i += 8) {
    low ^= data[i]! | (data[i + 1]! << 8) | (data[i + 2]! << 16) | (data[i + 3]! << 24);
    high ^= data[i + 4]! | (data[i + 5]! << 8) | (data[i + 6]! << 16) | (data[i + 7]! << 24);
    const a = 0x700 | (low & 0xff);
    const b = 0x600 | ((low >>> 8) & 0xff);
    const c = 0x500 | ((low >>> 16) & 0xff);
    const d = 0x400 | (low >>> 24);
    const e = 0x300 | (high & 0xff);
    const f = 0x200 | ((high >>> 8) & 0xff);
    const g = 0x100 | ((high >>> 16) & 0xff);
    const h = high >>> 24;
    low =
      tableLow[a]! ^
      tableLow[b]! ^
      tableLow[c]! ^
      tableLow[d]! ^
      tableLow[e]! ^
      tableLow[f]! ^
      tableLow[g]! ^
      tableLow[h]!;
    high =
      tableHigh[a]! ^
      tableHigh[b]! ^
      tableHigh[c]! ^
      tableHigh[d]! ^
      tableHigh[e]! ^
      tableHigh[f]! ^
      tableHigh[g]! ^
      tableHigh[h]!;
  }
  for (; i < data.length; i++) {
    const index = (low ^ data[i]!) & 0xff;
    low = ((low >>> 8) | (high << 24)) ^ tableLow[index]!;
    high = (high >>> 8) ^ tableHigh[index]!;
  }
  state.high = ~high >>> 0;
  state.low = ~low >>> 0;
}

/**
 * Joins checksums of adjacent ranges: `crc(A ‖ B) = crc(A) · x^(8·|B|) mod P ⊕ crc(B)`, as zlib's
 * `crc32_combine` does (https://github.com/madler/zlib/blob/v1.3.1/crc32.c). Ranges of equal length share
 * their power of x, so joining n equal parts costs n multiplications.
 */
export function joinCrcs(
  kind: keyof typeof POLYNOMIALS,
  ranges: { crc: bigint; sizeBytes: number }[],
): bigint {
  const { width, polynomial } = POLYNOMIALS[kind];
  const one = 1n << (width - 1n); // reflected: the highest bit is x^0
  const multiply = (a: bigint, b: bigint): bigint => {
    let product = 0n;
    for (let bit = one, shifted = b; bit > 0n; bit >>= 1n) {
      if (a & bit) product ^= shifted;
      shifted = shifted & 1n ? (shifted >> 1n) ^ polynomial : shifted >> 1n;
    }
    return product;
  };
  const powers = new Map<number, bigint>();
  const powerOfX = (sizeBytes: number): bigint => {
    let power = powers.get(sizeBytes);
    if (power !== undefined) return power;
    power = one;
    let square = one >> 8n; // x^8: one byte
    for (let rest = BigInt(sizeBytes); rest > 0n; rest >>= 1n) {
      if (rest & 1n) power = multiply(square, power);
      square = multiply(square, square);
    }
    powers.set(sizeBytes, power);
    return power;
  };
  return ranges.reduce((joined, range) => multiply(powerOfX(range.sizeBytes), joined) ^ range.crc, 0n);
}

function buildCrc32cTables(): Uint32Array {
  const table = new Uint32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ CRC32C_POLYNOMIAL : crc >>> 1;
    table[byte] = crc;
  }
  for (let i = 256; i < table.length; i++) {
    const crc = table[i - 256]!;
    table[i] = (crc >>> 8) ^ table[crc & 0xff]!;
  }
  return table;
}

function buildCrc64Tables(): { high: Uint32Array; low: Uint32Array } {
  const { polynomial } = POLYNOMIALS.CRC64NVME;
  const table: bigint[] = [];
  for (let byte = 0n; byte < 256n; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1n ? (crc >> 1n) ^ polynomial : crc >> 1n;
    table.push(crc);
  }
  for (let i = 256; i < 8 * 256; i++) {
    const crc = table[i - 256]!;
    table.push((crc >> 8n) ^ table[Number(crc & 0xffn)]!);
  }
  return {
    high: Uint32Array.from(table, (crc) => Number(crc >> 32n)),
    low: Uint32Array.from(table, (crc) => Number(crc & 0xffffffffn)),
  };
}
