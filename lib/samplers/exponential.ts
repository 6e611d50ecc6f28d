// Exponential integrators for the diffusion equations in h = log-SNR of the target minus that of the
// start, exact for a constant x0. Source: Lu et al. 2022 (DPM-Solver++), arXiv:2211.01095, eq. 9 and
// appendix B; the share of noise `eta` as in crowsonkb/k-diffusion.
import type { Level } from "../processes/gaussian-levels.js";
import type { Combination } from "./continuous.js";
import { bareState, completed, logSnr } from "./solver.js";

/** Weights of one step. */
export interface ExponentialStep {
  /** Increase of the log-SNR, times 1 + eta. */
  h: number;
  /** Of the bare state. */
  x: number;
  /** Of a constant x0: a' (1 - e^-h). */
  phi1: number;
  /** Of its slope per step: a' (1 - (1 - e^-h) / h). */
  phi2: number;
  /** Of half its curvature per step: a' (1 - 2 / h + 2 (1 - e^-h) / h²), i.e. twice the usual phi3. */
  phi3: number;
  /** Of fresh noise. */
  noise: number;
}

/** (e^-h - 1) / h + 1 and its successor lose digits for small h: their series. */
const slopeShare = (h: number): number =>
  h < 1e-3 ? h / 2 - (h * h) / 6 + h ** 3 / 24 : 1 + Math.expm1(-h) / h;

const curveShare = (h: number): number =>
  h < 1e-2 ? h / 3 - (h * h) / 12 + h ** 3 / 60 - h ** 4 / 360 : 1 - (2 / h) * slopeShare(h);

/** Weights of the step between two levels; `eta` 0 is deterministic, 1 the reverse diffusion. */
export function exponentialStep(from: Level, to: Level, eta = 0, noiseScale = 1): ExponentialStep {
  const rise = logSnr(to) - logSnr(from);
  const h = rise * (1 + eta);
  const fade = Math.exp(-eta * rise);
  return {
    h,
    x: (to.c / from.c) * (eta === 0 ? 1 : fade),
    phi1: -to.a * Math.expm1(-h),
    phi2: to.a * slopeShare(h),
    phi3: to.a * curveShare(h),
    noise: eta === 0 ? 0 : to.c * Math.sqrt(-Math.expm1(-2 * eta * rise)) * noiseScale,
  };
}

/** The step for a combination of clean samples. */
export const exponentialUpdate = (
  from: Level,
  to: Level,
  { x, noise }: ExponentialStep,
  ...clean: readonly Combination[]
): Combination => completed(to, bareState(from, x), ...clean, noise === 0 ? {} : { noise });
