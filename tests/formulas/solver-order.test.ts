// Order of convergence of every solver in the list, measured. Deterministic ones run on a mixture of
// two normal distributions, whose denoiser is not linear, against a fine Runge-Kutta solution; those
// that add noise on a normal distribution, where mean and variance of what they produce are exact.
import { describe, expect, it } from "vitest";
import type { Level } from "../../lib/processes/gaussian-levels.js";
import { pathLevels, pathLine } from "../../lib/processes/interpolant.js";
import { karrasSigmas, sigmaLevel, sigmaLine } from "../../lib/processes/sigmas.js";
import { adaptiveFlow } from "../../lib/samplers/flow-adaptive.js";
import { ratioOf } from "../../lib/samplers/solver.js";
import type { Solver } from "../../lib/samplers/solver.js";
import { samplerNames, samplerOf } from "../../lib/samplers/samplers.js";
import { runPlan } from "./run-plan.js";
import type { Vector } from "./run-plan.js";

const kMean = 0.8;
const kDeviation = 0.3;

/** E[x0 | x] of a fair mixture of N(mean, deviation²) and N(-mean, deviation²), at x / a. */
function mixture(x: number, ratio: number): number {
  const total = kDeviation ** 2 + ratio ** 2;
  return (kDeviation ** 2 * x + ratio ** 2 * kMean * Math.tanh((x * kMean) / total)) / total;
}

const mixtureDenoiser = (x: Vector, level: Level): Vector =>
  x.map((value) => mixture(value / level.a, ratioOf(level)));

/** x / a of the probability flow from one ratio c / a to another, by fine steps in log ratio. */
function exact(x: number, from: number, to: number, steps = 8000): number {
  const h = Math.log(from / to) / steps;
  const slope = (value: number, i: number): number =>
    mixture(value, from * Math.exp(-h * i)) - value;
  for (let i = 0; i < steps; ++i) {
    const k1 = slope(x, i);
    const k2 = slope(x + (h / 2) * k1, i + 0.5);
    const k3 = slope(x + (h / 2) * k2, i + 0.5);
    const k4 = slope(x + h * k3, i + 1);
    x += (h / 6) * (k1 + 2 * k2 + 2 * k3 + k4);
  }
  return x;
}

/** Evenly timed levels of the path that turns a quarter of a circle. */
const levelsOf = (steps: number): Level[] =>
  pathLevels("gvp", { points: steps + 1, from: 0.9, to: 0.1 });

const line = pathLine("gvp");
const kStart = 8;
const kWarmUp = 4;

/** Error of the last state; the first steps may start from the exact states. */
function flowError(solver: Solver, steps: number, isStartExact: boolean): number {
  const levels = levelsOf(steps);
  const [first, last] = [levels[0]!, levels.at(-1)!];
  const states = [kStart];
  for (let i = 1; i < kWarmUp; ++i)
    states.push(exact(states[i - 1]!, ratioOf(levels[i - 1]!), ratioOf(levels[i]!), 200));
  const replace = (i: number): Vector | undefined =>
    isStartExact && i < kWarmUp ? [states[i]! * levels[i]!.a] : undefined;
  const plan = solver.plan(levels, line);
  const [x] = runPlan(plan, [kStart * first.a], mixtureDenoiser, { replace });
  return Math.abs(x! / last.a - kExactEnd);
}

const kExactEnd = exact(kStart, ratioOf(levelsOf(1)[0]!), ratioOf(levelsOf(1)[1]!));

const kNormalMean = 0.3;
const kNormalVariance = 0.25;

/** E[x0 | x] of N(mean, variance); component 0 of a vector is the constant. */
function normalDenoiser(x: Vector, { a, c }: Level): Vector {
  const kept = (a * kNormalVariance) / (a * a * kNormalVariance + c * c);
  return x.map((value, i) => kept * value + (i === 0 ? kNormalMean * (1 - kept * a) : 0));
}

