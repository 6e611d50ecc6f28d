// Linear multistep (Adams-Bashforth) in c / a on the grid as it is. Source: sample_lms of
// crowsonkb/k-diffusion.
import { checkOptions } from "../errors.js";
import type { Level } from "../processes/gaussian-levels.js";
import type { Combination } from "./continuous.js";
import { adamsBashforth, multistepSolver } from "./multistep-weights.js";
import { bareState, completed, firstOrder, ratioOf, slopeOf, slot } from "./solver.js";
import type { Solver } from "./solver.js";

export interface LmsOptions {
  /** Slopes in use, 1 … 8; default 4. */
  order?: number;
}

/** `history`: this level and those before it, newest first. */
function multistep(history: readonly Level[], to: Level): Combination {
  const from = history[0]!;
  if (from.a === 0) return completed(to, firstOrder(from, to));
  const ratios = history.map(ratioOf).filter(Number.isFinite);
  const [here, ...earlier] = adamsBashforth(ratios, ratios[0]!, ratioOf(to));
  return completed(
    to,
    bareState(from, to.a / from.a),
    slopeOf(from, to.a * here!),
    ...earlier.map((weight, i) => slot(i + 1, to.a * weight)),
  );
}

/** The order is that of the option; the first steps are of lower order. */
export function lms(options: LmsOptions = {}): Solver {
  checkOptions("lms", options, ["order"]);
  const { order = 4 } = options;
  return multistepSolver({ name: "lms", order, source: "crowsonkb/k-diffusion" }, 8, multistep);
}
