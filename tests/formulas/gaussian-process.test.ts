// Numbers of Gaussian chains, levels and weights: published values, and identities that hold exactly.
import { describe, expect, it } from "vitest";
import { chainLevel, chainLevels, chainOf, gaussianChain, respacedChain } from "../../lib/processes/gaussian.js"; // prettier-ignore
import {
  edmPreconditioning,
  posteriorDeviation,
  predictions,
  scaledInput,
  startDeviation,
  unitVariance,
  type Level,
  type Mix,
  type Parameterisation,
} from "../../lib/processes/gaussian-levels.js";
import {
  betaSchedules,
  betasOfAlphaBar,
  cosineBetas,
  exponentialAlphaBar,
  linearBetas,
  linearBetas32,
  logisticBetas,
  shiftedCosineAlphaBar,
  sigmoidAlphaBar,
  zeroTerminalSnr,
} from "../../lib/processes/gaussian-schedules.js";
import { outputWeight, snr } from "../../lib/processes/gaussian-weighting.js";
import { ddim } from "../../lib/samplers/ddim.js";
import { ddpm, previousMean } from "../../lib/samplers/ddpm.js";
import type { Combination, ContinuousSampler } from "../../lib/samplers/continuous.js";

const linear = gaussianChain(linearBetas({ timesteps: 1000 }));

/** Levels of ResShift, arXiv:2307.12348: x_t = (1 - eta) x0 + eta y + kappa sqrt(eta) n. */
const residualShift = (etas: readonly number[], kappa: number): Level[] => [
  ...etas.map((eta, i) => ({ time: i, a: 1 - eta, b: eta, c: kappa * Math.sqrt(eta), carry: 1 })).reverse(), // prettier-ignore
  { time: -1, a: 1, b: 0, c: 0, carry: 1 },
];

const processes: Record<string, Level[]> = {
  ddpm: chainLevels(linear).filter((_, i) => i % 100 === 0 || i === 1000),
  "formulation 2": chainLevels(linear, { formulation: 2 }).filter((_, i) => i % 250 === 0),
  "residual shift": residualShift([0.01, 0.2705, 0.5797, 0.9801], 2),
  exploding: [80, 20, 5, 1, 0.1, 0].map((c) => ({ time: c, a: 1, b: 0, c })),
  flow: [1, 0.75, 0.5, 0.25, 0].map((t) => ({ time: t, a: 1 - t, b: 0, c: t })),
};

describe("chains", () => {
  it.each([
    [0, 1e-4, 0.9999, 0, 1, 0],
    [1, 1.199199199e-4, 0.9997800921, 5.453187661e-5, 0.5452914995, 0.454708499],
    [2, 1.398398398e-4, 0.999640283, 8.548911523e-5, 0.3887068359, 0.6112931603],
    [500, 0.01005995996, 0.07779665837, 0.01005133578, 0.003058057076, 0.9941043508],
    [999, 0.02, 4.035829765e-5, 0.01999998353, 1.283514872e-4, 0.9899486783],
  ])("linear schedule at %i", (t, beta, bar, variance, ofX0, ofXt) => {
    const close = (actual: number, expected: number): void =>
      expect(Math.abs(actual - expected)).toBeLessThanOrEqual(1e-9 * Math.abs(expected));
    close(linear.betas[t]!, beta);
    close(linear.alphaBars[t]!, bar);
    close(linear.posteriorVariance[t]!, variance);
    close(linear.posteriorMeanX0[t]!, ofX0);
    close(linear.posteriorMeanXt[t]!, ofXt);
  });

  it("clips the first log variance to the second", () => {
    expect(linear.posteriorLogVariance[0]).toBeCloseTo(-9.816725135, 8);
    expect(linear.posteriorLogVariance[1]).toBe(linear.posteriorLogVariance[0]);
    expect(linear.alphaBarsNext[999]).toBe(0);
    expect(linear.alphaBarsPrev[0]).toBe(1);
  });

  it("respacing to all timesteps changes nothing, and to some keeps their alphaBars", () => {
    const all = respacedChain(linear, linear.times);
    all.betas.forEach((beta, t) => expect(beta).toBeCloseTo(linear.betas[t]!, 12));
    const some = respacedChain(linear, [900, 3, 40, 40]);
    expect(some.times).toEqual([3, 40, 900]);
    some.alphaBars.forEach((bar, i) =>
      expect(bar).toBeCloseTo(linear.alphaBars[some.times[i]!]!, 14),
    );
  });

  it("are built from configurations", () => {
    expect(chainOf({ timesteps: 1000 })).toEqual(linear);
    const rescaled = chainOf({ timesteps: 50, schedule: "cosine", rescaleTimes: true });
    expect(rescaled.times[49]).toBe(980);
    expect(chainOf({ timesteps: 50, zeroTerminal: true }).alphaBars[49]).toBe(0);
    expect(() => chainOf({ timesteps: 50, schedule: "cosine", last: 0.1 })).toThrow("last");
    expect(() => chainOf({ timesteps: 50, schedule: "cosin" as "cosine" })).toThrow("linear, ");
    expect(() => chainOf({ timesteps: 50, shedule: "cosine" } as object as { timesteps: 50 })).toThrow("schedule"); // prettier-ignore
  });

  it("says what is wrong", () => {
    expect(() => gaussianChain([0.1, 1.2])).toThrow("betas in (0, 1], got 1.2 at 1");
    expect(() => gaussianChain([])).toThrow("got none");
    expect(() => respacedChain(linear, [1000])).toThrow("from 0 to 999, got 1000");
    expect(() => chainLevels(linear, { count: 0 })).toThrow("count from 1 to 1000");
    expect(() => linearBetas({ timesteps: 0 })).toThrow("timesteps >= 1");
  });
});

