// One function for each op, reading like mathematics; attributes have their defaults here and nowhere else.
import { DiffusionError, formatShape } from "../errors.js";
import type { DType } from "../ir/dtype.js";
import type { Attrs } from "../ir/graph.js";
import { normalizeAxis } from "../ir/shape.js";
import type { Shape } from "../ir/shape.js";
import type { Axes, MatmulOptions, Tensor, Trace } from "./tensor.js";

const single = (op: string, inputs: readonly [Tensor, ...Tensor[]], attrs: Attrs = {}): Tensor =>
  inputs[0].trace.append(op, inputs, attrs)[0]!;

// ---- elementwise

type Unary = (x: Tensor) => Tensor;
type Operand = Tensor | number;
type Binary = (a: Tensor, b: Operand) => Tensor;

export const neg: Unary = (x) => x.neg();
export const abs: Unary = (x) => x.abs();
export const exp: Unary = (x) => x.exp();
export const log: Unary = (x) => x.log();
export const log1p: Unary = (x) => x.log1p();
export const sqrt: Unary = (x) => x.sqrt();
export const rsqrt: Unary = (x) => x.rsqrt();
export const reciprocal: Unary = (x) => x.reciprocal();
export const square: Unary = (x) => x.square();
export const sin: Unary = (x) => x.sin();
export const cos: Unary = (x) => x.cos();
export const tanh: Unary = (x) => x.tanh();
export const sigmoid: Unary = (x) => x.sigmoid();
export const silu: Unary = (x) => x.silu();
/** x Phi(x), by the error function. */
export const gelu: Unary = (x) => x.gelu();
/** The tanh approximation of gelu. */
export const geluTanh: Unary = (x) => x.geluTanh();
/** x sigmoid(1.702 x). */
export const quickGelu: Unary = (x) => x.quickGelu();
export const relu: Unary = (x) => x.relu();
export const softplus: Unary = (x) => x.softplus();
export const erf: Unary = (x) => x.erf();
export const floor: Unary = (x) => x.floor();
export const ceil: Unary = (x) => x.ceil();
/** To the nearest integer, halves to the even one. */
export const round: Unary = (x) => x.round();
export const sign: Unary = (x) => x.sign();
export const isFinite: Unary = (x) => x.isFinite();
export const logicalNot: Unary = (x) => x.logicalNot();
/** The same values with zero gradient. */
export const stopGradient: Unary = (x) => single("stopGradient", [x]);

export const add: Binary = (a, b) => a.add(b);
export const sub: Binary = (a, b) => a.sub(b);
export const mul: Binary = (a, b) => a.mul(b);
export const div: Binary = (a, b) => a.div(b);
export const pow: Binary = (a, b) => a.pow(b);
export const maximum: Binary = (a, b) => a.maximum(b);
export const minimum: Binary = (a, b) => a.minimum(b);
/** Remainder with the sign of b. */
export const mod: Binary = (a, b) => a.mod(b);
export const equal: Binary = (a, b) => a.equal(b);
export const less: Binary = (a, b) => a.less(b);
export const lessEqual: Binary = (a, b) => a.lessEqual(b);
export const greater: Binary = (a, b) => a.greater(b);
export const greaterEqual: Binary = (a, b) => a.greaterEqual(b);
export const logicalAnd = (a: Tensor, b: Tensor): Tensor => a.logicalAnd(b);
export const logicalOr = (a: Tensor, b: Tensor): Tensor => a.logicalOr(b);

export const leakyRelu = (x: Tensor, { slope = 0.01 }: { slope?: number } = {}): Tensor =>
  x.leakyRelu(slope);
export const clamp = (x: Tensor, { min, max }: { min: number; max: number }): Tensor =>
  x.clamp(min, max);
export const cast = (x: Tensor, dtype: DType): Tensor => x.cast(dtype);

