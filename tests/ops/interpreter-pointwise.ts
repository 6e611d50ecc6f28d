// Elementwise ops on plain numbers.
import type { DType } from "../../lib/ir/dtype.js";
import type { Attrs } from "../../lib/ir/graph.js";

type Scalar = (...x: number[]) => number;

/** Error function: Maclaurin series near 0, continued fraction of the complement beyond. */
export function erf(x: number): number {
  const z = Math.abs(x);
  if (z < 2.5) {
    let [term, sum] = [z, z];
    for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
      term *= (-z * z) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = z;
  for (let n = 120; n >= 1; n--) fraction = z + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-z * z) / (Math.sqrt(Math.PI) * fraction));
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

function geluTanhSlope(x: number): number {
  const c = Math.sqrt(2 / Math.PI);
  const t = Math.tanh(c * (x + 0.044715 * x ** 3));
  return ((1 + t) / 2) * (1 + x * c * (1 + 3 * 0.044715 * x * x) * (1 - t));
}

function roundHalfEven(x: number): number {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

const truth = (claim: boolean): number => (claim ? 1 : 0);

const scalars: Record<string, Scalar> = {
  neg: (x) => -x!,
  abs: (x) => Math.abs(x!),
  exp: (x) => Math.exp(x!),
  log: (x) => Math.log(x!),
  log1p: (x) => Math.log1p(x!),
  sqrt: (x) => Math.sqrt(x!),
  rsqrt: (x) => 1 / Math.sqrt(x!),
  reciprocal: (x) => 1 / x!,
  square: (x) => x! * x!,
  sin: (x) => Math.sin(x!),
  cos: (x) => Math.cos(x!),
  tanh: (x) => Math.tanh(x!),
  sigmoid: (x) => sigmoid(x!),
  silu: (x) => x! * sigmoid(x!),
  gelu: (x) => (x! * (1 + erf(x! / Math.SQRT2))) / 2,
  geluTanh: (x) => (x! * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x! + 0.044715 * x! ** 3)))) / 2,
  quickGelu: (x) => x! * sigmoid(1.702 * x!),
  siluSlope: (x) => sigmoid(x!) * (1 + x! * sigmoid(-x!)),
  geluTanhSlope: (x) => geluTanhSlope(x!),
  relu: (x) => Math.max(x!, 0),
  softplus: (x) => Math.max(x!, 0) + Math.log1p(Math.exp(-Math.abs(x!))),
  erf: (x) => erf(x!),
  floor: (x) => Math.floor(x!),
  ceil: (x) => Math.ceil(x!),
  round: (x) => roundHalfEven(x!),
  sign: (x) => Math.sign(x!),
  isFinite: (x) => truth(Number.isFinite(x)),
  logicalNot: (x) => truth(x === 0),
  add: (a, b) => a! + b!,
  sub: (a, b) => a! - b!,
  mul: (a, b) => a! * b!,
  div: (a, b) => a! / b!,
  pow: (a, b) => a! ** b!,
  maximum: (a, b) => Math.max(a!, b!),
  minimum: (a, b) => Math.min(a!, b!),
  mod: (a, b) => a! - Math.floor(a! / b!) * b!,
  equal: (a, b) => truth(a === b),
  less: (a, b) => truth(a! < b!),
  lessEqual: (a, b) => truth(a! <= b!),
  logicalAnd: (a, b) => truth(a !== 0 && b !== 0),
  logicalOr: (a, b) => truth(a !== 0 || b !== 0),
  where: (condition, a, b) => (condition !== 0 ? a! : b!),
  stopGradient: (x) => x!,
};

/** Integer results wrap and divide toward zero. */
function whole(op: string, scalar: Scalar): Scalar {
  if (op === "mul") return (a, b) => Math.imul(a!, b!);
  return (...x) => Math.trunc(scalar(...x)) | 0;
}

function casting(dtype: DType): Scalar {
  switch (dtype) {
    case "i32":
      return (x) => Math.trunc(x!) | 0;
    case "u8":
      return (x) => Math.min(255, Math.max(0, Math.trunc(x!)));
    case "bool":
      return (x) => truth(x !== 0);
    case "f32":
      return (x) => Math.fround(x!);
    case "f64":
      return (x) => x!;
    case "f16":
      return (x) => halfRounded(x!, "f16");
    case "bf16":
      return (x) => halfRounded(x!, "bf16");
  }
}

type Half = "f16" | "bf16";

const halfFormats: Record<Half, { exponentBits: number; fractionBits: number }> = {
  f16: { exponentBits: 5, fractionBits: 10 },
  bf16: { exponentBits: 8, fractionBits: 7 },
};

/** Exponent of the last place is this less fractionBits; the least exponent serves subnormal numbers too. */
const exponentOf = (x: number, bias: number): number =>
  Math.max(Math.floor(Math.log2(Math.abs(x))), 1 - bias);

/** Nearest number of a 16-bit float, halves to even. */
function halfRounded(x: number, format: Half): number {
  const { exponentBits, fractionBits } = halfFormats[format];
  if (x === 0) return x;
  const unit = 2 ** (exponentOf(x, 2 ** (exponentBits - 1) - 1) - fractionBits);
  return Math.sign(x) * roundHalfEven(Math.abs(x) / unit) * unit;
}

/** Bits of a number that halfRounded returned. */
export function halfBits(x: number, format: Half): number {
  const { exponentBits, fractionBits } = halfFormats[format];
  const bias = 2 ** (exponentBits - 1) - 1;
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  if (x === 0) return sign;
  const exponent = exponentOf(x, bias);
  const fraction = (Math.abs(x) / 2 ** exponent) * 2 ** fractionBits;
  return sign + ((exponent + bias - 1) << fractionBits) + fraction;
}

/** The op on numbers, or undefined if it is not elementwise. */
export function elementwise(op: string, attrs: Attrs, dtype: DType): Scalar | undefined {
  if (op === "cast") return casting(dtype);
  if (op === "leakyRelu") return (x) => (x! < 0 ? (attrs.slope as number) * x! : x!);
  if (op === "clamp") {
    return (x) => Math.min(Math.max(x!, attrs.min as number), attrs.max as number);
  }
  const scalar = scalars[op];
  return scalar && dtype === "i32" ? whole(op, scalar) : scalar;
}