/** Error of mean and variance: components are the factors of 1, of the start and of each noise. */
function momentError(solver: Solver, steps: number): number {
  const levels = levelsOf(steps);
  const [first, last] = [levels[0]!, levels.at(-1)!];
  const variance = ({ a, c }: Level): number => a * a * kNormalVariance + c * c;
  const size = 2 + 4 * steps;
  const unit = (index: number): Vector => Array.from({ length: size }, (_, i) => +(i === index));
  const start = unit(1).map((value) => value * Math.sqrt(variance(first)));
  start[0] = first.a * kNormalMean;
  let next = 2;
  const x = runPlan(solver.plan(levels, line), start, normalDenoiser, { draw: () => unit(next++) });
  const found = x.slice(1).reduce((total, value) => total + value * value, 0);
  return Math.abs(x[0]! - last.a * kNormalMean) + Math.abs(found - variance(last));
}

const errorOf = (solver: Solver, steps: number, isStartExact: boolean): number =>
  solver.isStochastic ? momentError(solver, steps) : flowError(solver, steps, isStartExact);

/** Slope of the error between two numbers of steps, in powers of their ratio. */
function measuredOrder(solver: Solver, isStartExact: boolean): number {
  // the error of third-order methods changes its sign on coarser grids
  const coarse = solver.isStochastic ? 60 : solver.order === 3 ? 640 : 320;
  return Math.log2(
    errorOf(solver, coarse, isStartExact) / errorOf(solver, 2 * coarse, isStartExact),
  );
}

/** What a full order needs: no first-order last step, no deliberate bias, little churn. */
const optionsFor: Readonly<Record<string, object>> = {
  edm: { churn: 4, noiseScale: 1 },
  unipc: { lowerOrderFinal: false },
  "flow-sde": { lastStep: "none" },
};

const variants: [name: string, options: object][] = [
  ["ddim", { eta: 0.7 }],
  ["ddpm", { variance: "fixedSmall" }],
  ["euler", { churn: 4 }],
  ["heun", { churn: 4 }],
  ["dpm-2", { churn: 4 }],
  ["dpm-solver-2m", { solverType: "heun" }],
  ["dpm-solver-2m-sde", { eta: 0.5, solverType: "heun" }],
  ["dpm-solver-3m", { form: "widespread" }],
  ["dpm-solver-sde", { eta: 0 }],
  ["unipc", { order: 1, lowerOrderFinal: false }],
  ["unipc", { order: 2, variant: "bh1", lowerOrderFinal: false }],
  ["unipc", { order: 3, lowerOrderFinal: false }],
  ["lms", { order: 2 }],
  ["lms", { order: 3 }],
  ["deis", { order: 2 }],
  ["deis", { order: 4 }],
  ["pndm", { start: "runge-kutta" }],
  ["flow-ode", { method: "euler" }],
  ["flow-ode", { method: "midpoint" }],
  ["flow-ode", { method: "heun3" }],
  ["flow-ode", { method: "rk4" }],
  ["flow-sde", { method: "heun", diffusion: "linear", lastStep: "none" }],
  ["flow-sde", { diffusion: "constant", norm: 0.5, lastStep: "none" }],
  ["flow-sde", { diffusion: "sbdm", lastStep: "none" }],
];

const defaults = samplerNames
  // exact for a perfect consistency model, which is no denoiser
  .filter((name) => name !== "consistency")
  .map((name): [string, object] => [name, optionsFor[name] ?? {}]);

describe("order of convergence", () => {
  it.each([...defaults, ...variants])("%s %o", (name, options) => {
    const solver = samplerOf(name, options);
    const order = measuredOrder(solver, solver.order > 2);
    expect(order).toBeGreaterThan(solver.order - 0.3);
    expect(order).toBeLessThan(solver.order + 0.6);
  });
});

/** Timesteps round(linspace(0, 999, N + 1)) without 0 of a linear chain, then clean data. */
function chainLevels(steps: number): Level[] {
  let product = 1;
  const bars = Array.from({ length: 1000 }, (_, i) => (product *= 1 - (1e-4 + (i / 999) * 0.0199)));
  const times = Array.from({ length: steps }, (_, i) => Math.round(((steps - i) * 999) / steps));
  const levels = times.map((time) => {
    const bar = bars[time]!;
    return { time, a: Math.sqrt(bar), b: 0, c: Math.sqrt(1 - bar) };
  });
  return [...levels, { time: 0, a: 1, b: 0, c: 0 }];
}