/** a where the condition holds, else b; one of a and b may be a number. */
export function where(condition: Tensor, a: Operand, b: Operand): Tensor {
  const real = typeof a === "number" ? b : a;
  if (typeof real === "number") {
    const { trace } = condition;
    return single("where", [condition, trace.constant(a as number), trace.constant(real)]);
  }
  return single("where", [condition, real.operand(a), real.operand(b)]);
}

// ---- reductions, scans, selections

type Reduction = (x: Tensor, axes?: Axes, keepDims?: boolean) => Tensor;

export const sum: Reduction = (x, axes, keepDims) => x.sum(axes, keepDims);
export const mean: Reduction = (x, axes, keepDims) => x.mean(axes, keepDims);
export const max: Reduction = (x, axes, keepDims) => x.max(axes, keepDims);
export const min: Reduction = (x, axes, keepDims) => x.min(axes, keepDims);
export const prod: Reduction = (x, axes, keepDims) => x.prod(axes, keepDims);
export const sumSquares: Reduction = (x, axes, keepDims) => x.sumSquares(axes, keepDims);
export const argMax: Unary = (x) => x.argMax();
export const argMin: Unary = (x) => x.argMin();
export const cumulativeSum = (x: Tensor, options?: { reverse?: boolean }): Tensor =>
  x.cumulativeSum(options);

export interface Selected {
  values: Tensor;
  indices: Tensor;
}

/** The k first of each row in sorted order; equal elements keep their order. */
export function topK(
  x: Tensor,
  { k, descending = true }: { k: number; descending?: boolean },
): Selected {
  const [values, indices] = x.trace.append("topK", [x], { k, descending }) as [Tensor, Tensor];
  return { values, indices };
}

// ---- movement

/** 0, 1, 2, ... along `axis`, the same in all others. */
export function iota(trace: Trace, shape: Shape, axis: number, dtype: DType = "i32"): Tensor {
  const attrs = {
    dtype: trace.floating(dtype),
    shape: [...shape],
    axis: normalizeAxis("iota", axis, shape.length),
  };
  return trace.append("iota", [], attrs)[0]!;
}

export const reshape = (x: Tensor, shape: Shape): Tensor => x.reshape(shape);
export const transpose = (x: Tensor, permutation: readonly number[]): Tensor =>
  x.transpose(permutation);
export const slice = (
  x: Tensor,
  starts: readonly number[],
  sizes: Shape,
  strides?: readonly number[],
): Tensor => x.slice(starts, sizes, strides);
export const broadcastTo = (x: Tensor, shape: Shape): Tensor => x.broadcastTo(shape);

export function concat(parts: readonly Tensor[], axis: number): Tensor {
  const [first, ...rest] = parts;
  if (!first) throw new DiffusionError("shape", "concat: expected at least one tensor, got none");
  if (rest.length === 0) return first;
  return single("concat", [first, ...rest], { axis: normalizeAxis("concat", axis, first.rank) });
}

/** `low` elements before and `high` after, one number for each axis; value defaults to 0. */
export const pad = (
  x: Tensor,
  low: readonly number[],
  high: readonly number[],
  value = 0,
): Tensor => single("pad", [x], { low: [...low], high: [...high], value });

/** table.shape[:axis] ++ indices.shape ++ table.shape[axis + 1:]; axis defaults to 0. */
export const gather = (table: Tensor, indices: Tensor, axis = 0): Tensor =>
  table.gather(indices, axis);

/** The adjoint of gather: adds `values` into zeros of `size` along `axis`. */
export const scatterAdd = (
  values: Tensor,
  indices: Tensor,
  { axis = 0, size }: { axis?: number; size: number },
): Tensor => single("scatterAdd", [values, indices], { axis, size });

/** x[..., indices[...]]: one element of each row. */
export const gatherLast = (x: Tensor, indices: Tensor): Tensor =>
  single("gatherLast", [x, indices]);

/** Rows of zeros of length `size` with values[...] at indices[...]. */
export const scatterLast = (values: Tensor, indices: Tensor, size: number): Tensor =>
  single("scatterLast", [values, indices], { size });

