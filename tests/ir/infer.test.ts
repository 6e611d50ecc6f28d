// Every op's row: what it refuses, with the actual shapes and dtypes in the message, and what it infers.
import { describe, expect, it } from "vitest";
import { DiffusionError } from "../../lib/errors.js";
import type { DType } from "../../lib/ir/dtype.js";
import { isDType } from "../../lib/ir/dtype.js";
import type { Attrs, Spec } from "../../lib/ir/graph.js";
import { formatSpecs } from "../../lib/ir/op.js";
import { opDef, opTable } from "../../lib/ir/op-table.js";

/** "f32[2,3] i32[]" */
function specs(text: string): Spec[] {
  if (text === "") return [];
  return text.split(" ").map((part) => {
    const [, dtype, shape] = /^(\w+)\[(.*)\]$/.exec(part)!;
    if (!isDType(dtype)) throw new Error(part);
    return { dtype: dtype satisfies DType, shape: shape ? shape.split(",").map(Number) : [] };
  });
}

type Row = readonly [op: string, inputs: string, attrs: Attrs, expected: string];

const conv = { stride: [1, 1], padding: [0, 0, 0, 0], groups: 1 };
const norm = { groups: 2, eps: 1e-5, activation: "none" };
const layer = { eps: 1e-5, affine: "shared" };
const heads = { scale: 1, causal: false };
const plain = { transposeA: false, transposeB: false };

