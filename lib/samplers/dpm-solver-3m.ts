// DPM-Solver++ 3M: third order with one evaluation a step, from the x0 of the last three levels; with
// eta > 0 its stochastic form. Source: Lu et al. 2022, arXiv:2211.01095, appendix B; stochastic form as
// sample_dpmpp_3m_sde of crowsonkb/k-diffusion.
import { checkChoice, checkOptions } from "../errors.js";
import type { Level } from "../processes/gaussian-levels.js";
import type { AncestralOptions } from "./ancestral.js";
import { pairwisePlan } from "./continuous.js";
import type { Combination } from "./continuous.js";
import { exponentialStep, exponentialUpdate } from "./exponential.js";
import { checkWeights, completed, firstOrder, logSnr, scaled, slot, sum } from "./solver.js";
import type { Solver } from "./solver.js";

export interface DpmSolver3mOptions extends AncestralOptions {
  /**
   * "corrected" (default) is of third order; "widespread" gives the curvature half its weight, as
   * crowsonkb/k-diffusion and diffusers do, and is of second order.
   */
  form?: "corrected" | "widespread";
  /** Share of fresh noise; default 0. */
  eta?: number;
}

/**
 * Slope and half curvature of x0 per step, by divided differences over the last three levels, or the
 * slope alone over two.
 */
function differences([h, h1, h2]: readonly [number, number?, number?]):
  { slope: Combination; curvature?: Combination } | undefined {
  if (h1 === undefined || !Number.isFinite(h1)) return undefined;
  const last = scaled(h / h1, sum({ x0: 1 }, slot(1, -1)));
  if (h2 === undefined || !Number.isFinite(h2)) return { slope: last };
  const earlier = scaled(h / h2, sum(slot(1), slot(2, -1)));
  const bend = scaled(h / (h1 + h2), sum(last, scaled(-1, earlier)));
  return {
    slope: sum(last, scaled(h1 / (h1 + h2), sum(last, scaled(-1, earlier)))),
    curvature: bend,
  };
}

/** To clean data the first order; otherwise as many earlier levels as there are. */
function thirdOrder(
  earlier: readonly (Level | undefined)[],
  from: Level,
  to: Level,
  { eta = 0, noiseScale, form = "corrected" }: DpmSolver3mOptions,
): Combination {
  if (to.c === 0) return completed(to, firstOrder(from, to));
  const step = exponentialStep(from, to, eta, noiseScale);
  const clean: Combination = { x0: step.phi1 };
  const points = [to, from, ...earlier].filter((level) => level !== undefined).map(logSnr);
  const widths = points.slice(1).map((point, i) => points[i]! - point);
  const found = differences(widths as [number, number?, number?]);
  if (!found) return exponentialUpdate(from, to, step, clean);
  const { slope, curvature = {} } = found;
  const bend = form === "corrected" ? step.phi3 : step.phi3 / 2;
  return exponentialUpdate(
    from,
    to,
    step,
    clean,
    scaled(step.phi2, slope),
    scaled(bend, curvature),
  );
}

/** Order 3 when corrected and without noise, else 2; the first two steps are of lower order. */
export function dpmSolver3m(options: DpmSolver3mOptions = {}): Solver {
  checkOptions("dpmSolver3m", options, ["form", "eta", "noiseScale"]);
  const { form = "corrected", eta = 0, noiseScale = 1 } = options;
  checkChoice("dpmSolver3m", "a form", form, ["corrected", "widespread"]);
  checkWeights("dpmSolver3m", { eta, noiseScale });
  return {
    name: eta > 0 ? "dpm-solver-3m-sde" : "dpm-solver-3m",
    order: form === "corrected" && eta === 0 ? 3 : 2,
    evaluations: 1,
    isStochastic: eta > 0,
    source: "Lu et al. 2022, arXiv:2211.01095",
    plan: (levels) =>
      pairwisePlan("dpmSolver3m", levels, 3, (from, to, i) => [
        {
          level: from,
          after: [
            thirdOrder([levels[i - 1], levels[i - 2]], from, to, options),
            { x0: 1 },
            slot(1),
          ],
        },
      ]),
  };
}

/** The stochastic form: eta defaults to 1. */
export const dpmSolver3mSde = (options: DpmSolver3mOptions = {}): Solver =>
  dpmSolver3m({ eta: 1, ...options });
