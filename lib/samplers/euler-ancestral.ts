// Euler's method with ancestral noise. Source: sample_euler_ancestral of crowsonkb/k-diffusion; with
// eta = 1 the reverse diffusion of Ho et al. 2020, arXiv:2006.11239.
import { ancestralTarget, checkAncestral } from "./ancestral.js";
import type { AncestralOptions } from "./ancestral.js";
import { pairwisePlan } from "./continuous.js";
import { firstOrder } from "./solver.js";
import type { Solver } from "./solver.js";

/** Order 1. */
export function eulerAncestral(options: AncestralOptions = {}): Solver {
  checkAncestral("eulerAncestral", options);
  return {
    name: "euler-ancestral",
    order: 1,
    evaluations: 1,
    isStochastic: options.eta !== 0,
    source: "crowsonkb/k-diffusion; Song et al. 2021, arXiv:2010.02502",
    plan: (levels) =>
      pairwisePlan("eulerAncestral", levels, 1, (from, to) => {
        const { ratio, complete } = ancestralTarget(from, to, options);
        return [{ level: from, after: [complete(firstOrder(from, to, ratio))] }];
      }),
  };
}
