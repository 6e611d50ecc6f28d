// Cases of fused ops: each is also compared with its decomposition.
import type { OpCase } from "./cases.js";
import { between, cycle, fixed, real, whole } from "./operand.js";
import type { Operand } from "./operand.js";

const softmaxCases: OpCase[] = ["softmax", "logSoftmax"].flatMap((op) => [
  { op, inputs: [real([5, 33], between(-4, 4))], isTwiceSmooth: true },
  { op, inputs: [real([2, 3, 1])] },
  { op, inputs: [real([3, 200], between(-60, 60))], isSmooth: false },
  { op, inputs: [real([2, 2, 17], cycle([1e4, -1e4, 0]))], isSmooth: false },
]);

const softmaxGradCases: OpCase[] = [
  { op: "softmaxGrad", inputs: [real([5, 33], between(0, 0.1)), real([5, 33])] },
  { op: "logSoftmaxGrad", inputs: [real([5, 33], between(-6, -1)), real([5, 33])] },
  { op: "softmaxGrad", inputs: [real([2, 3, 130], between(0, 0.02)), real([2, 3, 130])] },
  { op: "logSoftmaxGrad", inputs: [real([2, 3, 1], between(-1, 0)), real([2, 3, 1])] },
  { op: "crossEntropy", inputs: [real([5, 33]), whole([5], 0, 33)], isTwiceSmooth: true },
  { op: "crossEntropy", inputs: [real([2, 3, 7]), whole([2, 3], 0, 7)] },
];

const groupNormShapes: [number[], number][] = [
  [[2, 5, 3, 12], 4],
  [[1, 7, 7, 3], 1],
  [[2, 4, 4, 6], 6],
  [[1, 3, 32], 8],
  [[2, 9, 40], 8],
  [[1, 16, 16, 64], 32],
  [[2, 18, 15, 32], 32], // a channel a group: nothing averages the errors of its sums
  [[2, 1, 1, 8], 2],
];

const groupNormCases: OpCase[] = groupNormShapes.flatMap(([shape, groups], i) =>
  ["none", "silu"].flatMap((activation) => {
    const C = shape.at(-1)!;
    const inputs = [real(shape), real([C], between(0.5, 1.5)), real([C])];
    const attrs = { groups, eps: 1e-5, activation };
    return [
      { op: "groupNorm", inputs, attrs, isTwiceSmooth: i === 0 },
      { op: "groupNormGrad", inputs: [...inputs, real(shape)], attrs },
    ];
  }),
);

const layerNormShapes = [[2, 5, 33], [1, 3, 1], [3, 8], [1, 40, 72], [2, 2, 3, 16]]; // prettier-ignore

function layerNormCase(shape: number[], affine: string): OpCase[] {
  const [B, D] = [shape[0]!, shape.at(-1)!];
  const vector = affine === "shared" ? [D] : [B, D];
  const affineInputs: Operand[] = affine === "none" ? [] : [real(vector), real(vector)];
  const attrs = { eps: 1e-5, affine };
  // one element a row: the gradient is the rounding of a difference that is 0
  if (D === 1)
    return [{ op: "layerNorm", inputs: [real(shape), ...affineInputs], attrs, isSmooth: false }];
  return [
    { op: "layerNorm", inputs: [real(shape), ...affineInputs], attrs, isTwiceSmooth: D === 33 },
    { op: "layerNormGrad", inputs: [real(shape), ...affineInputs.slice(0, 1), real(shape)], attrs },
  ];
}

const layerNormCases: OpCase[] = layerNormShapes.flatMap((shape) =>
  ["none", "shared", "modulate"].flatMap((affine) => layerNormCase(shape, affine)),
);

const rmsNormCases: OpCase[] = [
  { op: "rmsNorm", inputs: [real([2, 5, 33]), real([33])], attrs: { eps: 1e-6 } },
  { op: "rmsNorm", inputs: [real([3, 8]), real([8])], attrs: { eps: 1e-6 } },
];

interface Heads {
  B: number;
  N: number;
  M: number;
  H: number;
  D: number;
  E?: number;
  mask?: number[];
  /** Gradients with respect to the mask go through the decomposition, those without it through the kernel. */
  isMaskFixed?: boolean;
  causal?: boolean;
  scale?: number;
}

const attentions: Heads[] = [
  { B: 2, N: 5, M: 5, H: 2, D: 4 },
  { B: 1, N: 9, M: 9, H: 3, D: 8, causal: true },
  { B: 1, N: 3, M: 7, H: 1, D: 5, causal: true },
  { B: 1, N: 70, M: 33, H: 2, D: 16 },
  { B: 2, N: 4, M: 77, H: 2, D: 40 },
  { B: 1, N: 65, M: 65, H: 1, D: 64, causal: true },
  { B: 1, N: 6, M: 10, H: 2, D: 88, E: 24 },
  { B: 2, N: 5, M: 6, H: 3, D: 8, mask: [2, 1, 1, 6], isMaskFixed: true },
  { B: 2, N: 5, M: 6, H: 3, D: 8, mask: [1, 3, 5, 6], isMaskFixed: true },
  { B: 2, N: 5, M: 6, H: 3, D: 8, mask: [2, 3, 1, 6] },
  { B: 2, N: 5, M: 5, H: 2, D: 12, mask: [5, 5], isMaskFixed: true, causal: true },
  { B: 2, N: 5, M: 5, H: 2, D: 12, mask: [5, 5], causal: true },
  { B: 1, N: 1, M: 1, H: 1, D: 4 },
  { B: 1, N: 7, M: 9, H: 2, D: 8, scale: -0.4 }, // the highest product is the lowest score
  { B: 1, N: 7, M: 9, H: 2, D: 8, scale: 0 },
];

