// Functions made of a few ops that have no node of their own.
import { DiffusionError, formatShape } from "../errors.js";
import { normalizeAxis } from "../ir/shape.js";
import type { DrawOptions, Selected } from "./ops.js";
import { argMax, concat, equal, gather, iota, randomUniform, topK } from "./ops.js";
import type { Axes, Tensor } from "./tensor.js";

/** log sum exp over `axes` (default the last), safe for large values. */
export function logSumExp(x: Tensor, axes: Axes = -1, keepDims = false): Tensor {
  const peak = x.max(axes, true);
  const total = x.sub(peak).exp().sum(axes, true).log().add(peak);
  return keepDims ? total : total.reshape(x.sum(axes).shape);
}

export interface Moments {
  mean: Tensor;
  /** Mean squared deviation (biased). */
  variance: Tensor;
}

/** Mean and variance over `axes`. */
export function moments(x: Tensor, axes?: Axes, keepDims = false): Moments {
  const center = x.mean(axes, true);
  const variance = x.sub(center).square().mean(axes, keepDims);
  return { mean: keepDims ? center : center.reshape(variance.shape), variance };
}

/** (x - mean) / sqrt(variance + eps) over `axes`; eps defaults to 1e-5. */
export function standardise(x: Tensor, axes: Axes, { eps = 1e-5 }: { eps?: number } = {}): Tensor {
  const { mean, variance } = moments(x, axes, true);
  return x.sub(mean).mul(variance.add(eps).rsqrt());
}

export interface BatchNormOptions {
  /** Stored statistics (C); without them those of the batch are used. */
  statistics?: Moments;
  /** Default 1e-5. */
  eps?: number;
}

/** Ioffe and Szegedy 2015, arXiv:1502.03167: each channel (last axis) normalised over all other axes. */
export function batchNorm(
  x: Tensor,
  gamma: Tensor,
  beta: Tensor,
  { statistics, eps = 1e-5 }: BatchNormOptions = {},
): Tensor {
  const others = x.shape.map((_, axis) => axis).slice(0, -1);
  const { mean, variance } = statistics ?? moments(x, others);
  return x.sub(mean).mul(variance.add(eps).rsqrt().mul(gamma)).add(beta);
}

/** 1 at the index and 0 elsewhere: i32 (...) -> (..., size) in the trace's float type. */
export function oneHot(indices: Tensor, size: number): Tensor {
  const classes = iota(indices.trace, [size], 0, indices.dtype);
  return equal(indices.reshape([...indices.shape, 1]), classes).cast("f32");
}

/** All elements of the last axis in order; ascending unless told otherwise. */
export const sort = (x: Tensor, { descending = false }: { descending?: boolean } = {}): Selected =>
  topK(x, { k: x.shape.at(-1) ?? 1, descending });

/** Standard Gumbel noise; the constants are those of microsoft/VQ-Diffusion diffusion_transformer.py. */
export const gumbel = (key: Tensor, options: DrawOptions): Tensor =>
  gumbelOf(randomUniform(key, options));

const gumbelOf = (uniform: Tensor): Tensor => uniform.add(1e-30).log().neg().add(1e-30).log().neg();

/** A draw from softmax(logits) along the last axis by the Gumbel maximum: (B, ..., K) -> i32 (B, ...). */
export const categorical = (
  logits: Tensor,
  key: Tensor,
  { purpose }: { purpose: number },
): Tensor => argMax(logits.add(gumbel(key, { shape: logits.shape, purpose })));

/** Part `start` to `start + size` of one axis. */
function sliceAxis(x: Tensor, axis: number, start: number, size: number): Tensor {
  const at = normalizeAxis("slice", axis, x.rank);
  return x.slice(
    x.shape.map((_, i) => (i === at ? start : 0)),
    x.shape.map((n, i) => (i === at ? size : n)),
  );
}

/** Cuts an axis into `parts` equal parts, or into parts of the listed sizes. */
export function split(x: Tensor, parts: number | readonly number[], axis: number): Tensor[] {
  const total = x.shape[normalizeAxis("split", axis, x.rank)]!;
  const sizes =
    typeof parts === "number" ? Array.from({ length: parts }, () => total / parts) : parts;
  const sum = sizes.reduce((a, b) => a + b, 0);
  if (sum !== total || !sizes.every(Number.isInteger)) {
    const asked = typeof parts === "number" ? `${parts} equal parts` : formatShape(parts);
    throw new DiffusionError(
      "shape",
      `split: expected parts that fill the ${total} elements of axis ${axis}, got ${asked}`,
    );
  }
  let start = 0;
  return sizes.map((size) => {
    start += size;
    return sliceAxis(x, axis, start - size, size);
  });
}

/** Joins tensors of one shape along a new axis. */
export function stack(parts: readonly Tensor[], axis = 0): Tensor {
  const rank = (parts[0]?.rank ?? 0) + 1;
  const at = normalizeAxis("stack", axis, rank);
  return concat(
    parts.map((x) => x.reshape([...x.shape.slice(0, at), 1, ...x.shape.slice(at)])),
    at,
  );
}

/** The slices of an axis, without it. */
export function unstack(x: Tensor, axis = 0): Tensor[] {
  const at = normalizeAxis("unstack", axis, x.rank);
  const shape = x.shape.filter((_, i) => i !== at);
  return split(x, x.shape[at]!, at).map((part) => part.reshape(shape));
}

/** Each element of the axis `times` times in a row: [a, b] -> [a, a, b, b]. */
export function repeat(x: Tensor, times: number, axis: number): Tensor {
  const at = normalizeAxis("repeat", axis, x.rank);
  const [before, after] = [x.shape.slice(0, at + 1), x.shape.slice(at + 1)];
  const spread = x.reshape([...before, 1, ...after]).broadcastTo([...before, times, ...after]);
  return spread.reshape(x.shape.map((n, i) => (i === at ? n * times : n)));
}

/** The elements of an axis in the listed order. */
export const take = (x: Tensor, order: readonly number[], axis: number): Tensor =>
  gather(x, x.trace.constant(order, [order.length], "i32"), axis);

/** The axis backwards. */
export const reverse = (x: Tensor, axis: number): Tensor => {
  const size = x.shape[normalizeAxis("reverse", axis, x.rank)]!;
  return take(
    x,
    Array.from({ length: size }, (_, i) => size - 1 - i),
    axis,
  );
};
