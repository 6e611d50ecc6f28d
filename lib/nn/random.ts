// Random numbers on the host: Philox 4x32-10 streams keyed by a seed and a name, so a draw depends
// on neither the other streams nor their order. Source: Salmon et al. 2011, "Parallel random
// numbers: as easy as 1, 2, 3".

type Block = [number, number, number, number];

const kMultiplier0 = 0xd2511f53;
const kMultiplier1 = 0xcd9e8d57;
const kWeyl0 = 0x9e3779b9;
const kWeyl1 = 0xbb67ae85;
const kRounds = 10;

/** High 32 bits of the product of two unsigned 32-bit numbers. */
function mulHigh(a: number, b: number): number {
  const aHigh = a >>> 16;
  const aLow = a & 0xffff;
  const bHigh = b >>> 16;
  const bLow = b & 0xffff;
  const middle = aHigh * bLow + Math.floor((aLow * bLow) / 0x10000);
  const other = aLow * bHigh + (middle % 0x10000);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(other / 0x10000)) >>> 0;
}

/** Philox 4x32-10: four random words of a counter under a key. */
export function philox([c0, c1, c2, c3]: Block, key0: number, key1: number): Block {
  for (let round = 0; round < kRounds; ++round) {
    const high0 = mulHigh(kMultiplier0, c0);
    const low0 = Math.imul(kMultiplier0, c0) >>> 0;
    const high1 = mulHigh(kMultiplier1, c2);
    const low1 = Math.imul(kMultiplier1, c2) >>> 0;
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ key0) >>> 0, low1, (high0 ^ c3 ^ key1) >>> 0, low0];
    key0 = (key0 + kWeyl0) >>> 0;
    key1 = (key1 + kWeyl1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** FNV-1a hash of a name, 32 bits. */
function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name))
    hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}

/** Uniform draws in [0, 1) for one named stream of a seed; the seed may have 53 bits. */
export function uniformStream(seed: number, stream: string, count: number): Float64Array {
  const key0 = seed >>> 0;
  const key1 = Math.floor(seed / 2 ** 32) >>> 0;
  const name = hashName(stream);
  const out = new Float64Array(count);
  for (let i = 0; i < count; i += 4) {
    const words = philox([i / 4, name, stream.length, 0], key0, key1);
    for (let j = 0; j < 4 && i + j < count; ++j) out[i + j] = words[j]! / 2 ** 32;
  }
  return out;
}

/** Standard normal draws by Box-Muller. */
export function normalStream(seed: number, stream: string, count: number): Float64Array {
  const uniform = uniformStream(seed, stream, 2 * Math.ceil(count / 2));
  const out = new Float64Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform[i]!));
    const angle = 2 * Math.PI * uniform[i + 1]!;
    out[i] = radius * Math.cos(angle);
    if (i + 1 < count) out[i + 1] = radius * Math.sin(angle);
  }
  return out;
}
