// Which times of an interpolant training and sampling use: they stay away from singular ends. Times
// run from data (0) to noise (1). Source: Ma et al. 2024 (SiT), arXiv:2401.08740, appendix; constants of
// willisma/SiT transport.
import type { DiffusionForm, PathName } from "./interpolant.js";

/** What a network of an interpolant predicts. */
export type TransportPrediction = "velocity" | "score" | "eps";

/** Times in use, `low` nearest to data. */
export interface TimeRange {
  low: number;
  high: number;
}

/** How far training and sampling stay away from singular ends, unless told otherwise. */
export function defaultEpsilons(
  path: PathName,
  prediction: TransportPrediction,
): { train: number; sample: number } {
  if (path === "vp") return { train: 1e-5, sample: 1e-3 };
  return prediction === "velocity" ? { train: 0, sample: 0 } : { train: 1e-3, sample: 1e-3 };
}

/**
 * Times of training, and of the flow: VP is singular at data; linear and GVP at both ends unless a
 * velocity is predicted.
 */
export function timeRange(path: PathName, prediction: TransportPrediction, eps: number): TimeRange {
  if (path === "vp") return { low: eps, high: 1 };
  return prediction === "velocity" ? { low: 0, high: 1 } : { low: eps, high: 1 - eps };
}

/**
 * Times of the stochastic steps; the last step, without noise, goes on from `low` to data by
 * `lastStep` (0: there is none).
 */
export function stochasticTimeRange(
  path: PathName,
  prediction: TransportPrediction,
  eps: number,
  { diffusion, lastStep }: { diffusion: DiffusionForm; lastStep: number },
): TimeRange {
  const low = lastStep === 0 ? eps : lastStep;
  const staysAway = path !== "vp" && (prediction !== "velocity" || diffusion === "sbdm");
  return { low, high: staysAway ? 1 - eps : 1 };
}
