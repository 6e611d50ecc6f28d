// DPM-Solver++ SDE: two evaluations a step with fresh noise after each. Source: sample_dpmpp_sde of
// crowsonkb/k-diffusion, on Lu et al. 2022, arXiv:2211.01095.
import { checkOptions, DiffusionError } from "../errors.js";
import type { Level, LevelLine } from "../processes/gaussian-levels.js";
import { ancestralTarget } from "./ancestral.js";
import type { AncestralOptions } from "./ancestral.js";
import { pairwisePlan } from "./continuous.js";
import type { Evaluation } from "./continuous.js";
import { bareState, checkWeights, completed, expectLine, firstOrder, ratioOf, slot, sum } from "./solver.js"; // prettier-ignore
import type { Solver } from "./solver.js";

export interface DpmSolverSdeOptions extends AncestralOptions {
  /** Place of the second evaluation in log-SNR, above 0 up to 1; default 1/2. */
  r?: number;
}

function sdeStep(
  from: Level,
  to: Level,
  { r = 0.5, ...options }: DpmSolverSdeOptions,
  line: LevelLine | undefined,
): Evaluation[] {
  if (to.c === 0 || from.a === 0)
    return [{ level: from, after: [completed(to, firstOrder(from, to)), {}] }];
  const ratio = ratioOf(from) ** (1 - r) * ratioOf(to) ** r;
  const middle = expectLine("dpmSolverSde", line).ofRatio(ratio);
  const halfway = ancestralTarget(from, middle, options);
  const target = ancestralTarget(from, to, options);
  const second = 1 / (2 * r);
  const kept = (target.ratio * to.a) / from.c;
  const clean = to.a - from.a * kept;
  const begun = sum(bareState(from, kept), { x0: (1 - second) * clean });
  return [
    { level: from, after: [halfway.complete(firstOrder(from, middle, halfway.ratio)), begun] },
    { level: middle, after: [target.complete(slot(1), { x0: second * clean }), {}] },
  ];
}

/** Order 1 in mean and variance, 2 with eta = 0. eta defaults to 1; needs the line of levels. */
export function dpmSolverSde(options: DpmSolverSdeOptions = {}): Solver {
  checkOptions("dpmSolverSde", options, ["eta", "noiseScale", "r"]);
  const { eta = 1, noiseScale = 1, r = 0.5 } = options;
  checkWeights("dpmSolverSde", { eta, noiseScale });
  if (!(r > 0 && r <= 1))
    throw new DiffusionError("option", `dpmSolverSde: expected r above 0 up to 1, got ${r}`);
  return {
    name: "dpm-solver-sde",
    order: eta === 0 ? 2 : 1,
    evaluations: 2,
    isStochastic: eta > 0,
    source: "crowsonkb/k-diffusion; Lu et al. 2022, arXiv:2211.01095",
    plan: (levels, line) =>
      pairwisePlan("dpmSolverSde", levels, 2, (from, to) => sdeStep(from, to, options, line)),
  };
}
