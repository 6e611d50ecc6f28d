// Churn: noise added before a step, so that the step starts from a higher level and errors are
// forgotten. Source: Karras et al. 2022 (EDM), arXiv:2206.00364, algorithm 2.
import { checkOptions } from "../errors.js";
import type { Level, LevelLine } from "../processes/gaussian-levels.js";
import { pairwisePlan } from "./continuous.js";
import type { Combination, Evaluation } from "./continuous.js";
import { bareState, checkWeights, completed, expectLine, ratioOf } from "./solver.js";
import type { Solver } from "./solver.js";

export interface ChurnOptions {
  /** Noise of the whole run, S_churn; default 0, none. */
  churn?: number;
  /** Levels c / a from which noise is added, S_tmin; default 0. */
  churnMin?: number;
  /** Levels c / a up to which it is added, S_tmax; default infinite. */
  churnMax?: number;
  /** Deviation of the added noise, S_noise; default 1. */
  noiseScale?: number;
}

/** At most as much as doubles the variance. */
const kLargestGain = Math.SQRT2 - 1;

/** How a step begins: the level it starts from, and how the state gets there. */
export interface ChurnedStart {
  level: Level;
  before?: Pick<Required<Evaluation>, "before">;
}

/** Start of one of `steps` steps from a level, in a plan with `slots` slots. */
function churned(
  where: string,
  from: Level,
  { churn = 0, churnMin = 0, churnMax = Infinity, noiseScale = 1 }: ChurnOptions,
  { steps, slots, line }: { steps: number; slots: number; line: LevelLine | undefined },
): ChurnedStart {
  const ratio = ratioOf(from);
  const gain = ratio >= churnMin && ratio <= churnMax ? Math.min(churn / steps, kLargestGain) : 0;
  if (gain === 0 || !Number.isFinite(ratio)) return { level: from };
  const level = expectLine(where, line).ofRatio(ratio * (1 + gain));
  const added = Math.sqrt(ratioOf(level) ** 2 - ratio ** 2);
  const state = completed(level, bareState(from, level.a / from.a), {
    noise: level.a * added * noiseScale,
  });
  const rest: Combination[] = Array.from({ length: slots - 1 }, () => ({}));
  return { level, before: { before: [state, ...rest] } };
}

/** A solver whose steps may begin with churn: `order` evaluations a step, and as many slots. Churn needs the line. */
export function churnSolver(
  { name, order }: Pick<Solver, "name" | "order">,
  options: ChurnOptions,
  step: (start: ChurnedStart, to: Level, line: LevelLine | undefined) => Evaluation[],
): Solver {
  checkOptions(name, options, ["churn", "churnMin", "churnMax", "noiseScale"]);
  const { churn = 0, churnMin = 0, churnMax = Infinity, noiseScale = 1 } = options;
  checkWeights(name, { churn, churnMin, churnMax, noiseScale });
  return {
    name,
    order,
    evaluations: order,
    isStochastic: churn > 0,
    source: "Karras et al. 2022, arXiv:2206.00364",
    plan: (levels, line) => {
      const run = { steps: levels.length - 1, slots: order, line };
      return pairwisePlan(name, levels, order, (from, to) =>
        step(churned(name, from, options, run), to, line),
      );
    },
  };
}
