// DPM-Solver++ 2S: second order by a second evaluation halfway in log-SNR, with ancestral noise for
// eta > 0. Source: Lu et al. 2022, arXiv:2211.01095, algorithm 1; ancestral form as
// sample_dpmpp_2s_ancestral of crowsonkb/k-diffusion.
import type { Level, LevelLine } from "../processes/gaussian-levels.js";
import { ancestralTarget, checkAncestral } from "./ancestral.js";
import type { AncestralOptions } from "./ancestral.js";
import { pairwisePlan } from "./continuous.js";
import type { Evaluation } from "./continuous.js";
import { bareState, completed, expectLine, firstOrder, ratioOf, slot } from "./solver.js";
import type { Solver } from "./solver.js";

function singleStep(
  from: Level,
  to: Level,
  options: AncestralOptions,
  line: LevelLine | undefined,
): Evaluation[] {
  const { ratio, complete } = ancestralTarget(from, to, options);
  if (ratio === 0 || from.a === 0)
    return [{ level: from, after: [complete(firstOrder(from, to, ratio)), {}] }];
  const middle = expectLine("dpmSolver2s", line).ofRatio(Math.sqrt(ratioOf(from) * ratio));
  const kept = (ratio * to.a) / from.c;
  return [
    {
      level: from,
      after: [completed(middle, firstOrder(from, middle)), bareState(from, kept)],
    },
    { level: middle, after: [complete(slot(1), { x0: to.a - from.a * kept }), {}] },
  ];
}

/** Order 2. eta defaults to 0; needs the line of levels. */
export function dpmSolver2s(options: AncestralOptions = {}): Solver {
  checkAncestral("dpmSolver2s", options);
  const { eta = 0 } = options;
  return {
    name: eta > 0 ? "dpm-solver-2s-ancestral" : "dpm-solver-2s",
    order: 2,
    evaluations: 2,
    isStochastic: eta > 0,
    source: "Lu et al. 2022, arXiv:2211.01095",
    plan: (levels, line) =>
      pairwisePlan("dpmSolver2s", levels, 2, (from, to) =>
        singleStep(from, to, { ...options, eta }, line),
      ),
  };
}

/** The ancestral form: eta defaults to 1. */
export const dpmSolver2sAncestral = (options: AncestralOptions = {}): Solver =>
  dpmSolver2s({ eta: 1, ...options });
