// Euler's method in c / a, with optional churn. Source: Karras et al. 2022, arXiv:2206.00364; as
// sample_euler of crowsonkb/k-diffusion. Without churn it is DDIM.
import { churnSolver } from "./churn.js";
import type { ChurnOptions } from "./churn.js";
import { completed, firstOrder } from "./solver.js";
import type { Solver } from "./solver.js";

/** Order 1. Churn needs the line of levels. */
export const euler = (options: ChurnOptions = {}): Solver =>
  churnSolver({ name: "euler", order: 1 }, options, ({ level, before }, to) => [
    { level, ...before, after: [completed(to, firstOrder(level, to))] },
  ]);
