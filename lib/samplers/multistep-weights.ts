// Linear multistep methods on uneven grids: weights, which are integrals of the polynomials through the
// last values, and the solver around them.
import { DiffusionError } from "../errors.js";
import type { Level } from "../processes/gaussian-levels.js";
import { pairwisePlan } from "./continuous.js";
import type { Combination } from "./continuous.js";
import { slopeOf, slot } from "./solver.js";
import type { Solver } from "./solver.js";

/** Gauss-Legendre nodes and weights on [0, 1] and their mirror images, exact for degree up to 11. */
const kNodes = [0.2386191860831969, 0.6612093864662645, 0.932469514203152];
const kWeights = [0.467913934572691, 0.3607615730481386, 0.1713244923791704];

/** Integral of a function; exact for polynomials of degree up to 11 on each of the panels. */
export function integral(f: (x: number) => number, from: number, to: number, panels = 1): number {
  const half = (to - from) / (2 * panels);
  let total = 0;
  for (let panel = 0; panel < panels; ++panel) {
    const middle = from + half * (2 * panel + 1);
    for (const [i, node] of kNodes.entries())
      total += half * kWeights[i]! * (f(middle - half * node) + f(middle + half * node));
  }
  return total;
}

/** The polynomial that is 1 at place `j` and 0 at the others. */
export const lagrange =
  (places: readonly number[], j: number) =>
  (x: number): number =>
    places.reduce(
      (product, other, k) => (k === j ? product : (product * (x - other)) / (places[j]! - other)),
      1,
    );

/** Factors of the values at up to 12 places in the integral of the polynomial through them. */
export const adamsBashforth = (places: readonly number[], from: number, to: number): number[] =>
  places.map((_, j) => integral(lagrange(places, j), from, to));

/**
 * A solver that keeps the slopes of the last `order` levels, 1 … `most`: slot i + 1 has the slope of i + 1 levels before.
 * `step` gets the levels in use, newest first; the first steps have fewer.
 */
export function multistepSolver(
  { name, order, source }: Pick<Solver, "name" | "order" | "source">,
  most: number,
  step: (history: readonly Level[], to: Level) => Combination,
): Solver {
  if (!Number.isInteger(order) || order < 1 || order > most)
    throw new DiffusionError("option", `${name}: expected order from 1 to ${most}, got ${order}`);
  return {
    name,
    order,
    evaluations: 1,
    isStochastic: false,
    source,
    plan: (levels) =>
      pairwisePlan(name, levels, order, (from, to, i) => {
        const history = levels.slice(Math.max(0, i + 1 - order), i + 1).reverse();
        const kept = Array.from({ length: order - 1 }, (_, k) =>
          k === 0 ? slopeOf(from) : slot(k),
        );
        return [{ level: from, after: [step(history, to), ...kept] }];
      }),
  };
}