function attentionCase(heads: Heads, i: number): OpCase {
  const { B, N, M, H, D, E = D, mask, isMaskFixed = false, causal = false } = heads;
  const { scale = 1 / Math.sqrt(D) } = heads;
  const qkv = [real([B, N, H, D]), real([B, M, H, D]), real([B, M, H, E])];
  const bias = mask && { ...real(mask, between(-3, 0)), isFixed: isMaskFixed };
  return {
    op: "attention",
    inputs: bias ? [...qkv, bias] : qkv,
    attrs: { scale, causal },
    isTwiceSmooth: i < 2,
  };
}

/** alpha, beta and gamma-bar at t, at s and from s to t, of a linear mask-and-replace schedule on `codes` codes. */
export function coefficientRow(codes: number, t: number, s: number): number[] {
  const cumulative = (time: number): [number, number, number] => {
    if (time < 0) return [1, 0, 0];
    const alpha = 1 - 0.9 * time;
    const gamma = 0.8 * time;
    return [alpha, (1 - alpha - gamma) / codes, gamma];
  };
  const [aT, , cT] = cumulative(t);
  const [aS, bS, cS] = cumulative(s);
  const alpha = aT / aS;
  const gamma = 1 - (1 - cT) / (1 - cS);
  const bar = cumulative(t);
  return [...bar, aS, bS, cS, alpha, (1 - alpha - gamma) / codes, gamma];
}

/** Coefficients of B samples: ordinary steps, one first step (s = -1) and one step to the end. */
export function coefficients(B: number, codes: number): Operand {
  const times: [number, number][] = [[0.5, 0.4], [0.1, -1], [0.95, 0.6]]; // prettier-ignore
  const rows = Array.from({ length: B }, (_, b) =>
    coefficientRow(codes, ...times[b % times.length]!),
  );
  return fixed([B, 9], cycle(rows.flat()));
}

const tokenShapes: [number, number, number][] = [[3, 7, 5], [2, 4, 33], [3, 3, 130]]; // prettier-ignore

const maskReplaceCases: OpCase[] = tokenShapes.flatMap(([B, N, K]) => {
  const logits = real([B, N, K]);
  const x0 = whole([B, N], 0, K);
  const xt = whole([B, N], 0, K + 1);
  const coeffs = coefficients(B, K);
  const settings = fixed([B, 4], cycle([2, 0.8, 0.9, 0, 1, 1, 1, 3, 3, 0.5, 1, 0]));
  const uniform = (shape: number[]): Operand => fixed(shape, between(0, 1));
  return [
    { op: "maskReplaceForward", inputs: [x0, coeffs, uniform([B, N, 2])], attrs: { codes: K } },
    {
      op: "maskReplaceStep",
      inputs: [logits, xt, coeffs, settings, uniform([B, N])],
      attrs: { guided: false },
      isSmooth: false,
    },
    {
      op: "maskReplaceStep",
      inputs: [logits, real([B, N, K]), xt, coeffs, settings, uniform([B, N])],
      attrs: { guided: true },
      isSmooth: false,
    },
    { op: "maskReplaceLoss", inputs: [logits, x0, xt, coeffs] },
    {
      op: "maskReplaceLossGrad",
      inputs: [logits, x0, xt, coeffs, real([B, N]), real([B, N])],
    },
  ];
});

const codeCases: OpCase[] = ["euclidean", "cosine"].flatMap((metric) => [
  {
    op: "nearestCodes",
    inputs: [real([23, 7]), real([11, 7])],
    attrs: { metric },
    isSmooth: false,
  },
  {
    op: "nearestCodes",
    inputs: [real([5, 32]), real([130, 32])],
    attrs: { metric },
    isSmooth: false,
  },
  { op: "nearestCodes", inputs: [real([3, 1]), real([1, 1])], attrs: { metric }, isSmooth: false },
]);

const randomKeys: Operand = whole([3, 4], 0, 1000);

const randomCases: OpCase[] = ["randomUniform", "randomNormal"].flatMap((op) => [
  { op, inputs: [randomKeys], attrs: { shape: [3, 37], purpose: 1, dtype: "f32" } },
  { op, inputs: [randomKeys], attrs: { shape: [3, 5, 2, 3], purpose: 7, dtype: "f32" } },
]);

export const fusedCases: readonly OpCase[] = [
  ...softmaxCases,
  ...softmaxGradCases,
  ...groupNormCases,
  ...layerNormCases,
  ...rmsNormCases,
  ...attentions.map(attentionCase),
  ...maskReplaceCases,
  ...codeCases,
  ...randomCases,
];
