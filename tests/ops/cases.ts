// The case list: op, inputs, attributes, one row each. Forward, gradient, fused and thread tests read it, and so do the
// benchmarks. Shapes are awkward on purpose: odd, size 1, three channels, not a multiple of any vector width.
import { fusedCases } from "./cases-fused.js";
import { linearCases } from "./cases-linear.js";
import { movementCases } from "./cases-movement.js";
import { between, cycle, distinct, gaussian, real, signed, truth, whole } from "./operand.js";
import type { Fill, Operand } from "./operand.js";
import type { Attrs } from "../../lib/ir/graph.js";

export interface OpCase {
  readonly op: string;
  readonly inputs: readonly Operand[];
  readonly attrs?: Attrs;
  /** Checked against finite differences; default true if some input is real and not fixed. */
  readonly isSmooth?: boolean;
  /** Check its second derivative too. */
  readonly isTwiceSmooth?: boolean;
  /** Each element must be accurate for its own size, not only for that of the largest. */
  readonly isElementwise?: boolean;
  /** Multiple of the usual floor of the tolerance, with the reason beside the row. */
  readonly slack?: number;
}

export const shapeText = ({ shape, dtype }: Operand): string =>
  `${dtype === "real" ? "" : dtype}[${shape.join(",")}]`;

export function caseName({ op, inputs, attrs }: OpCase): string {
  return [op, ...inputs.map(shapeText), attrs ? JSON.stringify(attrs) : ""].join(" ").trim();
}

interface Domain {
  readonly fill: Fill;
  readonly isSmooth?: boolean;
  readonly isElementwise?: boolean;
}

const specials = [NaN, Infinity, -Infinity, 0, -0, 1, -3e38, 1e-40];
const halves = Array.from({ length: 41 }, (_, i) => i / 2 - 10);

const unaryDomains: Record<string, Domain> = {
  neg: { fill: gaussian, isElementwise: true },
  abs: { fill: signed(0.05, 3), isElementwise: true },
  exp: { fill: between(-5, 5), isElementwise: true },
  log: { fill: between(0.02, 9) },
  log1p: { fill: between(-0.9, 4) },
  sqrt: { fill: between(0.02, 9), isElementwise: true },
  rsqrt: { fill: between(0.02, 9), isElementwise: true },
  reciprocal: { fill: signed(0.1, 4), isElementwise: true },
  square: { fill: gaussian, isElementwise: true },
  sin: { fill: between(-20, 20) },
  cos: { fill: between(-20, 20) },
  tanh: { fill: between(-4, 4) },
  sigmoid: { fill: between(-8, 8) },
  silu: { fill: between(-8, 8) },
  gelu: { fill: between(-6, 6) },
  geluTanh: { fill: between(-6, 6) },
  quickGelu: { fill: between(-6, 6) },
  siluSlope: { fill: between(-8, 8) },
  geluTanhSlope: { fill: between(-6, 6) },
  relu: { fill: signed(0.05, 3), isElementwise: true },
  softplus: { fill: between(-9, 9) },
  erf: { fill: between(-4, 4) },
  floor: { fill: between(-9, 9), isSmooth: false },
  ceil: { fill: between(-9, 9), isSmooth: false },
  round: { fill: cycle(halves), isSmooth: false },
  sign: { fill: cycle([-2, 0, 3, -0.5]), isSmooth: false },
  isFinite: { fill: cycle(specials), isSmooth: false },
};

const unaryCases: OpCase[] = Object.entries(unaryDomains).flatMap(([op, { fill, ...rest }]) => [
  { op, inputs: [real([3, 67], fill)], ...rest },
  { op, inputs: [real([2, 1, 5], fill)], ...rest },
]);

