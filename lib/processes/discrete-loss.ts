// Training loss of mask-and-replace diffusion: variational and auxiliary terms, their weights, and
// importance sampling of the timestep. Source: Gu et al. 2021, arXiv:2111.14822, eq. 9-10;
// importance sampling of Nichol and Dhariwal 2021, arXiv:2102.09672, section 3.3, as in
// microsoft/VQ-Diffusion diffusion_transformer.py.
import { DiffusionError } from "../errors.js";
import { equal, maskReplaceLoss, where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { klDivergence, logCoefficients, logOneHot, posterior, predictStart } from "./discrete.js";

export interface LossOptions {
  timesteps: number;
  /**
   * Weight of the auxiliary term; 5e-4 for the released text models, 1e-3 for the others. Default
   * 5e-4.
   */
  auxiliaryWeight?: number;
  /** The auxiliary weight falls from 2 at t = 0 towards 1; default true. */
  adaptiveAuxiliary?: boolean;
  /** Weights of masked and of visible positions; default [1, 1]. */
  maskWeight?: readonly [number, number];
}

/** Columns of the loss weight table of one sample. */
export const lossWeightNames = ["kl", "nll", "masked", "visible"] as const;

/**
 * Rows (B, 4): weights of the two terms, divided by the probability of having drawn t, and weights
 * of masked and visible positions, which do not act at t = 0.
 */
export function lossWeightTable(
  times: readonly number[],
  probabilities: readonly number[],
  options: LossOptions,
): Float32Array {
  const {
    timesteps,
    auxiliaryWeight = 5e-4,
    adaptiveAuxiliary = true,
    maskWeight = [1, 1],
  } = options;
  return Float32Array.from(
    times.flatMap((t, i) => {
      const drawn = probabilities[i]!;
      const adaptive = adaptiveAuxiliary ? 2 - t / timesteps : 1;
      const [masked, visible] = t === 0 ? [1, 1] : maskWeight;
      return [1 / drawn, (auxiliaryWeight * adaptive) / drawn, masked, visible];
    }),
  );
}

export interface LossInputs {
  /** (B, N, K). */
  logits: Tensor;
  /** Clean and corrupted tokens (B, N). */
  x0: Tensor;
  xt: Tensor;
  /** lossWeightTable as a tensor (B, 4). */
  weights: Tensor;
}

export interface LossParts {
  /** Scalar: sum over samples / (B N). */
  loss: Tensor;
  /** (B): the whole loss of each sample, summed over its positions. */
  perSample: Tensor;
  /** (B): the variational part, unweighted, that importance sampling keeps track of. */
  klPerSample: Tensor;
}

function combine(kl: Tensor, nll: Tensor, { xt, logits, weights }: LossInputs): LossParts {
  const [B, N, K] = logits.shape as [number, number, number];
  const column = (i: number): Tensor => weights.slice([0, i], [B, 1]);
  const isMasked = equal(xt, K);
  const positions = where(isMasked, column(2), column(3)); // (B, N)
  const klPerSample = kl.mul(positions).sum([1]);
  const nllPerSample = nll.mul(positions).sum([1]);
  const flat = (i: number): Tensor => column(i).reshape([B]);
  const perSample = klPerSample.mul(flat(0)).add(nllPerSample.mul(flat(1)));
  return { loss: perSample.sum().div(B * N), perSample, klPerSample };
}

/**
 * Loss by the fused operation; `coeffs` is a coefficient table (B, 9) with s = t - 1. At t = 0 both
 * terms are -log p(x0).
 */
export function discreteLoss(inputs: LossInputs & { coeffs: Tensor }): LossParts {
  const { kl, nll } = maskReplaceLoss(inputs.logits, inputs.x0, inputs.xt, inputs.coeffs);
  return combine(kl, nll, inputs);
}

/**
 * The same with the reference's log-space arrays; `logTable` is a log coefficient table (B, 12),
 * `times` i32 (B).
 */
export function referenceLoss(
  inputs: LossInputs & { logTable: Tensor; times: Tensor },
): LossParts & { kl: Tensor } {
  const { logits, x0, xt, logTable, times } = inputs;
  const [B, , K] = logits.shape as [number, number, number];
  const coefficients = logCoefficients(logTable);
  const logX0 = logOneHot(x0, K + 1);
  const predicted = predictStart(logits);
  const model = posterior(predicted, xt, coefficients);
  const kl = klDivergence(posterior(logX0, xt, coefficients), model);
  const decoderNll = logX0.exp().mul(model).sum([2]).neg();
  const real = (x: Tensor): Tensor => x.slice([0, 0, 0], [B, x.shape[1]!, K]);
  const auxiliary = klDivergence(real(logX0), real(predicted));
  const isFirst = equal(times, 0).reshape([B, 1]);
  const parts = combine(
    where(isFirst, decoderNll, kl),
    where(isFirst, decoderNll, auxiliary),
    inputs,
  );
  return { ...parts, kl };
}

/**
 * How the timestep of training is drawn: running squares of the loss and the number of draws, one
 * entry a timestep.
 */
export interface ImportanceState {
  readonly history: Float64Array;
  readonly counts: Float64Array;
}

/** Draws of each timestep before its history is trusted. */
const kWarmDraws = 10;
const kHistoryDecay = 0.9;

export const importanceState = (timesteps: number): ImportanceState => ({
  history: new Float64Array(timesteps),
  counts: new Float64Array(timesteps),
});

/** Probability of drawing each timestep: uniform until all have more than ten draws. */
export function timestepProbabilities({ history, counts }: ImportanceState): Float64Array {
  const T = history.length;
  if (counts.some((count) => count <= kWarmDraws)) return new Float64Array(T).fill(1 / T);
  const weights = history.map((square) => Math.sqrt(square + 1e-10) + 1e-4);
  if (T > 1) weights[0] = weights[1]!;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/** Draws timesteps with the given uniforms; returns them and the probability of each. */
export function drawTimesteps(
  state: ImportanceState,
  uniforms: readonly number[],
): { times: number[]; probabilities: number[] } {
  const p = timestepProbabilities(state);
  const times = uniforms.map((u) => {
    let rest = u;
    const found = p.findIndex((mass) => (rest -= mass) < 0);
    return found < 0 ? p.length - 1 : found;
  });
  return { times, probabilities: times.map((t) => p[t]!) };
}

/**
 * State after a batch: history[t] <- 0.1 kl^2 + 0.9 history[t]. Of several samples with one t the
 * last in the batch counts (the reference leaves this to the device).
 */
export function updateImportance(
  state: ImportanceState,
  times: readonly number[],
  klPerSample: ArrayLike<number>,
): ImportanceState {
  if (times.length !== klPerSample.length) {
    throw new DiffusionError(
      "internal",
      `updateImportance: expected a loss for each of ${times.length} samples, got ${klPerSample.length}`,
    );
  }
  const history = state.history.slice();
  const counts = state.counts.slice();
  times.forEach((t, i) => {
    history[t] = (1 - kHistoryDecay) * klPerSample[i]! ** 2 + kHistoryDecay * state.history[t]!;
    counts[t]! += 1;
  });
  return { history, counts };
}
