// Euler's method in c / a, with optional churn. Source: Karras et al. 2022, arXiv:2206.00364; as
// sample_euler of crowsonkb/k-diffusion. Without churn it is DDIM.
import { checkOptions } from "../errors.js";
import { checkChurn, churned, churnOptionNames } from "./churn.js";
import type { ChurnOptions } from "./churn.js";
import { pairwisePlan } from "./continuous.js";
import { completed, firstOrder } from "./solver.js";
import type { Solver } from "./solver.js";

/** Order 1. Churn needs the line of levels. */
export function euler(options: ChurnOptions = {}): Solver {
  checkOptions("euler", options, churnOptionNames);
  checkChurn("euler", options);
  return {
    name: "euler",
    order: 1,
    evaluations: 1,
    isStochastic: (options.churn ?? 0) > 0,
    source: "Karras et al. 2022, arXiv:2206.00364",
    plan: (levels, line) =>
      pairwisePlan("euler", levels, 1, (from, to) => {
        const run = { steps: levels.length - 1, slots: 1, line };
        const { level, before } = churned("euler", from, options, run);
        return [{ level, ...before, after: [completed(to, firstOrder(level, to))] }];
      }),
  };
}
