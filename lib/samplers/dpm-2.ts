// The midpoint method in c / a with the midpoint at the geometric mean, with optional churn. Source:
// Karras et al. 2022, arXiv:2206.00364; as sample_dpm_2 of crowsonkb/k-diffusion, inspired by
// DPM-Solver-2, Lu et al. 2022, arXiv:2206.00927.
import { checkOptions } from "../errors.js";
import type { Level, LevelLine } from "../processes/gaussian-levels.js";
import { checkChurn, churned, churnOptionNames } from "./churn.js";
import type { ChurnOptions, ChurnedStart } from "./churn.js";
import { pairwisePlan } from "./continuous.js";
import type { Combination, Evaluation } from "./continuous.js";
import { bareState, completed, expectLine, firstOrder, ratioOf, slopeOf, slot } from "./solver.js";
import type { Solver } from "./solver.js";

/** Where a step ends: scale `a`, ratio c / a, and what is added to the bare state there. */
export interface MidpointTarget {
  to: Level;
  ratio: number;
  complete: (...parts: readonly Combination[]) => Combination;
}

/**
 * To the geometric mean by Euler, then the whole step with the slope found there; Euler alone to data
 * or from pure noise.
 */
export function midpointStep(
  where: string,
  { level, before }: ChurnedStart,
  { to, ratio, complete }: MidpointTarget,
  line: LevelLine | undefined,
): Evaluation[] {
  if (ratio === 0 || level.a === 0)
    return [{ level, ...before, after: [complete(firstOrder(level, to, ratio)), {}] }];
  const middle = expectLine(where, line).ofRatio(Math.sqrt(ratioOf(level) * ratio));
  const slope = slopeOf(middle, to.a * (ratio - ratioOf(level)));
  return [
    {
      level,
      ...before,
      after: [completed(middle, firstOrder(level, middle)), bareState(level, to.a / level.a)],
    },
    { level: middle, after: [complete(slot(1), slope), {}] },
  ];
}

/** Order 2. Needs the line of levels. */
export function dpm2(options: ChurnOptions = {}): Solver {
  checkOptions("dpm2", options, churnOptionNames);
  checkChurn("dpm2", options);
  return {
    name: "dpm-2",
    order: 2,
    evaluations: 2,
    isStochastic: (options.churn ?? 0) > 0,
    source: "Karras et al. 2022, arXiv:2206.00364",
    plan: (levels, line) =>
      pairwisePlan("dpm2", levels, 2, (from, to) => {
        const run = { steps: levels.length - 1, slots: 2, line };
        const start = churned("dpm2", from, options, run);
        const complete = (...parts: readonly Combination[]) => completed(to, ...parts);
        return midpointStep("dpm2", start, { to, ratio: ratioOf(to), complete }, line);
      }),
  };
}