/** Accepted: op, inputs, attributes, outputs. */
const accepted: readonly Row[] = [
  ["neg", "i32[2]", {}, "i32[2]"],
  ["exp", "f64[2]", {}, "f64[2]"],
  ["isFinite", "f32[2]", {}, "bool[2]"],
  ["stopGradient", "i32[2]", {}, "i32[2]"],
  ["leakyRelu", "f32[2]", { slope: 0.1 }, "f32[2]"],
  ["clamp", "i32[2]", { min: 0, max: 1 }, "i32[2]"],
  ["cast", "f16[2]", { dtype: "f32" }, "f32[2]"],
  ["add", "f32[2,1] f32[3]", {}, "f32[2,3]"],
  ["less", "u8[2] u8[]", {}, "bool[2]"],
  ["logicalAnd", "bool[2] bool[2]", {}, "bool[2]"],
  ["where", "bool[2,1] f32[3] f32[]", {}, "f32[2,3]"],
  ["constant", "", { dtype: "f32", shape: [2, 2], values: [0] }, "f32[2,2]"],
  ["iota", "", { dtype: "i32", shape: [2, 3], axis: 1 }, "i32[2,3]"],
  ["sum", "f32[2,3,4]", { axes: [1, 2], keepDims: true }, "f32[2,1,1]"],
  ["mean", "f32[2,3,4]", { axes: [0], keepDims: false }, "f32[3,4]"],
  ["argMax", "f32[2,3]", {}, "i32[2]"],
  ["cumulativeSum", "i32[2,3]", { reverse: true }, "i32[2,3]"],
  ["topK", "f32[2,3]", { k: 2, descending: true }, "f32[2,2], i32[2,2]"],
  ["reshape", "f32[2,3]", { shape: [6] }, "f32[6]"],
  ["transpose", "u8[2,3]", { permutation: [1, 0] }, "u8[3,2]"],
  ["slice", "f32[5]", { starts: [1], sizes: [2], strides: [3] }, "f32[2]"],
  ["concat", "f32[1,2] f32[3,2]", { axis: 0 }, "f32[4,2]"],
  ["pad", "f32[2]", { low: [1], high: [2], value: 0 }, "f32[5]"],
  ["broadcastTo", "f32[2,1]", { shape: [3, 2, 4] }, "f32[3,2,4]"],
  ["gather", "f32[5,6,7] i32[2,3]", { axis: 1 }, "f32[5,2,3,7]"],
  ["scatterAdd", "f32[5,2,3,7] i32[2,3]", { axis: 1, size: 6 }, "f32[5,6,7]"],
  ["gatherLast", "f32[2,3] i32[2]", {}, "f32[2]"],
  ["scatterLast", "f32[2] i32[2]", { size: 3 }, "f32[2,3]"],
  ["matmul", "f32[2,3,4] f32[4,5]", plain, "f32[2,3,5]"],
  ["matmul", "f32[4,3] f32[2,5,4]", { transposeA: true, transposeB: true }, "f32[2,3,5]"],
  ["conv2d", "f32[1,4,4,2] f32[3,3,2,5]", { ...conv, upsample: 2 }, "f32[1,6,6,5]"],
  ["conv2dGradInput", "f32[1,2,2,5] f32[3,3,2,5]", { ...conv, inputSize: [4, 4] }, "f32[1,4,4,2]"],
  [
    "conv2dGradWeight",
    "f32[1,4,4,2] f32[1,2,2,5]",
    { ...conv, kernel: [3, 3], upsample: 1 },
    "f32[3,3,2,5]",
  ],
  ["crossEntropy", "f32[2,3,4] i32[2,3]", {}, "f32[2,3]"],
  ["groupNormGrad", "f32[2,3,4] f32[4] f32[4] f32[2,3,4]", norm, "f32[2,3,4], f32[4], f32[4]"],
  ["layerNorm", "f32[2,3,4] f32[2,4] f32[2,4]", { ...layer, affine: "modulate" }, "f32[2,3,4]"],
  ["layerNormGrad", "f32[2,4] f32[2,4]", { ...layer, affine: "none" }, "f32[2,4]"],
  ["layerNormGrad", "f32[2,4] f32[4] f32[2,4]", layer, "f32[2,4], f32[4], f32[4]"],
  [
    "attention",
    "f32[2,3,4,5] f32[2,6,4,5] f32[2,6,4,7] f32[3,6]",
    heads,
    "f32[2,3,4,7], f32[2,4,3]",
  ],
  ["nearestCodes", "f32[9,4] f32[16,4]", { metric: "cosine" }, "i32[9]"],
  ["maskReplaceForward", "i32[2,3] f32[2,9] f32[2,3,2]", { codes: 5 }, "i32[2,3]"],
  [
    "maskReplaceStep",
    "f32[2,3,5] i32[2,3] f32[2,9] f32[2,4] f32[2,3]",
    { guided: false },
    "i32[2,3], i32[2,3], f32[2,3]",
  ],
  ["maskReplaceLoss", "f32[2,3,5] i32[2,3] i32[2,3] f32[2,9]", {}, "f32[2,3], f32[2,3]"],
  ["randomNormal", "i32[2,4]", { shape: [2, 7], purpose: 3 }, "f32[2,7]"],
  ["randomNormal", "i32[2,4]", { shape: [2, 7], purpose: 3, dtype: "f64" }, "f64[2,7]"],
];

