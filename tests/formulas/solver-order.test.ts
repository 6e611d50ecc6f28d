// Order of convergence of every solver in the list, measured. Deterministic ones run on a mixture of
// two normal distributions, whose denoiser is not linear, against a fine Runge-Kutta solution; those
// that add noise on a normal distribution, where mean and variance of what they produce are exact.
import { describe, expect, it } from "vitest";
import { normalStream } from "../../lib/nn/random.js";
import type { Level } from "../../lib/processes/gaussian-levels.js";
import { pathLevels, pathLine } from "../../lib/processes/interpolant.js";
import { karrasSigmas, sigmaLevel, sigmaLine } from "../../lib/processes/sigmas.js";
import { adaptiveDpmSolver } from "../../lib/samplers/dpm-adaptive.js";
import type { AdaptiveAttempt } from "../../lib/samplers/dpm-adaptive.js";
import { fastOrders } from "../../lib/samplers/dpm-solver-3s.js";
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

/** Error on dy/dt = -3 y² sin 3t, y = 1 / (2 - cos 3t): high orders leave no error on the mixture. */
function smoothError(solver: Solver, steps: number): number {
  const rates = { a: 1, b: 0, c: 0 };
  const ofTime = (time: number): Level => ({ time, a: 1, b: 0, c: 1, rates });
  const truth = ({ time }: Level): number => 1 / (2 - Math.cos(3 * time));
  const levels = Array.from({ length: steps + 1 }, (_, i) => ofTime((5 * i) / steps));
  const slope = ([y]: Vector, { time }: Level): Vector => [-3 * y! * y! * Math.sin(3 * time)];
  const plan = solver.plan(levels, { ofTime, ofRatio: ofTime });
  return Math.abs(runPlan(plan, [1], slope)[0]! - truth(levels.at(-1)!));
}

const errorOf = (solver: Solver, steps: number, isStartExact: boolean): number =>
  solver.isStochastic ? momentError(solver, steps) : flowError(solver, steps, isStartExact);

