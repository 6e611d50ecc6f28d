// DDIM backwards: from data to the noise that DDIM with eta 0 would turn into it. Sources: Song et
// al. 2021, arXiv:2010.02502, section 4.3; fixed-point refinement: Pan et al. 2023, arXiv:2309.04907.
import { DiffusionError, checkOptions } from "../errors.js";
import type { Level } from "../processes/gaussian-levels.js";
import { levelPairs } from "./continuous.js";
import type { ContinuousSampler, Evaluation } from "./continuous.js";

export interface InversionOptions {
  /**
   * Further network evaluations a step, each at the state found so far, until x is what DDIM would
   * come from; default 0. The graph needs kept eps.
   */
  refinements?: number;
}

/** First guess: x_t = a_t x0 + b_t y + c_t eps with x0 and eps as seen at the cleaner level s. */
function guess(to: Level, from: Level, keep: boolean): Evaluation {
  const kept = keep ? [{ slots: [1] }] : [];
  if (from.c > 0) return { level: from, after: [{ x0: to.a, pair: to.b, eps: to.c }, ...kept] };
  // nothing can be read at clean data: the network reads the scaled sample as if it were noisy
  const scale = to.a / from.a;
  const before = [{ slots: [scale], pair: to.b - scale * from.b }, ...(keep ? [{ slots: [1, 0] }] : [])]; // prettier-ignore
  const start = keep ? [{ slots: [0, 1] }] : [];
  return { level: to, before, after: [{ slots: [1], eps: to.c }, ...start] };
}

/** x_t such that DDIM leads to x_s: (a_t / a_s) (x_s - b_s y - c_s eps) + b_t y + c_t eps, eps at x_t. */
function refine(to: Level, from: Level): Evaluation {
  const scale = to.a / from.a;
  const update = { slots: [0, scale], pair: to.b - scale * from.b, eps: to.c - scale * from.c };
  return { level: to, after: [update, { slots: [0, 1] }] };
}

/**
 * Takes the levels of a sampler (noisiest first) and walks them from the last to the first. Without
 * clean data among them the sample counts as being at the lowest level, as in published code.
 */
export function inversion(options: InversionOptions = {}): ContinuousSampler {
  checkOptions("inversion", options, ["refinements"]);
  const { refinements = 0 } = options;
  if (!Number.isInteger(refinements) || refinements < 0) {
    throw new DiffusionError(
      "option",
      `inversion: expected refinements >= 0, got ${String(refinements)}`,
    );
  }
  return {
    name: "inversion",
    plan: (levels) => ({
      slots: refinements > 0 ? 2 : 1,
      first: levels.at(-1)!,
      steps: levelPairs("inversion", levels)
        .reverse()
        .map(([to, from]) => ({
          t: from.time,
          s: to.time,
          evaluations: [
            guess(to, from, refinements > 0),
            ...Array.from({ length: refinements }, () => refine(to, from)),
          ],
        })),
    }),
  };
}
