// Few cases, large enough to cross every block, panel and stripe of the kernels.
import { coefficients } from "./cases-fused.js";
import type { OpCase } from "./cases.js";
import { between, distinct, real, whole } from "./operand.js";

const window3 = { stride: [1, 1], padding: [1, 1, 1, 1], groups: 1 };

const rows: readonly OpCase[] = [
  {
    op: "matmul",
    inputs: [real([130, 1100]), real([1100, 300])],
    attrs: { transposeA: false, transposeB: false },
  },
  {
    op: "matmul",
    inputs: [real([3, 257, 70]), real([3, 129, 70])],
    attrs: { transposeA: false, transposeB: true },
  },
  {
    op: "conv2d",
    inputs: [real([1, 24, 25, 64]), real([3, 3, 64, 97])],
    attrs: { ...window3, upsample: 1 },
  },
  {
    op: "conv2d",
    inputs: [real([2, 9, 8, 72]), real([3, 3, 72, 40])],
    attrs: { ...window3, upsample: 2 },
  },
  {
    op: "conv2d",
    inputs: [real([1, 33, 32, 40]), real([4, 4, 40, 48])],
    attrs: { ...window3, stride: [2, 2], upsample: 1 },
  },
  {
    op: "attention",
    inputs: [real([1, 290, 2, 64]), real([1, 290, 2, 64]), real([1, 290, 2, 64])],
    attrs: { scale: 0.125, causal: true },
  },
  {
    op: "attention",
    inputs: [real([2, 130, 2, 40]), real([2, 600, 2, 40]), real([2, 600, 2, 40])],
    attrs: { scale: 0.15, causal: false },
  },
  {
    op: "attention", // queries enough for pairs of terms
    inputs: [real([2, 256, 2, 64]), real([2, 200, 2, 64]), real([2, 200, 2, 64])],
    attrs: { scale: 0.125, causal: false },
  },
  {
    op: "attention", // the same in two blocks of keys that are not whole rows of three
    inputs: [real([1, 128, 8, 36]), real([1, 301, 8, 36]), real([1, 301, 8, 50])],
    attrs: { scale: 1, causal: false },
  },
  {
    op: "attention", // in digits: blocks of keys, queries and channels that are not whole tiles
    inputs: [real([1, 270, 2, 72]), real([1, 333, 2, 72]), real([1, 333, 2, 50]), real([270, 333], between(-3, 0))], // prettier-ignore
    attrs: { scale: 0.3, causal: false },
  },
  {
    op: "attention", // a wider head
    inputs: [real([2, 256, 1, 320]), real([2, 130, 1, 320]), real([2, 130, 1, 48])],
    attrs: { scale: 0.1, causal: false },
  },
  {
    op: "attention", // more scores than the gradient keeps
    inputs: [real([1, 500, 5, 8]), real([1, 460, 5, 8]), real([1, 460, 5, 8])],
    attrs: { scale: 0.3, causal: false },
  },
  {
    op: "groupNorm",
    inputs: [real([2, 32, 32, 96]), real([96], between(0.5, 1.5)), real([96])],
    attrs: { groups: 32, eps: 1e-6, activation: "silu" },
    slack: 1,
  },
  {
    op: "groupNorm", // more than a cache holds: in blocks of rows
    inputs: [real([3, 61, 53, 84]), real([84], between(0.5, 1.5)), real([84])],
    attrs: { groups: 12, eps: 1e-6, activation: "silu" },
    slack: 1,
  },
  {
    op: "groupNorm", // far from zero
    inputs: [real([1, 65, 33, 128], between(3, 4)), real([128], between(0.5, 1.5)), real([128])],
    attrs: { groups: 32, eps: 1e-6, activation: "none" },
    slack: 1,
  },
  {
    op: "layerNorm",
    inputs: [real([2, 300, 384]), real([2, 384]), real([2, 384])],
    attrs: { eps: 1e-6, affine: "modulate" },
  },
  { op: "softmax", inputs: [real([70, 1030], between(-9, 9))] },
  { op: "crossEntropy", inputs: [real([300, 515]), whole([300], 0, 515)] },
  { op: "silu", inputs: [real([70001])] },
  { op: "mul", inputs: [real([130, 1, 257]), real([3, 257])] },
  { op: "sum", inputs: [real([70000])], attrs: { axes: [0], keepDims: false } },
  { op: "mean", inputs: [real([2000, 130])], attrs: { axes: [0], keepDims: false } },
  { op: "max", inputs: [real([50, 1500], distinct)], attrs: { axes: [1], keepDims: false } },
  { op: "cumulativeSum", inputs: [real([3, 5000])], attrs: { reverse: false }, slack: 4 }, // long sums
  { op: "topK", inputs: [real([5, 3000], distinct)], attrs: { k: 100, descending: true } },
  { op: "transpose", inputs: [real([5, 130, 200])], attrs: { permutation: [0, 2, 1] } },
  { op: "gather", inputs: [real([600, 65]), whole([900], 0, 600)], attrs: { axis: 0 } },
  {
    op: "nearestCodes",
    inputs: [real([300, 64]), real([515, 64])],
    attrs: { metric: "euclidean" },
    isSmooth: false,
  },
  {
    op: "maskReplaceLoss",
    inputs: [
      real([3, 66, 515]),
      whole([3, 66], 0, 515),
      whole([3, 66], 0, 516),
      coefficients(3, 515),
    ],
  },
];

/** Single-precision sums of hundreds of terms: twice the floor of short ones. */
export const largeCases: readonly OpCase[] = rows.map((c) => ({ slack: 2, ...c }));
