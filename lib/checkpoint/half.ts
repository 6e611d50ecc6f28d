// float32 <-> the two 16-bit storage formats: IEEE 754-2008 binary16 and bfloat16 (the upper half
// of a float32). All conversions round to nearest, ties to even, and keep NaN a NaN.

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

function bitsOf(value: number): number {
  scratch[0] = value;
  return scratchBits[0]!;
}

function halfBits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00; // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520 and more round to infinity
  if (magnitude >= 0x38800000) {
    const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
    return sign | ((rounded - 0x38000000) >>> 13); // exponent bias 127 -> 15
  }
  if (magnitude < 0x33000000) return sign; // below half the smallest subnormal
  // Subnormal: the significand with its hidden bit, in units of 2^-24.
  const shift = 126 - (magnitude >>> 23);
  const significand = (magnitude & 0x7fffff) | 0x800000;
  const whole = significand >>> shift;
  const rest = significand & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return sign | (whole + (rest > half || (rest === half && (whole & 1) === 1) ? 1 : 0));
}

function bfloatBits(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

let halfValues: Float32Array | undefined;

// Every binary16 value once: 256 KB, and reading becomes one look-up.
function allHalves(): Float32Array {
  if (halfValues) return halfValues;
  halfValues = new Float32Array(65536);
  for (let bits = 0; bits < 65536; ++bits) {
    const exponent = (bits >>> 10) & 31;
    const fraction = (bits & 1023) / 1024;
    const special = fraction === 0 ? Infinity : NaN;
    const magnitude =
      exponent === 31
        ? special
        : exponent === 0
          ? fraction * 2 ** -14
          : (1 + fraction) * 2 ** (exponent - 15);
    halfValues[bits] = bits & 0x8000 ? -magnitude : magnitude;
  }
  return halfValues;
}

/** Bits of one value as binary16. */
export const toHalf = (value: number): number => halfBits(bitsOf(value));

/** Bits of one value as bfloat16. */
export const toBfloat = (value: number): number => bfloatBits(bitsOf(value));

/** float32 -> binary16 bits. */
export function floatsToHalves(
  values: Float32Array,
  out = new Uint16Array(values.length),
): Uint16Array {
  for (let i = 0; i < values.length; ++i) out[i] = toHalf(values[i]!);
  return out;
}

/** binary16 bits -> float32, exactly. */
export function halvesToFloats(
  halves: Uint16Array,
  out = new Float32Array(halves.length),
): Float32Array {
  const table = allHalves();
  for (let i = 0; i < halves.length; ++i) out[i] = table[halves[i]!]!;
  return out;
}

/** float32 -> bfloat16 bits. */
export function floatsToBfloats(
  values: Float32Array,
  out = new Uint16Array(values.length),
): Uint16Array {
  for (let i = 0; i < values.length; ++i) out[i] = toBfloat(values[i]!);
  return out;
}

/** bfloat16 bits -> float32, exactly. */
export function bfloatsToFloats(
  bfloats: Uint16Array,
  out = new Float32Array(bfloats.length),
): Float32Array {
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < bfloats.length; ++i) bits[i] = bfloats[i]! << 16;
  return out;
}
