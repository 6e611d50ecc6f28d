// DDIM for any eta on any affine-Gaussian process: Song et al. 2021, arXiv:2010.02502.
import { DiffusionError, checkOptions } from "../errors.js";
import { posteriorDeviation } from "../processes/gaussian-levels.js";
import { pairwisePlan } from "./continuous.js";
import type { Solver } from "./solver.js";

export interface DdimOptions {
  /** Noise: 0 (default) is deterministic, 1 has the variance of ancestral sampling. */
  eta?: number;
}

/**
 * Arxiv:2010.02502, eq. 12 and 16, with a pair: x_s = a_s x0 + b_s y + sqrt(c_s² - sigma²) eps +
 * sigma n, sigma = eta times the posterior's deviation.
 */
export function ddim(options: DdimOptions = {}): Solver {
  checkOptions("ddim", options, ["eta"]);
  const { eta = 0 } = options;
  if (!(eta >= 0)) throw new DiffusionError("option", `ddim: expected eta >= 0, got ${eta}`);
  return {
    name: "ddim",
    order: 1,
    evaluations: 1,
    isStochastic: eta > 0,
    source: "Song et al. 2021, arXiv:2010.02502",
    plan: (levels) =>
      pairwisePlan("ddim", levels, 1, (from, to) => {
        const sigma = eta * posteriorDeviation(from, to);
        const eps = Math.sqrt(Math.max(0, to.c * to.c - sigma * sigma));
        return [{ level: from, after: [{ x0: to.a, pair: to.b, eps, noise: sigma }] }];
      }),
  };
}