const wideCases: OpCase[] = [
  { op: "exp", inputs: [real([301], between(-86, 88))], isSmooth: false, isElementwise: true },
  { op: "exp", inputs: [real([33], cycle([-200, -104, 0, 1e-8, -Infinity]))], isSmooth: false },
  { op: "log", inputs: [real([131], between(1e-30, 1e30))], isSmooth: false, isElementwise: true },
  { op: "log1p", inputs: [real([33], cycle([-1, 0, 1e-8, 1e30, Infinity]))], isSmooth: false },
  { op: "tanh", inputs: [real([67], between(-40, 40))], isSmooth: false },
  { op: "tanh", inputs: [real([67], between(-1e-3, 1e-3))], isElementwise: true, isSmooth: false },
  { op: "sigmoid", inputs: [real([67], between(-90, 90))], isSmooth: false },
  { op: "softplus", inputs: [real([67], between(-90, 90))], isSmooth: false },
  { op: "gelu", inputs: [real([67], between(-20, 20))], isSmooth: false },
  { op: "silu", inputs: [real([67], between(-100, 100))], isSmooth: false },
  ...["neg", "abs", "square", "sign"].map((op) => ({ op, inputs: [whole([5, 13], -1000, 1000)] })),
  { op: "logicalNot", inputs: [truth([37])] },
];

const attributeCases: OpCase[] = [
  { op: "leakyRelu", inputs: [real([3, 67], signed(0.05, 3))], attrs: { slope: 0.2 } },
  { op: "clamp", inputs: [real([3, 67], gaussian)], attrs: { min: -1, max: 0.7 } },
  { op: "clamp", inputs: [whole([19], -50, 50)], attrs: { min: -7, max: 20 } },
];

/** Both whole, stretched from either side, and from a lower rank. */
const broadcasts: [number[], number[]][] = [
  [[4, 35], [4, 35]],
  [[2, 3, 17], [17]],
  [[2, 1, 5, 3], [4, 1, 3]],
  [[1], [3, 1, 7]],
  [[], [5, 9]],
  [[2, 3, 5, 19], [2, 1, 1, 19]],
]; // prettier-ignore

const binaryDomains: Record<string, [Fill, Fill]> = {
  add: [gaussian, gaussian],
  sub: [gaussian, gaussian],
  mul: [gaussian, gaussian],
  div: [gaussian, signed(0.3, 3)],
  pow: [between(0.2, 3), between(-2, 3)],
  maximum: [gaussian, gaussian],
  minimum: [gaussian, gaussian],
  mod: [between(-9, 9), signed(1, 4)],
};

const binaryCases: OpCase[] = Object.entries(binaryDomains).flatMap(([op, fills]) =>
  broadcasts.map(([a, b]) => ({
    op,
    inputs: [real(a, fills[0]), real(b, fills[1])],
    isSmooth: op !== "mod",
  })),
);

const nonZero = { ...whole([6, 11], -9, 9), fill: cycle([-5, 3, 7, -2, 1]) };

const integerBinaryCases: OpCase[] = [
  ...["add", "sub", "mul", "maximum", "minimum"].map((op) => ({
    op,
    inputs: [whole([6, 11], -1000, 1000), whole([11], -1000, 1000)],
  })),
  { op: "mul", inputs: [whole([7], 30000, 46000), whole([7], 30000, 46000)] }, // beyond 24 bits
  { op: "mod", inputs: [whole([6, 11], -100, 100), nonZero] },
  { op: "div", inputs: [whole([6, 11], -100, 100), nonZero] },
];

const comparisonCases: OpCase[] = ["equal", "less", "lessEqual"].flatMap((op) => [
  { op, inputs: [whole([5, 9], -2, 3), whole([9], -2, 3)] },
  {
    op,
    inputs: [real([3, 1, 7], cycle([0, 1, -1])), real([4, 1], cycle([1, 0]))],
    isSmooth: false,
  },
  {
    op,
    inputs: [real([16], cycle(specials)), real([16], cycle([0, NaN, Infinity]))],
    isSmooth: false,
  },
]);

const logicCases: OpCase[] = [
  ...["logicalAnd", "logicalOr"].map((op) => ({ op, inputs: [truth([4, 9]), truth([9])] })),
  { op: "where", inputs: [truth([4, 9]), real([4, 9]), real([4, 9])] },
  { op: "where", inputs: [truth([3, 1, 1]), real([5, 1]), real([])] },
  { op: "where", inputs: [truth([7]), whole([7], -9, 9), whole([1], 0, 1)] },
];