describe("schedules", () => {
  it("cosine has the published values", () => {
    const chain = gaussianChain(cosineBetas(1000));
    expect(chain.betas[0]).toBeCloseTo(4.128422482e-5, 13);
    expect(chain.alphaBars[500]).toBeCloseTo(0.4922851724, 9);
    expect(chain.betas[998]).toBeCloseTo(0.7499993929, 9);
    expect(chain.betas[999]).toBe(0.999);
    expect(chain.alphaBars[999]).toBeCloseTo(2.428766907e-9, 17);
    const long = gaussianChain(cosineBetas(4000));
    expect(long.betas[0]).toBeCloseTo(9.865818814e-6, 14);
    expect(long.alphaBars[2000]).toBeCloseTo(0.4934539797, 9);
  });

  it("float32 linspace differs from float64 by its roundings only", () => {
    const [f32, f64] = [linearBetas32({ timesteps: 1000 }), linearBetas({ timesteps: 1000 })];
    expect(f32).not.toEqual(f64);
    f32.forEach((beta, i) => {
      expect(Math.fround(beta)).toBe(beta);
      expect(Math.abs(beta - f64[i]!)).toBeLessThan(4e-9);
    });
    expect(f32.at(-1)).toBe(Math.fround(0.02));
  });

  it("zero terminal SNR ends in noise and keeps the first level", () => {
    const chain = gaussianChain(zeroTerminalSnr([...linear.betas]));
    expect(chain.alphaBars[999]).toBe(0);
    expect(chain.alphaBars[0]).toBeCloseTo(linear.alphaBars[0]!, 12);
    const last = chainLevel(chain, 999);
    expect(() => predictions.eps(last)).toThrow("predict v or x0");
    expect(predictions.v(last).x0).toEqual([0, -0, -1]);
  });

  it("a shift moves the cosine's log signal-to-noise ratio by 2 ln(shift)", () => {
    const logSnr = (bar: number): number => Math.log(bar / (1 - bar));
    for (const u of [0.1, 0.5, 0.9]) {
      const plain = shiftedCosineAlphaBar(1)(u);
      expect(plain).toBeCloseTo(Math.cos((Math.PI * u) / 2) ** 2, 12);
      const moved = logSnr(shiftedCosineAlphaBar(0.25)(u)) - logSnr(plain);
      expect(moved).toBeCloseTo(2 * Math.log(0.25), 9);
    }
    const chain = chainOf({ timesteps: 100, schedule: "shifted-cosine", shift: 0.25 });
    expect(chain.alphaBars[49]).toBeCloseTo(shiftedCosineAlphaBar(0.25)(0.5), 12);
    const without = () => chainOf({ timesteps: 100, schedule: "shifted-cosine" });
    expect(without).toThrow("expected shift above 0, got undefined");
    expect(() => chainOf({ timesteps: 100, shift: 0.25 })).toThrow(/shift/);
  });

  it.each([
    ...Object.entries(betaSchedules).map(
      ([name, make]) =>
        [
          name,
          make({ timesteps: 1000, ...(name === "shifted-cosine" && { shift: 0.5 }) }),
        ] as const,
    ),
    ["logistic", logisticBetas({ timesteps: 1000 })] as const,
    ["exponential", betasOfAlphaBar(exponentialAlphaBar, 1000)] as const,
    ["sigmoid", betasOfAlphaBar(sigmoidAlphaBar({ start: 0, end: 3, tau: 0.3 }), 1000)] as const,
  ])("%s falls from data to noise", (_, betas) => {
    const { alphaBars } = gaussianChain(betas);
    alphaBars.forEach((bar, i) => expect(bar).toBeLessThan(alphaBars[i - 1] ?? 1));
    expect(alphaBars[0]).toBeGreaterThan(0.98);
    expect(alphaBars[999]).toBeLessThan(0.15);
  });
});

