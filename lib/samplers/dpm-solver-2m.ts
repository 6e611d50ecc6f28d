// DPM-Solver++ 2M: second order with one evaluation a step, from the x0 of the last two levels; with
// eta > 0 its stochastic form. Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2 and appendix B;
// stochastic form for any eta as sample_dpmpp_2m_sde of crowsonkb/k-diffusion.
import { checkChoice, checkOptions } from "../errors.js";
import type { Level } from "../processes/gaussian-levels.js";
import type { AncestralOptions } from "./ancestral.js";
import { pairwisePlan } from "./continuous.js";
import type { Combination } from "./continuous.js";
import { exponentialStep, exponentialUpdate } from "./exponential.js";
import { checkWeights, completed, firstOrder, logSnr, scaled, slot, sum } from "./solver.js";
import type { Solver } from "./solver.js";

export interface DpmSolver2mOptions extends AncestralOptions {
  /** Which second-order weights; default "midpoint". */
  solverType?: "midpoint" | "heun";
  /** Share of fresh noise; default 0. */
  eta?: number;
}

/**
 * Second-order weights from x0 here and at the level before (slot 1), first order without it and to
 * clean data.
 */
function secondOrder(
  before: Level | undefined,
  from: Level,
  to: Level,
  { eta = 0, noiseScale, solverType = "midpoint" }: DpmSolver2mOptions,
): Combination {
  if (to.c === 0) return completed(to, firstOrder(from, to));
  const step = exponentialStep(from, to, eta, noiseScale);
  const clean: Combination = { x0: step.phi1 };
  if (!before) return exponentialUpdate(from, to, step, clean);
  const slope = (logSnr(to) - logSnr(from)) / (logSnr(from) - logSnr(before));
  const weight = slope * (solverType === "heun" ? step.phi2 : step.phi1 / 2);
  const change = sum({ x0: 1 }, slot(1, -1));
  return exponentialUpdate(from, to, step, clean, scaled(weight, change));
}

/** Order 2, with eta > 0 in mean and variance. */
export function dpmSolver2m(options: DpmSolver2mOptions = {}): Solver {
  checkOptions("dpmSolver2m", options, ["solverType", "eta", "noiseScale"]);
  const { solverType = "midpoint", eta = 0, noiseScale = 1 } = options;
  checkChoice("dpmSolver2m", "a solverType", solverType, ["midpoint", "heun"]);
  checkWeights("dpmSolver2m", { eta, noiseScale });
  return {
    name: eta > 0 ? "dpm-solver-2m-sde" : "dpm-solver-2m",
    order: 2,
    evaluations: 1,
    isStochastic: eta > 0,
    source: "Lu et al. 2022, arXiv:2211.01095",
    plan: (levels) =>
      pairwisePlan("dpmSolver2m", levels, 2, (from, to, i) => [
        {
          level: from,
          after: [secondOrder(levels[i - 1], from, to, options), { x0: 1 }],
        },
      ]),
  };
}

/** The stochastic form: eta defaults to 1. */
export const dpmSolver2mSde = (options: DpmSolver2mOptions = {}): Solver =>
  dpmSolver2m({ eta: 1, ...options });
