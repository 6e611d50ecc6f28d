// What solvers on interpolants share: the velocity of a level and the signed step in its time. For
// levels with rates, such as those of a path in processes/interpolant.ts.
import { DiffusionError } from "../errors.js";
import type { Level, Rates } from "../processes/gaussian-levels.js";
import type { Combination } from "./continuous.js";

/** Rates of a level, or "option". */
export function ratesOf(where: string, level: Level): Rates & { time: number } {
  const { rates, time } = level;
  if (rates) return { time, ...rates };
  throw new DiffusionError(
    "option",
    `${where}: expected levels with rates, got none at time ${time}; use those of a path`,
  );
}

/** dx/dt at a level from the network's view: a' x0 + b' y + c' eps. */
export function velocityOf(where: string, level: Level, weight = 1): Combination {
  const { a, b, c } = ratesOf(where, level);
  return { x0: weight * a, eps: weight * c, ...(b !== 0 && { pair: weight * b }) };
}

/** Signed step in the time that the rates refer to. */
export const timeStep = (where: string, from: Level, to: Level): number =>
  ratesOf(where, to).time - ratesOf(where, from).time;