/** Slope of the error between two numbers of steps, in powers of their ratio. */
function measuredOrder(solver: Solver, isStartExact: boolean): number {
  if (solver.evaluations > 5) {
    const steps = solver.order > 5 ? 40 : 240;
    return Math.log2(smoothError(solver, steps) / smoothError(solver, 2 * steps));
  }
  // the error of third-order methods changes its sign on coarser grids
  const third = solver.isStochastic ? 320 : 640;
  const coarse = solver.order === 3 ? third : solver.isStochastic ? 60 : 320;
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
  ["flow-ode", { method: "adaptive-heun" }],
  ["flow-ode", { method: "fehlberg2" }],
  ["flow-ode", { method: "bosh3" }],
  ["flow-ode", { method: "dopri5" }],
  ["flow-ode", { method: "dopri8" }],
  ["flow-adams", { slopes: 1 }],
  ["flow-adams", { slopes: 2 }],
  ["flow-adams", { slopes: 3, corrections: 1 }],
  ["flow-adams", { slopes: 4, corrections: 4 }],
  ["dpm-solver-3s", { eta: 1 }],
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
    // of order 8 the leading error is so small that the next ones show
    expect(order).toBeLessThan(solver.order + (solver.order > 5 ? 2 : 0.6));
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

/** x0 of the mixture and the noise that goes with it. */
function mixtureNoise(x: number, level: Level): { x0: number; eps: number } {
  const x0 = mixture(x / level.a, ratioOf(level));
  return { x0, eps: (x - level.a * x0) / level.c };
}

describe.each([
  ["adaptive-heun", 2, [1e-5, 1e-7]],
  ["fehlberg2", 2, [1e-6, 1e-8]],
  ["bosh3", 3, [1e-4, 1e-7]],
  ["dopri5", 5, [1e-8, 1e-12]],
  ["dopri8", 8, [1e-6, 1e-12]],
] as const)("adaptive %s", (method, order, [coarse, fine]) => {
  /** Errors at the levels asked for, of which there are `points`, and the evaluations used. */
  async function run(tolerance: number, points: number) {
    const levels = levelsOf(points - 1);
    let error = 0;
    let evaluations = 0;
    const velocity = (x: ArrayLike<number>, level: Level): Promise<Float64Array> => {
      const { x0, eps } = mixtureNoise(x[0]!, level);
      return Promise.resolve(Float64Array.of(level.rates!.a * x0 + level.rates!.c * eps));
    };
    const start = Float64Array.of(kStart * levels[0]!.a);
    const options = { method, atol: tolerance, rtol: tolerance };
    for await (const point of adaptiveFlow(velocity, start, { levels, line }, options)) {
      const truth = exact(kStart, ratioOf(levels[0]!), ratioOf(point.level), 2000);
      error = Math.max(error, Math.abs(point.x[0]! / point.level.a - truth));
      evaluations = point.evaluations;
    }
    return { error, evaluations };
  }

  it("keeps the error near the tolerance", async () => {
    // only that of dopri5 is as exact between the ends of steps; fehlberg2 underestimates
    const points = method === "dopri5" ? 8 : 2;
    const factor = method === "fehlberg2" ? 300 : 100;
    for (const tolerance of [coarse, fine])
      expect((await run(tolerance, points)).error).toBeLessThan(factor * tolerance);
  });

  it("needs evaluations as a method of its order does", async () => {
    const growth = (await run(fine, 2)).evaluations / (await run(coarse, 2)).evaluations;
    const highest = order > 5 ? order + 2 : order + 1;
    expect(growth).toBeGreaterThan((coarse / fine) ** (1 / highest));
    expect(growth).toBeLessThan((coarse / fine) ** (1 / (order - 1)));
  });
});

describe("adaptive DPM-Solver", () => {
  const [from, to] = [levelsOf(1)[0]!, levelsOf(1)[1]!];

  async function run(tolerance: number, order: 2 | 3) {
    let last: AdaptiveAttempt | undefined;
    let refused = 0;
    const noise = (x: ArrayLike<number>, level: Level): Promise<Float64Array> =>
      Promise.resolve(Float64Array.of(mixtureNoise(x[0]!, level).eps));
    const options = { order, atol: tolerance, rtol: tolerance, firstStep: 1 };
    const start = Float64Array.of(kStart * from.a);
    for await (const attempt of adaptiveDpmSolver(noise, start, { from, to, line }, options)) {
      last = attempt;
      refused += Number(!attempt.isTaken);
    }
    return { ...last!, refused, miss: Math.abs(last!.x[0]! / to.a - kExactEnd) };
  }

  it.each([2, 3] as const)("of order %i keeps the error near the tolerance", async (order) => {
    const [coarse, fine] = [await run(1e-3, order), await run(1e-6, order)];
    expect(coarse.level).toBe(to);
    expect(coarse.miss).toBeLessThan(0.1);
    expect(fine.miss).toBeLessThan(1e-4);
    expect(fine.refused).toBeGreaterThan(0);
    const growth = fine.evaluations / coarse.evaluations;
    expect(growth).toBeGreaterThan(1e3 ** (1 / (order + 1)));
    expect(growth).toBeLessThan(1e3 ** (1 / (order - 1)));
  });

  it("keeps mean and variance when it adds noise", async () => {
    const count = 20000;
    const draw = (name: string): Float64Array => Float64Array.from(normalStream(1, name, count));
    const deviation = Math.sqrt(from.a ** 2 * kNormalVariance + from.c ** 2);
    const start = draw("start").map((value) => deviation * value + from.a * kNormalMean);
    const noise = (x: ArrayLike<number>, level: Level): Promise<Float64Array> => {
      const kept = (level.a * kNormalVariance) / (level.a ** 2 * kNormalVariance + level.c ** 2);
      return Promise.resolve(
        Float64Array.from(x, (value) => {
          const x0 = kept * value + kNormalMean * (1 - kept * level.a);
          return (value - level.a * x0) / level.c;
        }),
      );
    };
    const options = { eta: 1, draw: (taken: number) => draw(`step.${taken}`) };
    let x: ArrayLike<number> = start;
    for await (const attempt of adaptiveDpmSolver(noise, start, { from, to, line }, options))
      x = attempt.x;
    const values = Array.from(x);
    const mean = values.reduce((all, value) => all + value, 0) / count;
    const variance = values.reduce((all, value) => all + (value - mean) ** 2, 0) / count;
    expect(mean).toBeCloseTo(to.a * kNormalMean, 1);
    expect(variance / (to.a ** 2 * kNormalVariance + to.c ** 2)).toBeCloseTo(1, 1);
  });

  it("says what it cannot do", async () => {
    const still = (x: ArrayLike<number>): Promise<Float64Array> =>
      Promise.resolve(Float64Array.from(x));
    const first = (options: object, end = to): Promise<unknown> =>
      adaptiveDpmSolver(still, Float64Array.of(1), { from, to: end, line }, options).next();
    await expect(first({ eta: 1 })).rejects.toThrow("expected draw, as eta adds noise");
    await expect(first({ order: 4 })).rejects.toThrow("expected order 2 or 3, got 4");
    await expect(first({ steps: 4 })).rejects.toThrow("steps");
    await expect(first({}, { ...to, c: 0 })).rejects.toThrow("levels with noise and signal");
    await expect(first({ maxEvaluations: 1 })).rejects.toThrow("within 1 evaluations");
  });
});

it("spends just the evaluations of a fast plan", () => {
  for (const evaluations of [1, 2, 3, 7, 9, 14]) {
    const orders = fastOrders(evaluations);
    const { steps } = samplerOf("dpm-solver-3s", { orders }).plan(levelsOf(orders.length), line);
    expect(steps.flatMap((step) => step.evaluations)).toHaveLength(evaluations);
  }
});
