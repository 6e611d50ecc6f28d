// The midpoint method of dpm-2.ts with ancestral noise. Source: sample_dpm_2_ancestral of
// crowsonkb/k-diffusion.
import { ancestralTarget, checkAncestral } from "./ancestral.js";
import type { AncestralOptions } from "./ancestral.js";
import { pairwisePlan } from "./continuous.js";
import { midpointStep } from "./dpm-2.js";
import type { Solver } from "./solver.js";

/** Order 2 in mean and variance. Needs the line of levels. */
export function dpm2Ancestral(options: AncestralOptions = {}): Solver {
  checkAncestral("dpm2Ancestral", options);
  return {
    name: "dpm-2-ancestral",
    order: 2,
    evaluations: 2,
    isStochastic: options.eta !== 0,
    source: "crowsonkb/k-diffusion; Karras et al. 2022, arXiv:2206.00364",
    plan: (levels, line) =>
      pairwisePlan("dpm2Ancestral", levels, 2, (from, to) =>
        midpointStep(
          "dpm2Ancestral",
          { level: from },
          { to, ...ancestralTarget(from, to, options) },
          line,
        ),
      ),
  };
}
