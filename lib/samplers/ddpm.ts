// Ancestral sampling on any affine-Gaussian chain: Ho et al. 2020, arXiv:2006.11239, algorithm 2,
// with the variances of Nichol & Dhariwal 2021, arXiv:2102.09672.
import { DiffusionError, checkOptions } from "../errors.js";
import { posteriorDeviation } from "../processes/gaussian-levels.js";
import type { Level, Parameterisation } from "../processes/gaussian-levels.js";
import type { VarianceName } from "../processes/gaussian-loss.js";
import { levelPairs, pairwisePlan } from "./continuous.js";
import type { Combination } from "./continuous.js";
import type { Solver } from "./solver.js";

export interface DdpmOptions {
  /**
   * Variance of a step: of the posterior ("fixedSmall"), of the forward step ("fixedLarge",
   * default), or the network's ("learned", "learnedRange"; the graph needs the same option).
   */
  variance?: VarianceName;
  /** "x0": mean of the posterior given the predicted x0 (default); "output": the output itself. */
  mean?: "x0" | "output";
}

/** Factor of x_t in the posterior's mean: A c_s² / c_t². */
function keptShare(from: Level, to: Level): number {
  const carried = (from.carry ?? from.a) / (to.carry ?? to.a);
  return (carried * to.c * to.c) / (from.c * from.c);
}

/** Variance of one forward step: c_t² - A² c_s². */
function forwardVariance(from: Level, to: Level): number {
  const carried = (from.carry ?? from.a) / (to.carry ?? to.a);
  return from.c * from.c - (carried * to.c) ** 2;
}

/**
 * Mean of q(x_s | x_t, x0, y) for any pair of levels: k x_t + (a_s - k a_t) x0 + (b_s - k b_t) y,
 * k = A c_s² / c_t². For DDPM: arXiv:2006.11239, eq. 7.
 */
function meanOf(from: Level, to: Level): Combination {
  const k = keptShare(from, to);
  return { slots: [k], x0: to.a - k * from.a, pair: to.b - k * from.b };
}

const variances: readonly VarianceName[] = ["fixedSmall", "fixedLarge", "learned", "learnedRange"];

/** The step to clean data adds no noise; its small variance counts as that of the step before. */
export function ddpm(options: DdpmOptions = {}): Solver {
  checkOptions("ddpm", options, ["variance", "mean"]);
  const { variance = "fixedLarge", mean = "x0" } = options;
  if (!variances.includes(variance)) {
    throw new DiffusionError(
      "option",
      `ddpm: expected variance of ${variances.join(", ")}, got ${variance}`,
    );
  }
  const isLearned = variance === "learned" || variance === "learnedRange";
  return {
    name: "ddpm",
    order: 1,
    evaluations: 1,
    isStochastic: true,
    source: "Ho et al. 2020, arXiv:2006.11239",
    plan: (levels) => {
      const small = levelPairs("ddpm", levels).map(
        ([from, to]) => posteriorDeviation(from, to) ** 2,
      );
      return pairwisePlan("ddpm", levels, 1, (from, to, i) => {
        const isLast = to.c === 0;
        const floor = isLast ? (small[i - 1] ?? forwardVariance(from, to)) : small[i]!;
        const large = forwardVariance(from, to);
        const fixed = variance === "fixedLarge" ? (isLast ? floor : large) : small[i]!;
        const update: Combination = {
          ...(mean === "output" ? { output: 1 } : meanOf(from, to)),
          noise: isLearned || isLast ? 0 : Math.sqrt(fixed),
          spread: isLearned && !isLast ? 1 : 0,
          gradient: isLearned ? 0 : fixed,
          gradientSpread: Number(isLearned),
        };
        return [{ level: from, after: [update], logVariance: [Math.log(floor), Math.log(large)] }];
      });
    },
  };
}

/**
 * Reading of a network that predicts the mean of the next state of this list of levels: x0 = (output
 * - k x - (b_s - k b_t) y) / (a_s - k a_t).
 */
export function previousMean(levels: readonly Level[]): Parameterisation {
  const next = new Map(levelPairs("previousMean", levels));
  return (level) => {
    const to = next.get(level);
    if (!to) {
      throw new DiffusionError(
        "option",
        `previousMean: expected a level of its list, got one at time ${level.time}`,
      );
    }
    const { slots: [k] = [0], x0 = 1, pair = 0 } = meanOf(level, to);
    const mix = [-k! / x0, -pair / x0, 1 / x0] as const;
    const { a, b, c } = level;
    return {
      inputScale: 1,
      x0: mix,
      eps: [(1 - a * mix[0]) / c, (-b - a * mix[1]) / c, (-a * mix[2]) / c],
    };
  };
}
