// The midpoint method in c / a with the midpoint at the geometric mean, with optional churn. Source:
// Karras et al. 2022, arXiv:2206.00364; as sample_dpm_2 of crowsonkb/k-diffusion, inspired by
// DPM-Solver-2, Lu et al. 2022, arXiv:2206.00927.
import type { Level, LevelLine } from "../processes/gaussian-levels.js";
import { churnSolver } from "./churn.js";
import type { ChurnOptions, ChurnedStart } from "./churn.js";
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
export const dpm2 = (options: ChurnOptions = {}): Solver =>
  churnSolver({ name: "dpm-2", order: 2 }, options, (start, to, line) => {
    const complete = (...parts: readonly Combination[]) => completed(to, ...parts);
    return midpointStep("dpm-2", start, { to, ratio: ratioOf(to), complete }, line);
  });
