// DEIS: Adams-Bashforth in log(c / a) for the noise, with the exact weight e^u of the flow. Source:
// Zhang and Chen 2022, arXiv:2204.13902, section 3.3 (tAB in log rho).
import { checkOptions } from "../errors.js";
import type { Level } from "../processes/gaussian-levels.js";
import type { Combination } from "./continuous.js";
import { integral, lagrange, multistepSolver } from "./multistep-weights.js";
import { bareState, completed, firstOrder, ratioOf, slopeOf, slot } from "./solver.js";
import type { Solver } from "./solver.js";

export interface DeisOptions {
  /** Noises in use, 1 … 4; default 3. */
  order?: number;
}

/** Parts of a step; with them e^u is integrated to rounding. */
const kPanels = 16;

/** `history`: this level and those before it, newest first. */
function multistep(history: readonly Level[], to: Level): Combination {
  const from = history[0]!;
  if (from.a === 0 || to.c === 0) return completed(to, firstOrder(from, to));
  const places = history.map((level) => Math.log(ratioOf(level))).filter(Number.isFinite);
  const [here, ...earlier] = places.map((_, j) => {
    const polynomial = lagrange(places, j);
    const weighted = (u: number): number => Math.exp(u) * polynomial(u);
    return to.a * integral(weighted, places[0]!, Math.log(ratioOf(to)), kPanels);
  });
  return completed(
    to,
    bareState(from, to.a / from.a),
    slopeOf(from, here!),
    ...earlier.map((weight, i) => slot(i + 1, weight)),
  );
}

/** The order is that of the option; the first steps are of lower order. */
export function deis(options: DeisOptions = {}): Solver {
  checkOptions("deis", options, ["order"]);
  const { order = 3 } = options;
  return multistepSolver(
    { name: "deis", order, source: "Zhang and Chen 2022, arXiv:2204.13902" },
    4,
    multistep,
  );
}
