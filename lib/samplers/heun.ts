// Heun's method in c / a, with optional churn. Source: Karras et al. 2022 (EDM), arXiv:2206.00364,
// algorithms 1 and 2; as sample_heun of crowsonkb/k-diffusion.
import type { Level } from "../processes/gaussian-levels.js";
import { churnSolver } from "./churn.js";
import type { ChurnOptions, ChurnedStart } from "./churn.js";
import type { Evaluation } from "./continuous.js";
import { bareState, completed, firstOrder, ratioOf, slopeOf, slot, sum } from "./solver.js";
import type { Solver } from "./solver.js";

/** Euler's step, then the mean of the slopes at both ends; Euler alone to data or from pure noise. */
function heunStep({ level, before }: ChurnedStart, to: Level): Evaluation[] {
  const predicted = completed(to, firstOrder(level, to));
  if (to.c === 0 || level.a === 0) return [{ level, ...before, after: [predicted, {}] }];
  const half = (to.a * (ratioOf(to) - ratioOf(level))) / 2;
  const begun = sum(bareState(level, to.a / level.a), slopeOf(level, half));
  return [
    { level, ...before, after: [predicted, begun] },
    { level: to, after: [completed(to, slot(1), slopeOf(to, half)), {}] },
  ];
}

/** Order 2. Churn needs the line of levels. */
export const heun = (options: ChurnOptions = {}): Solver =>
  churnSolver({ name: "heun", order: 2 }, options, heunStep);
