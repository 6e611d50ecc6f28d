// Which timesteps a training step draws: uniform, or more often those whose loss is large. Source:
// Nichol & Dhariwal 2021, arXiv:2102.09672, section 3.3; constants of openai/guided-diffusion.
import { DiffusionError } from "../errors.js";

export type TimestepSampling = "uniform" | "loss-second-moment";

/** Losses of each timestep that are remembered, and the share of uniform draws. */
const kRemembered = 10;
const kUniformShare = 0.001;

/** The last losses of every timestep, oldest first; plain data, so that a run can be resumed. */
export interface LossHistory {
  /** T rows of the last losses. */
  readonly losses: Float64Array;
  /** Losses seen of each timestep, at most those remembered. */
  readonly counts: Float64Array;
}

export const lossHistory = (timesteps: number): LossHistory => ({
  losses: new Float64Array(timesteps * kRemembered),
  counts: new Float64Array(timesteps),
});

/**
 * arXiv:2102.09672, eq. 18: p_t proportional to sqrt(E[L_t²]), mixed with a little uniform; uniform
 * until every timestep has its losses.
 */
export function lossProbabilities({ losses, counts }: LossHistory): Float64Array {
  const T = counts.length;
  const uniform = new Float64Array(T).fill(1 / T);
  if (counts.some((count) => count < kRemembered)) return uniform;
  const roots = uniform.map((_, t) => {
    const row = losses.subarray(t * kRemembered, (t + 1) * kRemembered);
    return Math.sqrt(row.reduce((sum, loss) => sum + loss * loss, 0) / kRemembered);
  });
  const total = roots.reduce((sum, root) => sum + root, 0);
  if (!(total > 0)) return uniform;
  return roots.map((root) => (root / total) * (1 - kUniformShare) + kUniformShare / T);
}

/** The history after the losses of a batch, in order. */
export function rememberLosses(
  history: LossHistory,
  times: readonly number[],
  values: ArrayLike<number>,
): LossHistory {
  const losses = history.losses.slice();
  const counts = history.counts.slice();
  times.forEach((t, i) => {
    const row = losses.subarray(t * kRemembered, (t + 1) * kRemembered);
    if (counts[t]! < kRemembered) row[counts[t]!++] = values[i]!;
    else {
      row.copyWithin(0, 1);
      row[kRemembered - 1] = values[i]!;
    }
  });
  return { losses, counts };
}

/** A timestep for each uniform draw, and the weight 1 / (T p) that keeps the loss unbiased. */
export function drawGaussianTimes(
  probabilities: Float64Array,
  uniform: ArrayLike<number>,
): { times: number[]; weights: Float32Array } {
  const T = probabilities.length;
  if (T === 0) throw new DiffusionError("internal", "timesteps: expected probabilities, got none");
  let sum = 0;
  const cumulative = probabilities.map((p) => (sum += p));
  const times = Array.from(uniform, (u) => {
    const found = cumulative.findIndex((edge) => u * sum < edge);
    return found < 0 ? T - 1 : found;
  });
  return { times, weights: Float32Array.from(times, (t) => 1 / (T * probabilities[t]!)) };
}