const castCases: OpCase[] = [
  {
    op: "cast",
    inputs: [real([37], between(-300, 300))],
    attrs: { dtype: "i32" },
    isSmooth: false,
  },
  { op: "cast", inputs: [real([37], between(-30, 300))], attrs: { dtype: "u8" }, isSmooth: false },
  {
    op: "cast",
    inputs: [real([37], cycle([0, -0, 0.5, NaN, 2]))],
    attrs: { dtype: "bool" },
    isSmooth: false,
  },
  { op: "cast", inputs: [real([67])], attrs: { dtype: "f16" }, isSmooth: false },
  { op: "cast", inputs: [real([67])], attrs: { dtype: "bf16" }, isSmooth: false },
  { op: "cast", inputs: [whole([37], -300, 300)], attrs: { dtype: "f32" } },
  { op: "cast", inputs: [truth([37])], attrs: { dtype: "f32" } },
  { op: "cast", inputs: [truth([37])], attrs: { dtype: "i32" } },
];

/** Leading, middle, last and all axes; short and long runs. */
const reductionShapes: [number[], number[]][] = [
  [[5, 33], [1]],
  [[5, 33], [0]],
  [[3, 4, 17], [1]],
  [[2, 3, 5, 7], [1, 2]],
  [[2, 3, 5, 7], [0, 1, 2, 3]],
  [[1, 6, 1], [2]],
  [[2, 1025], [1]],
]; // prettier-ignore

const reductionFills: Record<string, Fill> = {
  sum: gaussian, mean: gaussian, max: distinct, min: distinct, prod: signed(0.9, 1.1), sumSquares: gaussian,
}; // prettier-ignore

const reductionCases: OpCase[] = Object.entries(reductionFills).flatMap(([op, fill]) =>
  reductionShapes.map(([shape, axes], i) => ({
    op,
    inputs: [real(shape, fill)],
    attrs: { axes, keepDims: i % 2 === 0 },
    // the rounding errors of a product of 1025 factors all stay in the result
    slack: op === "prod" && shape[1] === 1025 ? 4 : 1,
  })),
);

const rankingCases: OpCase[] = [
  ...["argMax", "argMin"].flatMap((op) => [
    { op, inputs: [real([5, 33])], isSmooth: false },
    { op, inputs: [real([3, 2, 1])], isSmooth: false },
    { op, inputs: [real([4, 70], cycle([1, 0, 2, 2, 0]))], isSmooth: false }, // ties
    { op, inputs: [whole([3, 40], 0, 6)] },
  ]),
  ...[false, true].flatMap((reverse) => [
    { op: "cumulativeSum", inputs: [real([5, 33])], attrs: { reverse } },
    { op: "cumulativeSum", inputs: [real([2, 3, 1])], attrs: { reverse } },
    { op: "cumulativeSum", inputs: [whole([2, 30], -9, 9)], attrs: { reverse } },
  ]),
  ...[false, true].flatMap((descending) => [
    { op: "topK", inputs: [real([5, 33], distinct)], attrs: { k: 4, descending } },
    { op: "topK", inputs: [real([2, 3, 17], distinct)], attrs: { k: 17, descending } },
    {
      op: "topK",
      inputs: [real([2, 50], cycle([3, 1, 2]))],
      attrs: { k: 20, descending },
      isSmooth: false,
    },
    { op: "topK", inputs: [whole([3, 21], 0, 5)], attrs: { k: 9, descending } },
  ]),
  ...["sum", "max", "min", "prod"].map((op) => ({
    op,
    inputs: [whole([3, 4, 5], -4, 5)],
    attrs: { axes: [1], keepDims: false },
  })),
];

export const opCases: readonly OpCase[] = [
  ...unaryCases,
  ...wideCases,
  ...attributeCases,
  ...binaryCases,
  ...integerBinaryCases,
  ...comparisonCases,
  ...logicCases,
  ...castCases,
  ...reductionCases,
  ...rankingCases,
  ...movementCases,
  ...linearCases,
  ...fusedCases,
];
