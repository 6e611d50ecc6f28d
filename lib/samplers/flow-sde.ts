// The reverse equation of an interpolant with a chosen diffusion D(t): Euler-Maruyama or Heun steps,
// then a last step without noise. Source: Ma et al. 2024 (SiT), arXiv:2401.08740, section 3.4 and
// appendix; steps and last steps as transport/integrators.py of willisma/SiT.
import { checkChoice, checkOptions, DiffusionError } from "../errors.js";
import type { Level } from "../processes/gaussian-levels.js";
import { diffusionAt } from "../processes/interpolant.js";
import type { DiffusionForm, PathLevel } from "../processes/interpolant.js";
import { pairwisePlan } from "./continuous.js";
import type { Combination, Evaluation } from "./continuous.js";
import { timeStep, velocityOf } from "./flow.js";
import { checkWeights, slot, sum } from "./solver.js";
import type { Solver } from "./solver.js";

const lastSteps = ["mean", "euler", "tweedie", "none"] as const;

export interface FlowSdeOptions {
  /** "euler" (default): Euler-Maruyama; "heun": noise first, then a trapezoid step. */
  method?: "euler" | "heun";
  /** Form of D; default "sigma". */
  diffusion?: DiffusionForm;
  /** Factor of D; default 1. */
  norm?: number;
  /**
   * The step between the last two levels, without noise: "mean" (default) of the equation, "euler" on
   * the flow, "tweedie" the estimate of x0; "none": a step like the others.
   */
  lastStep?: (typeof lastSteps)[number];
}

function expectPath(level: Level): PathLevel {
  if ("t" in level && level.rates) return level as PathLevel;
  throw new DiffusionError(
    "option",
    `flowSde: expected levels of a path, got one without t at time ${level.time}`,
  );
}

/** velocity dt + D score |dt| with score = -eps / c. */
function drift(level: PathLevel, dt: number, diffusion: number): Combination {
  if (diffusion !== 0 && !Number.isFinite(diffusion)) {
    throw new DiffusionError(
      "option",
      `flowSde: expected a finite diffusion, got ${diffusion} at t = ${level.t}; start at a lower t`,
    );
  }
  const score = diffusion === 0 ? 0 : (-Math.abs(dt) * diffusion) / level.c;
  return sum(velocityOf("flowSde", level, dt), { eps: score });
}

type Step = (from: PathLevel, to: PathLevel, dt: number, D: (level: PathLevel) => number) => Evaluation[]; // prettier-ignore

const noiseWeight = (dt: number, diffusion: number): number =>
  Math.sqrt(2 * diffusion * Math.abs(dt));

const steps: Readonly<Record<"euler" | "heun", Step>> = {
  euler: (from, _, dt, D) => [
    {
      level: from,
      after: [sum(slot(0), drift(from, dt, D(from)), { noise: noiseWeight(dt, D(from)) }), {}],
    },
  ],
  heun: (from, to, dt, D) => [
    {
      level: from,
      before: [{ slots: [1], noise: noiseWeight(dt, D(from)) }, {}],
      after: [sum(slot(0), drift(from, dt, D(from))), sum(slot(0), drift(from, dt / 2, D(from)))],
    },
    { level: to, after: [sum(slot(1), drift(to, dt / 2, D(to))), {}] },
  ],
};

/** What each last step does to the state. */
const endings = {
  mean: (from: PathLevel, dt: number, D: number) => sum(slot(0), drift(from, dt, D)),
  euler: (from: PathLevel, dt: number) => sum(slot(0), velocityOf("flowSde", from, dt)),
  tweedie: () => ({ x0: 1 }),
} as const;

/** Order 1 in mean and variance. Levels must stay away from t = 1 for "sbdm", and end near 0. */
export function flowSde(options: FlowSdeOptions = {}): Solver {
  checkOptions("flowSde", options, ["method", "diffusion", "norm", "lastStep"]);
  const { method = "euler", diffusion = "sigma", norm = 1, lastStep = "mean" } = options;
  checkChoice("flowSde", "a method", method, ["euler", "heun"]);
  checkChoice("flowSde", "a lastStep", lastStep, lastSteps);
  checkWeights("flowSde", { norm });
  const D = (level: PathLevel): number => diffusionAt(diffusion, level, norm);
  return {
    name: `flow-sde-${method}`,
    order: 1,
    evaluations: method === "heun" ? 2 : 1,
    isStochastic: true,
    source: "Ma et al. 2024, arXiv:2401.08740",
    plan: (levels) =>
      pairwisePlan("flowSde", levels, 2, (start, end, i) => {
        const [from, to] = [expectPath(start), expectPath(end)];
        const dt = timeStep("flowSde", from, to);
        const isLast = i === levels.length - 2;
        if (isLast && lastStep !== "none")
          return [{ level: from, after: [endings[lastStep](from, dt, D(from)), {}] }];
        return steps[method](from, to, dt, D);
      }),
  };
}