// ---- products

/** (..., M, K) x (..., K, N); leading axes equal, or absent on one side. */
export const matmul = (a: Tensor, b: Tensor, options?: MatmulOptions): Tensor =>
  a.matmul(b, options);

/** One number for both axes, or (vertical, horizontal). */
export type Pair = number | readonly [number, number];
/** One number for all sides, (vertical, horizontal), or (top, bottom, left, right). */
export type Padding = Pair | readonly [number, number, number, number];

export const asPair = (value: Pair): [number, number] =>
  typeof value === "number" ? [value, value] : [...value];

export function asPadding(value: Padding): [number, number, number, number] {
  if (typeof value === "number") return [value, value, value, value];
  return value.length === 4 ? [...value] : [value[0], value[0], value[1], value[1]];
}

export interface ConvOptions {
  /** Default 1. */
  stride?: Pair;
  /** Zeros around the input; default 0. */
  padding?: Padding;
  /** Default 1. */
  groups?: number;
}

const convAttrs = ({ stride = 1, padding = 0, groups = 1 }: ConvOptions) => ({
  stride: asPair(stride),
  padding: asPadding(padding),
  groups,
});

/** x (B, H, W, C), w (KH, KW, C / groups, O); `upsample` repeats the input's pixels first (default 1: not). */
export const conv2d = (
  x: Tensor,
  w: Tensor,
  { upsample = 1, ...options }: ConvOptions & { upsample?: number } = {},
): Tensor => single("conv2d", [x, w], { ...convAttrs(options), upsample });

/** dy with stride - 1 zeros after each pixel, cut or filled to (H, W): the gradient then has stride 1. */
function dilate(dy: Tensor, [SH, SW]: readonly [number, number], H: number, W: number): Tensor {
  const [B, OH, OW, O] = dy.shape as [number, number, number, number];
  const apart = pad(
    dy.reshape([B, OH, 1, OW, 1, O]),
    [0, 0, 0, 0, 0, 0],
    [0, 0, SH - 1, 0, SW - 1, 0],
  );
  return apart.reshape([B, OH * SH, OW * SW, O]).slice([0, 0, 0, 0], [B, H, W, O]);
}

/** Gradient of conv2d with respect to x of size `inputSize`. Kernels have one stride for both axes. */
export function conv2dGradInput(
  dy: Tensor,
  w: Tensor,
  { inputSize, ...options }: ConvOptions & { inputSize: readonly [number, number] },
): Tensor {
  const { stride, padding, groups } = convAttrs(options);
  const attrs = { padding, groups, inputSize: [...inputSize] };
  const kernel = w.shape.slice(0, 2) as [number, number];
  if (stride[0] === stride[1] || dy.rank !== 4 || w.rank !== 4) {
    return single("conv2dGradInput", [dy, w], { ...attrs, stride });
  }
  const H = inputSize[0] + padding[0] + padding[1] - kernel[0] + 1;
  const W = inputSize[1] + padding[2] + padding[3] - kernel[1] + 1;
  return single("conv2dGradInput", [dilate(dy, stride, H, W), w], { ...attrs, stride: [1, 1] });
}

/** Gradient of conv2d with respect to w of size `kernel`. */
export const conv2dGradWeight = (
  x: Tensor,
  dy: Tensor,
  {
    kernel,
    upsample = 1,
    ...options
  }: ConvOptions & { kernel: readonly [number, number]; upsample?: number },
): Tensor => single("conv2dGradWeight", [x, dy], { ...convAttrs(options), kernel, upsample });

// ---- softmax, normalisation, attention

export const softmax: Unary = (x) => single("softmax", [x]);
export const logSoftmax: Unary = (x) => single("logSoftmax", [x]);
/** Gradient of softmax from its output. */
export const softmaxGrad = (y: Tensor, dy: Tensor): Tensor => single("softmaxGrad", [y, dy]);
export const logSoftmaxGrad = (y: Tensor, dy: Tensor): Tensor => single("logSoftmaxGrad", [y, dy]);

