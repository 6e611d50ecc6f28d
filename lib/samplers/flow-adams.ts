// The probability flow by linear multistep steps in its time (Adams-Bashforth), corrected by functional
// iteration (Adams-Moulton). Source: Hairer, Norsett, Wanner 1993, section III.1; start and numbers of
// slopes as explicit_adams and implicit_adams of rtqichen/torchdiffeq.
import { checkOptions, DiffusionError } from "../errors.js";
import type { Level, LevelLine } from "../processes/gaussian-levels.js";
import { fixedMethods } from "./butcher.js";
import { pairwisePlan } from "./continuous.js";
import type { Combination, Evaluation } from "./continuous.js";
import { timeStep, velocityOf } from "./flow.js";
import { kStart, rungeKuttaStep } from "./flow-ode.js";
import { adamsBashforth } from "./multistep-weights.js";
import { slot, sum } from "./solver.js";
import type { Solver } from "./solver.js";

export interface FlowAdamsOptions {
  /** Slopes that predict, 1 … 11; default 4. */
  slopes?: number;
  /** Evaluations that correct the prediction, with one slope more; default 0. */
  corrections?: number;
}

/** First slot of the slopes at the levels of the list, newest first, after those of the start. */
const kHistory = 5;

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** The slots of a Runge-Kutta step do without history, and history is kept while it runs. */
const withHistory =
  (slopes: number) =>
  ({ level, after }: Evaluation, index: number): Evaluation => {
    const rest = Array.from({ length: kHistory - after.length }, (): Combination => ({}));
    const kept = range(slopes).map((k): Combination => {
      if (index > 0) return slot(kHistory + k);
      return k === 0 ? velocityOf("flowAdams", level) : slot(kHistory + k - 1);
    });
    return { level, after: [...after, ...rest, ...kept] };
  };

/** `history`: this level and those before it, newest first. */
function multistep(history: readonly Level[], to: Level, corrections: number): Evaluation[] {
  const level = history[0]!;
  const offset = (other: Level): number => timeStep("flowAdams", level, other);
  const [places, end] = [history.map(offset), offset(to)];
  const [here, ...earlier] = adamsBashforth(places, 0, end);
  const predicted = sum(
    slot(0),
    velocityOf("flowAdams", level, here),
    ...earlier.map((weight, k) => slot(kHistory + k, weight)),
  );
  const [there, ...known] = adamsBashforth([end, ...places], 0, end);
  const corrected = sum(
    slot(kStart),
    velocityOf("flowAdams", to, there),
    ...known.map((weight, k) => slot(kHistory + k, weight)),
  );
  const correction = { level: to, after: [corrected, slot(kStart)] };
  return [{ level, after: [predicted, slot(0)] }, ...range(corrections).map(() => correction)];
}

/**
 * The order is `slopes`, and one more with corrections. The first two steps are of the 3/8 rule, of
 * fourth order, and need the line of levels.
 */
export function flowAdams(options: FlowAdamsOptions = {}): Solver {
  checkOptions("flowAdams", options, ["slopes", "corrections"]);
  const { slopes = 4, corrections = 0 } = options;
  if (!Number.isInteger(slopes) || slopes < 1 || slopes > 11)
    throw new DiffusionError("option", `flowAdams: expected slopes from 1 to 11, got ${slopes}`);
  if (!Number.isInteger(corrections) || corrections < 0)
    throw new DiffusionError(
      "option",
      `flowAdams: expected a whole number of corrections from 0, got ${corrections}`,
    );
  const step = (levels: readonly Level[], i: number, line?: LevelLine): Evaluation[] => {
    const [from, to] = [levels[i]!, levels[i + 1]!];
    if (i < Math.min(2, slopes - 1)) return rungeKuttaStep(fixedMethods.rk4, from, to, line);
    const history = levels.slice(Math.max(0, i + 1 - slopes), i + 1).reverse();
    return multistep(history, to, corrections);
  };
  return {
    name: "flow-adams",
    order: slopes + Math.min(1, corrections),
    evaluations: 1 + corrections,
    isStochastic: false,
    source: "Hairer et al. 1993, section III.1",
    plan: (levels, line) =>
      pairwisePlan("flowAdams", levels, kHistory + slopes, (_from, _to, i) =>
        step(levels, i, line).map(withHistory(slopes)),
      ),
  };
}
