// Training of an interpolant: the regression loss of each prediction and its weights. Source: Ma et al.
// 2024 (SiT), arXiv:2401.08740, section 2 and appendix A; weights of willisma/SiT
// transport/transport.py.
import type { Tensor } from "../trace/tensor.js";
import { columnsOf } from "./columns.js";
import { forwardVariance } from "./interpolant.js";
import type { PathLevel } from "./interpolant.js";
import type { TransportPrediction } from "./path-range.js";

/** "none": 1; "velocity": (g / c)^2; "likelihood": g / c^2; no effect on a velocity. */
export type TransportWeight = "none" | "velocity" | "likelihood";

/** Names of the columns of the table that `transportLoss` reads, one row a sample. */
export const transportColumns = ["a", "c", "aRate", "cRate", "weight"] as const;

const weights: Readonly<Record<TransportWeight, (variance: number, c: number) => number>> = {
  none: () => 1,
  velocity: (variance, c) => (variance / c) ** 2,
  likelihood: (variance, c) => variance / c ** 2,
};

export interface TransportOptions {
  prediction: TransportPrediction;
  /** Default "none". */
  weight?: TransportWeight;
}

/** Coefficients of the loss at given levels: (B, columns). */
export function transportTable(
  { prediction, weight = "none" }: TransportOptions,
  levels: readonly PathLevel[],
): Float32Array {
  const rows = levels.map((level) => {
    const { a, c, rates } = level;
    const scale = prediction === "velocity" ? 1 : weights[weight](forwardVariance(level), c);
    return [a, c, rates.a, rates.c, scale];
  });
  return Float32Array.from(rows.flat());
}

export type TransportColumns = Record<(typeof transportColumns)[number], Tensor>;

/** Columns of the table, each with the rank of the samples: (B, 1, …). */
export const transportCoefficients = (table: Tensor, rank: number): TransportColumns =>
  columnsOf(transportColumns, table, rank);

/** xt = a x0 + c noise. */
export const interpolate = (x0: Tensor, noise: Tensor, c: TransportColumns): Tensor =>
  x0.mul(c.a).add(noise.mul(c.c));

/** What a velocity is trained on: a' x0 + c' noise. */
export const pathVelocity = (x0: Tensor, noise: Tensor, c: TransportColumns): Tensor =>
  x0.mul(c.aRate).add(noise.mul(c.cRate));

/** Squared residual of each prediction; arXiv:2401.08740, eq. 5 and 9. */
const residuals: Readonly<
  Record<
    TransportPrediction,
    (predicted: Tensor, x0: Tensor, noise: Tensor, c: TransportColumns) => Tensor
  >
> = {
  velocity: (v, x0, noise, c) => v.sub(pathVelocity(x0, noise, c)),
  eps: (eps, _, noise) => eps.sub(noise),
  score: (score, _, noise, c) => score.mul(c.c).add(noise),
};

export interface TransportLoss {
  /** Mean over all but the batch: (B). */
  perSample: Tensor;
  /** Mean over the batch: (). */
  loss: Tensor;
}

/** Loss of a prediction at xt: mean of weight * residual^2. All tensors (B, …). */
export function transportLoss(
  prediction: TransportPrediction,
  given: { predicted: Tensor; x0: Tensor; noise: Tensor; coefficients: TransportColumns },
): TransportLoss {
  const { predicted, x0, noise, coefficients } = given;
  const residual = residuals[prediction](predicted, x0, noise, coefficients);
  const [B] = residual.shape as [number];
  const weighted = residual.square().mul(coefficients.weight);
  const perSample = weighted.reshape([B, residual.size / B]).mean(1);
  return { perSample, loss: perSample.mean() };
}