/** -log softmax(logits)[target]: (..., K) and i32 (...) -> (...). */
export const crossEntropy = (logits: Tensor, target: Tensor): Tensor =>
  single("crossEntropy", [logits, target]);

export interface GroupNormOptions {
  groups: number;
  /** Default 1e-5. */
  eps?: number;
  /** Default "none". */
  activation?: "none" | "silu";
}

const groupNormAttrs = ({ groups, eps = 1e-5, activation = "none" }: GroupNormOptions) => ({
  groups,
  eps,
  activation,
});

/** x (B, ..., C); statistics over space and the channels of a group. */
export const groupNorm = (
  x: Tensor,
  gamma: Tensor,
  beta: Tensor,
  options: GroupNormOptions,
): Tensor => single("groupNorm", [x, gamma, beta], groupNormAttrs(options));

/** [dx, dgamma, dbeta]. */
export const groupNormGrad = (
  x: Tensor,
  gamma: Tensor,
  beta: Tensor,
  dy: Tensor,
  options: GroupNormOptions,
): [Tensor, Tensor, Tensor] =>
  x.trace.append("groupNormGrad", [x, gamma, beta, dy], groupNormAttrs(options)) as [
    Tensor,
    Tensor,
    Tensor,
  ];

/** none: n; shared: n scale + shift with vectors (D); modulate: n (1 + scale) + shift with (B, D). */
export type Affine = "none" | "shared" | "modulate";

export interface LayerNormOptions {
  scale?: Tensor;
  shift?: Tensor;
  /** Default 1e-5. */
  eps?: number;
  /** Default "shared" with scale and shift, else "none". */
  affine?: Affine;
}

/** x (B, ..., D), statistics over the last axis. */
export function layerNorm(
  x: Tensor,
  { scale, shift, eps = 1e-5, affine }: LayerNormOptions = {},
): Tensor {
  const kind = affine ?? (scale ? "shared" : "none");
  const vectors = [scale, shift].filter((v) => v !== undefined);
  return single("layerNorm", [x, ...vectors], { eps, affine: kind });
}

/** [dx, dscale, dshift], or [dx] without scale. */
export const layerNormGrad = (
  x: Tensor,
  scale: Tensor | undefined,
  dy: Tensor,
  { eps, affine }: { eps: number; affine: Affine },
): Tensor[] => x.trace.append("layerNormGrad", scale ? [x, scale, dy] : [x, dy], { eps, affine });

/** x / sqrt(mean(x^2) + eps) gamma over the last axis; eps defaults to 1e-6. */
export const rmsNorm = (x: Tensor, gamma: Tensor, { eps = 1e-6 }: { eps?: number } = {}): Tensor =>
  single("rmsNorm", [x, gamma], { eps });

export interface AttentionOptions {
  /** Default 1 / sqrt(D). */
  scale?: number;
  /** Added to the scores; broadcasts to (B, H, N, M). */
  mask?: Tensor;
  /** Key m is visible to query n when m <= n + M - N; default false. */
  causal?: boolean;
}

/** q (B, N, H, D), k (B, M, H, D), v (B, M, H, E) -> out (B, N, H, E) and log-sum-exp of the scores (B, H, N). */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions = {},
): { out: Tensor; lse: Tensor } {
  const { scale = 1 / Math.sqrt(q.shape.at(-1) ?? 1), mask, causal = false } = options;
  const inputs = mask ? [q, k, v, mask] : [q, k, v];
  const [out, lse] = q.trace.append("attention", inputs, { scale, causal }) as [Tensor, Tensor];
  return { out, lse };
}

export interface AttentionGradInputs {
  q: Tensor;
  k: Tensor;
  v: Tensor;
  out: Tensor;
  lse: Tensor;
  dout: Tensor;
}