/** What a network with this parameterisation would answer, from its definition. */
const answers: Record<string, (level: Level, x0: number, eps: number, y: number) => number> = {
  eps: (_, __, eps) => eps,
  x0: (_, x0) => x0,
  v: ({ a, c }, x0, eps) => a * eps - c * x0,
  score: ({ c }, _, eps) => -eps / c,
  velocity: ({ rates }, x0, eps, y) => rates!.a * x0 + rates!.b * y + rates!.c * eps,
};

const mixOf = ([x, pair, output]: Mix, at: { x: number; y: number; output: number }): number =>
  x * at.x + pair * at.y + output * at.output;

describe("parameterisations", () => {
  const level: Level = { time: 0.4, a: 0.7, b: 0.3, c: 0.6, rates: { a: -1.1, b: 0.4, c: 0.9 } };
  const [x0, eps, y] = [0.8, -1.3, 0.45];
  const x = level.a * x0 + level.b * y + level.c * eps;

  it.each(Object.keys(answers) as (keyof typeof predictions)[])("%s tells x0 and eps", (name) => {
    const reading = predictions[name](level);
    const at = { x, y, output: answers[name]!(level, x0, eps, y) };
    expect(mixOf(reading.x0, at)).toBeCloseTo(x0, 12);
    expect(mixOf(reading.eps, at)).toBeCloseTo(eps, 12);
  });

  it("EDM's preconditioning has unit-variance inputs, and its weight is one on the output", () => {
    for (const sigma of [0.01, 0.5, 20]) {
      const at: Level = { time: sigma, a: 1, b: 0, c: sigma };
      const reading = edmPreconditioning()(at);
      expect(reading.inputScale * Math.hypot(sigma, 0.5)).toBeCloseTo(1, 12);
      const weight = outputWeight(at, edmPreconditioning(), { weighting: "edm" });
      expect(weight).toBeCloseTo(1, 12);
      const scaled = scaledInput(predictions.eps, unitVariance)(at);
      expect(scaled.inputScale).toBeCloseTo(1 / Math.hypot(1, sigma), 14);
      expect(scaled.x0).toEqual(predictions.eps(at).x0);
    }
  });

  it("needs rates for velocities", () => {
    expect(() => predictions.velocity({ time: 1, a: 0, b: 0, c: 1 })).toThrow("expected rates");
  });
});

/** What a step makes of coefficients (a, b, c) of x0, y and the old noise; and its fresh noise. */
function marginal(from: Level, after: Combination): { x0: number; y: number; variance: number } {
  const { slots: [k] = [], x0 = 0, eps = 0, pair = 0, noise = 0 } = after;
  const kept = k ?? 0;
  return {
    x0: kept * from.a + x0,
    y: kept * from.b + pair,
    variance: (kept * from.c + eps) ** 2 + noise ** 2,
  };
}