/** One component: the constant belongs to the value itself. */
const scalarDenoiser = ([x]: Vector, level: Level): Vector => normalDenoiser([x!], level);

// Values of independent float64 implementations; the exact flow gives 0.7990546302 and 0.6481182009.
describe("known values on a normal distribution", () => {
  it.each([
    ["dpm-solver-2m", {}, [0.569871876, 0.7026964358, 0.7760258463, 0.7988245129]],
    ["unipc", {}, [0.5726596452, 0.7073924439, 0.7775827428, 0.7972122105]],
    ["unipc", { order: 3 }, [0.5726864412, 0.7086926419, 0.7784847334, 0.7955293626]],
    ["unipc", { variant: "bh1" }, [0.5774247453, 0.7185366664, 0.7882024572, 0.8005639466]],
  ])("%s %o in 5, 10, 20 and 50 steps of a chain", (name, options, values) => {
    const found = [5, 10, 20, 50].map((steps) => {
      const plan = samplerOf(name, options).plan(chainLevels(steps));
      return runPlan(plan, [1], scalarDenoiser)[0]!;
    });
    found.forEach((value, i) => expect(value).toBeCloseTo(values[i]!, 9));
  });

  it.each([
    ["euler", [0.5542795966, 0.5945356376, 0.6156226384]],
    ["heun", [0.7245718581, 0.6673586535, 0.6543922978]],
    ["dpm-solver-2m", [0.7033979604, 0.6698062768, 0.6549542933]],
  ])("%s in 10, 18 and 30 levels of Karras's grid", (name, values) => {
    const found = [10, 18, 30].map((steps) => {
      const levels = karrasSigmas(steps, { min: 0.002, max: 80 }).map(sigmaLevel);
      return runPlan(samplerOf(name).plan(levels, sigmaLine), [56], scalarDenoiser)[0]!;
    });
    found.forEach((value, i) => expect(value).toBeCloseTo(values[i]!, 9));
  });
});

describe("evaluations of a step", () => {
  it.each(samplerNames)("%s", (name) => {
    const solver = samplerOf(name, optionsFor[name]);
    const { steps } = solver.plan(levelsOf(10), line);
    expect(steps).toHaveLength(10);
    expect(steps[5]!.evaluations).toHaveLength(solver.evaluations);
  });
});

describe("adaptive Dormand-Prince", () => {
  /** Errors at the levels asked for, and the evaluations used. */
  async function run(tolerance: number): Promise<{ error: number; evaluations: number }> {
    const levels = levelsOf(7);
    let error = 0;
    let evaluations = 0;
    const velocity = (x: ArrayLike<number>, level: Level): Promise<Float64Array> => {
      const x0 = mixture(x[0]! / level.a, ratioOf(level));
      const { a, c } = level.rates!;
      const eps = (x[0]! - level.a * x0) / level.c;
      return Promise.resolve(Float64Array.of(a * x0 + c * eps));
    };
    const start = Float64Array.of(kStart * levels[0]!.a);
    const options = { atol: tolerance, rtol: tolerance };
    for await (const point of adaptiveFlow(velocity, start, { levels, line }, options)) {
      const truth = exact(kStart, ratioOf(levels[0]!), ratioOf(point.level), 2000);
      error = Math.max(error, Math.abs(point.x[0]! / point.level.a - truth));
      evaluations = point.evaluations;
    }
    return { error, evaluations };
  }

  it("keeps the error near the tolerance, between its steps as well", async () => {
    for (const tolerance of [1e-4, 1e-6, 1e-8])
      expect((await run(tolerance)).error).toBeLessThan(100 * tolerance);
  });

  it("needs evaluations as a method of fifth order does", async () => {
    const [coarse, fine] = [await run(1e-8), await run(1e-12)];
    const growth = fine.evaluations / coarse.evaluations;
    expect(growth).toBeGreaterThan(1e4 ** (1 / 6));
    expect(growth).toBeLessThan(1e4 ** (1 / 4));
  });
});