export function attentionGrad(
  { q, k, v, out, lse, dout }: AttentionGradInputs,
  { scale = 1 / Math.sqrt(q.shape.at(-1) ?? 1), mask, causal = false }: AttentionOptions = {},
): { dq: Tensor; dk: Tensor; dv: Tensor } {
  const inputs = [q, k, v, out, lse, dout, ...(mask ? [mask] : [])];
  const [dq, dk, dv] = q.trace.append("attentionGrad", inputs, { scale, causal }) as [
    Tensor,
    Tensor,
    Tensor,
  ];
  return { dq, dk, dv };
}

// ---- codes and tokens

/** Index of the nearest codebook row: latents (N, D), codebook (K, D) -> i32 (N). */
export const nearestCodes = (
  latents: Tensor,
  codebook: Tensor,
  { metric = "euclidean" }: { metric?: "euclidean" | "cosine" } = {},
): Tensor => single("nearestCodes", [latents, codebook], { metric });

/** A draw of q(xt | x0): x0 i32 (B, N), coeffs (B, 9), uniform (B, N, 2). */
export const maskReplaceForward = (
  x0: Tensor,
  coeffs: Tensor,
  uniform: Tensor,
  { codes }: { codes: number },
): Tensor => single("maskReplaceForward", [x0, coeffs, uniform], { codes });

export interface MaskReplaceStep {
  /** x_s. */
  tokens: Tensor;
  /** The likeliest x0 and its probability. */
  best: Tensor;
  confidence: Tensor;
}

/** One reverse step from logits (B, N, K) to tokens; guided when unconditional logits are given. */
export function maskReplaceStep(
  logits: Tensor,
  xt: Tensor,
  coeffs: Tensor,
  settings: Tensor,
  uniform: Tensor,
  uncondLogits?: Tensor,
): MaskReplaceStep {
  const guided = uncondLogits !== undefined;
  const inputs = [logits, ...(guided ? [uncondLogits] : []), xt, coeffs, settings, uniform];
  const [tokens, best, confidence] = logits.trace.append("maskReplaceStep", inputs, { guided }) as [
    Tensor,
    Tensor,
    Tensor,
  ];
  return { tokens, best, confidence };
}

/** KL(q(x_s | x_t, x0) || p(x_s | x_t)) and -log p(x0 | x_t) of each position. */
export function maskReplaceLoss(
  logits: Tensor,
  x0: Tensor,
  xt: Tensor,
  coeffs: Tensor,
): { kl: Tensor; nll: Tensor } {
  const [kl, nll] = logits.trace.append("maskReplaceLoss", [logits, x0, xt, coeffs]) as [
    Tensor,
    Tensor,
  ];
  return { kl, nll };
}

export const maskReplaceLossGrad = (
  logits: Tensor,
  x0: Tensor,
  xt: Tensor,
  coeffs: Tensor,
  dkl: Tensor,
  dnll: Tensor,
): Tensor => single("maskReplaceLossGrad", [logits, x0, xt, coeffs, dkl, dnll]);

// ---- random numbers

export interface DrawOptions {
  /** Starts with the batch. */
  shape: Shape;
  /** Separates the draws of one key. */
  purpose: number;
}

function draw(op: string, key: Tensor, { shape, purpose }: DrawOptions): Tensor {
  if (shape.length === 0)
    throw new DiffusionError(
      "shape",
      `${op}: expected a shape that starts with the batch, got ${formatShape(shape)}`,
    );
  const attrs = { shape: [...shape], purpose };
  return single(op, [key], key.trace.dtype === "f64" ? { ...attrs, dtype: "f64" } : attrs);
}

/** Uniform in [0, 1) from key rows i32 (B, 4): seed low, seed high, sample, step. */
export const randomUniform = (key: Tensor, options: DrawOptions): Tensor =>
  draw("randomUniform", key, options);
/** Standard normal from key rows i32 (B, 4). */
export const randomNormal = (key: Tensor, options: DrawOptions): Tensor =>
  draw("randomNormal", key, options);