describe("steps", () => {
  const samplers: Record<string, ContinuousSampler> = {
    "ddpm with the posterior's variance": ddpm({ variance: "fixedSmall" }),
    ddim: ddim(),
    "ddim with eta 0.6": ddim({ eta: 0.6 }),
    "ddim with eta 1": ddim({ eta: 1 }),
  };
  const cases = Object.keys(samplers).flatMap((name) =>
    Object.keys(processes).map((process) => [name, process] as const),
  );

  it.each(cases)("%s leads from marginal to marginal of %s", (name, process) => {
    const levels = processes[process]!;
    samplers[name]!.plan(levels).steps.forEach(({ evaluations }, i) => {
      const [from, to] = [levels[i]!, levels[i + 1]!];
      const found = marginal(from, evaluations[0]!.after[0]!);
      expect(found.x0).toBeCloseTo(to.a, 12);
      expect(found.y).toBeCloseTo(to.b, 12);
      expect(found.variance).toBeCloseTo(to.c ** 2, 10);
    });
  });

  it("has the published posterior variances of residual shifting", () => {
    const levels = processes["residual shift"]!;
    const found = levels.slice(1).map((to, i) => posteriorDeviation(levels[i]!, to) ** 2);
    [0.9473, 0.5771, 0.0385, 0].forEach((variance, i) => expect(found[i]).toBeCloseTo(variance, 3));
  });

  it("ddim with eta 1 is ddpm with the posterior's variance, once eps follows from x0", () => {
    const levels = processes["ddpm"]!;
    const [byEps, byX0] = [ddim({ eta: 1 }), ddpm({ variance: "fixedSmall" })].map((sampler) =>
      sampler.plan(levels).steps.map(({ evaluations }) => evaluations[0]!.after[0]!),
    );
    byEps!.forEach((a, i) => {
      const { slots, x0, noise } = byX0![i]!;
      const from = levels[i]!;
      expect(a.eps! / from.c).toBeCloseTo(slots![0]!, 10);
      expect(a.x0! - (a.eps! * from.a) / from.c).toBeCloseTo(x0!, 10);
      expect(a.noise).toBeCloseTo(noise!, 12);
    });
  });

  it("the large variance is that of the forward step", () => {
    const plan = ddpm({ variance: "fixedLarge" }).plan(chainLevels(linear));
    plan.steps.slice(0, -1).forEach(({ evaluations: [evaluation] }, i) => {
      const beta = linear.betas[999 - i]!;
      expect(evaluation!.after[0]!.noise! ** 2).toBeCloseTo(beta, 10);
      expect(evaluation!.logVariance![1]).toBeCloseTo(Math.log(beta), 8);
    });
    expect(plan.steps.at(-1)!.evaluations[0]!.after[0]!.noise).toBe(0);
  });

  it("reads networks of the previous mean", () => {
    const levels = processes["formulation 2"]!;
    const at = levels[1]!;
    const reading = previousMean(levels)(at);
    const { slots, x0 = 0, pair = 0 } = ddpm().plan(levels).steps[1]!.evaluations[0]!.after[0]!;
    const [clean, noise, y] = [0.3, -0.8, 0.5];
    const x = at.a * clean + at.b * y + at.c * noise;
    const output = slots![0]! * x + x0 * clean + pair * y;
    expect(mixOf(reading.x0, { x, y, output })).toBeCloseTo(clean, 10);
    expect(mixOf(reading.eps, { x, y, output })).toBeCloseTo(noise, 10);
  });

  it("starts with unit variance where it is preserved, else with the level's", () => {
    expect(startDeviation(chainLevel(linear, 900))).toBe(1);
    expect(startDeviation({ time: 80, a: 1, b: 0, c: 80 })).toBe(80);
  });

  it("refuses nonsense", () => {
    expect(() => ddim({ eta: -1 })).toThrow("eta >= 0");
    expect(() => ddim({ sigma: 1 } as object)).toThrow("sigma");
    expect(() => ddpm({ variance: "huge" as "learned" })).toThrow("fixedSmall");
    expect(() => ddim().plan([chainLevel(linear, 0)])).toThrow("at least 2 levels");
  });
});

describe("weights", () => {
  const level = chainLevel(linear, 120);
  const ratio = snr(level);
  const weightOf = (prediction: Parameterisation, weighting: "min-snr" | "p2" | "snr"): number =>
    outputWeight(level, prediction, { weighting });

  it("min-SNR is min(SNR, 5) / SNR on eps, min(SNR, 5) on x0, min(SNR, 5) / (SNR + 1) on v", () => {
    const least = Math.min(ratio, 5);
    expect(weightOf(predictions.eps, "min-snr")).toBeCloseTo(least / ratio, 12);
    expect(weightOf(predictions.x0, "min-snr")).toBeCloseTo(least, 12);
    expect(weightOf(predictions.v, "min-snr")).toBeCloseTo(least / (ratio + 1), 12);
  });

  it("P2 is 1 / (1 + SNR) on eps; SNR is the plain loss on eps", () => {
    expect(weightOf(predictions.eps, "p2")).toBeCloseTo(1 / (1 + ratio), 12);
    expect(weightOf(predictions.eps, "snr")).toBeCloseTo(1, 12);
  });

  it("velocity is the plain loss on a velocity; likelihood is -dSNR/dt / 2", () => {
    const at = (t: number): Level => ({
      time: t,
      a: 1 - t,
      b: 0,
      c: t,
      rates: { a: -1, b: 0, c: 1 },
    });
    const one = outputWeight(at(0.3), predictions.velocity, { weighting: "velocity" });
    expect(one).toBeCloseTo(1, 12);
    const slope = (snr(at(0.3 + 1e-6)) - snr(at(0.3 - 1e-6))) / 2e-6;
    const weight = outputWeight(at(0.3), predictions.x0, { weighting: "likelihood" });
    expect(weight).toBeCloseTo(-slope / 2, 5);
  });

  it("of a chain's likelihood are the terms of its bound", () => {
    for (const t of [3, 40, 500]) {
      const [from, to] = [chainLevel(linear, t), chainLevel(linear, t - 1)];
      const weight = outputWeight(from, predictions.x0, { weighting: "likelihood" });
      expect(weight / ((snr(to) - snr(from)) / 2)).toBeCloseTo(1, t < 10 ? 0 : 1);
    }
  });

  it("names the known ones", () => {
    const wrong = { weighting: "min-sigma" as "p2" };
    expect(() => outputWeight(level, predictions.eps, wrong)).toThrow("min-snr");
  });
});