/** Refused: op, inputs, attributes, message. */
const refused: readonly Row[] = [
  ["exp", "i32[2]", {}, "exp: expected f32 or f64, got i32[2]; cast it first"],
  ["neg", "bool[2]", {}, "neg: expected f32 or f64 or i32, got bool[2]; cast it first"],
  ["logicalNot", "f32[2]", {}, "logicalNot: expected bool, got f32[2]; cast it first"],
  ["add", "f32[2] i32[2]", {}, "add: expected equal dtypes, got f32[2], i32[2]; cast one of them"],
  ["add", "f32[2,3] f32[4]", {}, "add: expected shapes that broadcast, got f32[2,3], f32[4]"],
  [
    "add",
    "f16[2] f16[2]",
    {},
    "add: expected f32 or f64 or i32, got f16[2], f16[2]; cast it first",
  ],
  ["add", "f32[2]", {}, "add: expected inputs a, b, got 1 inputs"],
  ["equal", "f32[2] f32[3]", {}, "equal: expected shapes that broadcast, got f32[2], f32[3]"],
  [
    "where",
    "f32[2] f32[2] f32[2]",
    {},
    "where (condition): expected bool, got f32[2]; cast it first",
  ],
  [
    "where",
    "bool[2] f32[2] i32[2]",
    {},
    "where: expected equal dtypes, got f32[2], i32[2]; cast one of them",
  ],
  [
    "leakyRelu",
    "f32[2]",
    { slop: 1 },
    'leakyRelu: expected attributes slope, got "slop"; did you mean "slope"?',
  ],
  ["clamp", "f32[2]", { min: 0 }, "clamp: expected max to be a number, got nothing"],
  ["cast", "f32[2]", { dtype: "f8" }, 'cast: expected dtype to be a dtype, got "f8"'],
  [
    "constant",
    "",
    { dtype: "f32", shape: [3], values: [1, 2] },
    "constant: expected 1 or 3 values for shape [3], got 2 values",
  ],
  [
    "constant",
    "",
    { dtype: "f32", shape: [0], values: [1] },
    "constant: expected shape to be a shape of sizes of at least 1, got [0]",
  ],
  [
    "iota",
    "",
    { dtype: "i32", shape: [3], axis: 1 },
    "iota: expected axis from 0 to 0, got axis 1 of [3]",
  ],
  ["iota", "", { dtype: "u8", shape: [3], axis: 0 }, "iota: expected f32 or f64 or i32, got u8"],
  [
    "sum",
    "f32[2,3,4]",
    { axes: [0, 2], keepDims: false },
    "sum: expected one run of adjacent axes of the input, got axes [0, 2] of [2, 3, 4]",
  ],
  [
    "mean",
    "i32[2]",
    { axes: [0], keepDims: false },
    "mean: expected f32 or f64, got i32[2]; cast it first",
  ],
  ["argMax", "f32[]", {}, "argMax: expected a tensor with at least 1 axes, got f32[]"],
  [
    "cumulativeSum",
    "bool[2]",
    { reverse: false },
    "cumulativeSum: expected f32 or f64 or i32, got bool[2]; cast it first",
  ],
  [
    "topK",
    "f32[2,3]",
    { k: 4, descending: true },
    "topK: expected k from 1 to 3 for the last axis, got k = 4 of [2, 3]",
  ],
  [
    "reshape",
    "f32[2,3]",
    { shape: [5] },
    "reshape: expected a shape of 6 elements for [2, 3], got [5]",
  ],
  [
    "transpose",
    "f32[2,3]",
    { permutation: [0, 0] },
    "transpose: expected a permutation of the 2 axes of [2, 3], got [0, 0]",
  ],
  [
    "slice",
    "f32[5]",
    { starts: [3], sizes: [3], strides: [1] },
    "slice: expected elements 0 to 4 of axis 0 of [5], got 3 to 5",
  ],
  [
    "slice",
    "f32[5]",
    { starts: [3, 0], sizes: [3], strides: [1] },
    "slice: expected starts with one number for each axis of [5], got [3, 0]",
  ],
  [
    "concat",
    "f32[1,2] f32[3,3]",
    { axis: 0 },
    "concat: expected equal shapes apart from axis 0, got f32[1,2], f32[3,3]",
  ],
  [
    "pad",
    "f32[2]",
    { low: [-1], high: [0], value: 0 },
    "pad: expected padding of at least 0, got low [-1], high [0]",
  ],
  [
    "broadcastTo",
    "f32[2]",
    { shape: [3] },
    "broadcastTo: expected a shape that [2] broadcasts to, got [3]",
  ],
  [
    "gather",
    "f32[5,6] f32[2]",
    { axis: 0 },
    "gather: expected indices i32, got f32[2]; cast it to i32",
  ],
  [
    "gather",
    "f32[5,6] i32[2]",
    { axis: 2 },
    "gather: expected axis from 0 to 1, got axis 2 of [5, 6]",
  ],
  [
    "scatterAdd",
    "f32[3,7] i32[2]",
    { axis: 0, size: 6 },
    "scatterAdd: expected values with the shape of indices at axis 0, got f32[3,7], i32[2]",
  ],
  [
    "gatherLast",
    "f32[2,3] i32[3]",
    {},
    "gatherLast: expected indices with the shape of x without its last axis, got f32[2,3], i32[3]",
  ],
  [
    "scatterLast",
    "f32[2] i32[3]",
    { size: 3 },
    "scatterLast: expected values and indices of one shape, got f32[2], i32[3]",
  ],
  [
    "matmul",
    "f32[2,3] f32[4,5]",
    plain,
    "matmul: expected inner sizes that agree, not [2, 3] x [4, 5] (transposed as asked), got f32[2,3], f32[4,5]",
  ],
  [
    "matmul",
    "f32[2,3,4] f32[3,4,5]",
    plain,
    "matmul: expected equal leading axes, or none on one side, got f32[2,3,4], f32[3,4,5]",
  ],
  [
    "matmul",
    "f32[2,3] f32[3]",
    plain,
    "matmul: expected matrices with at least 2 axes, got f32[3]",
  ],
  [
    "conv2d",
    "f32[1,4,4,3] f32[3,3,2,5]",
    { ...conv, upsample: 1 },
    "conv2d: expected weight (KH, KW, 3, a multiple of 1) for 3 channels in 1 groups, got f32[1,4,4,3], f32[3,3,2,5]",
  ],
  [
    "conv2d",
    "f32[1,2,2,2] f32[3,3,2,5]",
    { ...conv, upsample: 1 },
    "conv2d: expected an input that holds the [3, 3] kernel, got [2, 2] with padding [0, 0, 0, 0]",
  ],
  [
    "conv2d",
    "f32[1,2,2,2] f32[3,3,2,5]",
    { ...conv, padding: [1, 1], upsample: 1 },
    "conv2d: expected padding to be four integers of at least 0: top, bottom, left, right, got [1, 1]",
  ],
  [
    "conv2dGradInput",
    "f32[1,3,2,5] f32[3,3,2,5]",
    { ...conv, inputSize: [4, 4] },
    "conv2dGradInput: expected dy (B, 2, 2, 5) for this weight and input size [4, 4], got f32[1,3,2,5], f32[3,3,2,5]",
  ],
  [
    "conv2dGradWeight",
    "f32[1,4,4,2] f32[1,3,2,5]",
    { ...conv, kernel: [3, 3], upsample: 1 },
    "conv2dGradWeight: expected dy (1, 2, 2, O) and channels divisible by 1, got f32[1,4,4,2], f32[1,3,2,5]",
  ],
  ["softmax", "f32[]", {}, "softmax: expected a tensor with at least 1 axes, got f32[]"],
  ["softmaxGrad", "f32[2] f32[3]", {}, "softmaxGrad: expected dy [2] for f32[2], got f32[3]"],
  [
    "crossEntropy",
    "f32[2,4] i32[3]",
    {},
    "crossEntropy: expected target [2] for logits f32[2,4], got i32[3]",
  ],
  [
    "groupNorm",
    "f32[2,3,5] f32[5] f32[5]",
    norm,
    "groupNorm: expected channels divisible by 2 groups, got f32[2,3,5]",
  ],
  [
    "groupNorm",
    "f32[2,3,4] f32[3] f32[4]",
    norm,
    "groupNorm: expected gamma [4] for f32[2,3,4], got f32[3]",
  ],
  [
    "groupNorm",
    "f32[2,4] f32[4] f32[4]",
    { ...norm, activation: "relu" },
    'groupNorm: expected activation to be one of "none", "silu", got "relu"',
  ],
  [
    "groupNormGrad",
    "f32[2,4] f32[4] f32[4] f32[4]",
    norm,
    "groupNormGrad: expected dy [2, 4] for f32[2,4], got f32[4]",
  ],
  [
    "layerNorm",
    "f32[2,4]",
    layer,
    'layerNorm: expected 3 inputs for affine "shared", got f32[2,4]',
  ],
  [
    "layerNorm",
    "f32[2,4] f32[4] f32[3]",
    layer,
    "layerNorm: expected shift [4] for f32[2,4], got f32[3]",
  ],
  [
    "layerNormGrad",
    "f32[2,4] f32[2] f32[2,4]",
    layer,
    "layerNormGrad: expected scale [4] for f32[2,4], got f32[2]",
  ],
  [
    "rmsNorm",
    "f32[2,4] f32[2]",
    { eps: 1e-6 },
    "rmsNorm: expected gamma [4] for f32[2,4], got f32[2]",
  ],
  [
    "attention",
    "f32[2,3,4,5] f32[2,6,4,4] f32[2,6,4,7]",
    heads,
    "attention: expected q (B, N, H, D), k (B, M, H, D), v (B, M, H, E), got f32[2,3,4,5], f32[2,6,4,4], f32[2,6,4,7]",
  ],
  [
    "attention",
    "f32[2,3,4,5] f32[2,6,4,5] f32[2,6,4,7] f32[5,6]",
    heads,
    "attention: expected a mask that broadcasts to (B, H, N, M) = [2, 4, 3, 6], got f32[5,6]",
  ],
  [
    "attention",
    "f32[1,3,1,5] f32[1,2,1,5] f32[1,2,1,5]",
    { scale: 1, causal: true },
    "attention: expected at least as many keys as queries when causal, got f32[1,3,1,5], f32[1,2,1,5]",
  ],
  [
    "attentionGrad",
    "f32[1,3,1,5] f32[1,3,1,5] f32[1,3,1,5] f32[1,3,1,5] f32[1,3] f32[1,3,1,5]",
    heads,
    "attentionGrad: expected lse [1, 1, 3] for f32[1,3,1,5], got f32[1,3]",
  ],
  [
    "nearestCodes",
    "f32[9,4] f32[16,5]",
    { metric: "cosine" },
    "nearestCodes: expected latents (N, D) and codebook (K, D) of one width, got f32[9,4], f32[16,5]",
  ],
  [
    "maskReplaceForward",
    "i32[2,3] f32[2,8] f32[2,3,2]",
    { codes: 5 },
    "maskReplaceForward: expected coeffs [2, 9], got f32[2,8]",
  ],
  [
    "maskReplaceStep",
    "f32[2,3,5] i32[2,3] f32[2,9] f32[2,4] f32[2,3]",
    { guided: true },
    "maskReplaceStep: expected 6 inputs when guided is true, got f32[2,3,5], i32[2,3], f32[2,9], f32[2,4], f32[2,3]",
  ],
  [
    "maskReplaceStep",
    "f32[2,3,5] f32[2,3] f32[2,9] f32[2,4] f32[2,3]",
    { guided: false },
    "maskReplaceStep: expected xt i32, got f32[2,3]; cast it to i32",
  ],
  [
    "maskReplaceLoss",
    "f32[2,3,5] i32[2,3] i32[2,4] f32[2,9]",
    {},
    "maskReplaceLoss: expected xt [2, 3], got i32[2,4]",
  ],
  [
    "maskReplaceLossGrad",
    "f32[2,3,5] i32[2,3] i32[2,3] f32[2,9] f32[2] f32[2,3]",
    {},
    "maskReplaceLossGrad: expected dkl [2, 3], got f32[2]",
  ],
  [
    "randomUniform",
    "i32[3,4]",
    { shape: [2, 7], purpose: 3 },
    "randomUniform: expected key (B, 4) and a shape that starts with B, got i32[3,4] and [2, 7]",
  ],
  [
    "randomUniform",
    "i32[2,4]",
    { shape: [2, 7], purpose: -1 },
    "randomUniform: expected purpose from 0 to 4294967295, got -1",
  ],
];

describe("op rows", () => {
  it.each(accepted)("%s of %s %o", (op, inputs, attrs, expected) => {
    expect(formatSpecs(opDef(op).infer(specs(inputs), attrs))).toBe(expected);
  });

  it.each(refused)("%s refuses %s %o", (op, inputs, attrs, message) => {
    let caught: unknown;
    try {
      opDef(op).infer(specs(inputs), attrs);
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(DiffusionError);
    expect((caught as DiffusionError).message).toBe(message);
  });

  it("name the nearest op", () => {
    expect(() => opDef("softmx")).toThrow(
      'opDef: expected a known op, got "softmx"; did you mean "softmax"?',
    );
  });

  it("are all there", () => expect([...opTable.keys()].sort()).toMatchSnapshot());
});
