// Interpolants and noise levels on closed forms: tables, derivatives, inverses, identities between
// velocity, score and noise, and the loss at the best prediction.
import { describe, expect, it } from "vitest";
import { chainLine } from "../../lib/processes/chain-line.js";
import { chainLevel, chainOf, respacedChain } from "../../lib/processes/gaussian.js";
import { predictions } from "../../lib/processes/gaussian-levels.js";
import type { PredictionName } from "../../lib/processes/gaussian-levels.js";
import {
  diffusionAt,
  diffusionForms,
  forwardDrift,
  forwardVariance,
  pathLevel,
  pathLevels,
  pathLine,
  pathNames,
} from "../../lib/processes/interpolant.js";
import type { PathName } from "../../lib/processes/interpolant.js";
import {
  interpolate,
  pathVelocity,
  transportCoefficients,
  transportColumns,
  transportLoss,
  transportTable,
} from "../../lib/processes/interpolant-loss.js";
import { defaultEpsilons, stochasticTimeRange, timeRange } from "../../lib/processes/path-range.js";
import {
  ancestralStep,
  DiscreteSigmas,
  exponentialSigmas,
  karrasSigmas,
  polyexponentialSigmas,
  vpSigmas,
} from "../../lib/processes/sigmas.js";
import { samplerOf } from "../../lib/samplers/samplers.js";
import { evaluate, f64 } from "./evaluate.js";

const times = [0.02, 0.1, 0.3, 0.5, 0.77, 0.9, 0.98];
const everyPath = pathNames.flatMap((path) => times.map((t): [PathName, number] => [path, t]));

describe("paths", () => {
  // time of the network; a, c, their rates in it, and the variance rate
  const table: [PathName, number, ...number[]][] = [
    ["linear", 0.1, 0.1, 0.9, 1, -1, 9],
    ["linear", 0.3, 0.3, 0.7, 1, -1, 2.3333333],
    ["linear", 0.9, 0.9, 0.1, 1, -1, 0.11111111],
    ["gvp", 0.1, 0.15643447, 0.98768834, 1.5514572, -0.24572668, 9.9176177],
    ["gvp", 0.5, 0.70710678, 0.70710678, 1.1107207, -1.1107207, 1.5707963],
    ["gvp", 0.9, 0.98768834, 0.15643447, 0.24572668, -1.5514572, 0.2487897],
    ["vp", 0.1, 0.016996463, 0.99985555, 0.15305315, -0.0026017381, 9.005],
    ["vp", 0.3, 0.08435257, 0.99643597, 0.59173328, -0.050092755, 7.015],
    ["vp", 0.9, 0.9467218, 0.32205254, 0.98932428, -2.9082673, 1.045],
  ];

  it.each(table)("%s at %d towards data", (path, time, ...expected) => {
    const level = pathLevel(path, 1 - time, "data");
    expect(level.time).toBeCloseTo(time, 15);
    const found = [level.a, level.c, level.rates.a, level.rates.c, forwardVariance(level)];
    // the table has eight digits
    expected.forEach((value, i) =>
      expect(Math.abs(found[i]! - value)).toBeLessThan(5e-8 * Math.max(1, Math.abs(value))),
    );
  });

  it.each(everyPath)("%s at %d has the derivatives of its coefficients", (path, t) => {
    const h = 1e-5;
    const [before, here, after] = [t - h, t, t + h].map((at) => pathLevel(path, at));
    expect(here!.rates.a).toBeCloseTo((after!.a - before!.a) / (2 * h), 6);
    expect(here!.rates.c).toBeCloseTo((after!.c - before!.c) / (2 * h), 6);
    expect(forwardDrift(here!)).toBeCloseTo(Math.log(after!.a / before!.a) / (2 * h), 4);
  });

  it.each(everyPath)("%s at %d keeps the variance that its equation predicts", (path, t) => {
    // d(c²)/dt = 2 f c² + 2 g
    const level = pathLevel(path, t);
    const grown = 2 * forwardDrift(level) * level.c ** 2 + 2 * forwardVariance(level);
    expect(grown).toBeCloseTo(2 * level.c * level.rates.c, 9);
  });

  it.each(everyPath)("%s at %d is found again by ratio and by time", (path, t) => {
    for (const towards of ["noise", "data"] as const) {
      const level = pathLevel(path, t, towards);
      const line = pathLine(path, towards);
      for (const found of [line.ofRatio(level.c / level.a), line.ofTime(level.time)])
        expect(found).toMatchObject({
          t: expect.closeTo(t, 9) as number,
          time: expect.closeTo(level.time, 9) as number,
        });
    }
  });

  it("reaches pure noise and clean data", () => {
    expect(pathLine("linear").ofRatio(Infinity)).toMatchObject({ a: 0, c: 1 });
    expect(pathLevel("gvp", 1)).toMatchObject({ a: 0, c: 1 });
    for (const path of pathNames)
      expect(pathLevels(path, { points: 3 }).at(-1)).toMatchObject({ t: 0, a: 1, c: 0 });
  });

  it("names unknown paths and forms", () => {
    expect(() => pathLevel("linaer" as PathName, 0.5)).toThrow(
      'expected a path among linear, gvp, vp, got "linaer"; did you mean "linear"?',
    );
    expect(() => diffusionAt("sgma" as "sigma", pathLevel("vp", 0.5))).toThrow(
      /did you mean "sigma"/,
    );
  });
});

describe("predictions along a path", () => {
  const names: PredictionName[] = ["eps", "x0", "v", "score", "velocity"];

  it.each(everyPath)("of %s at %d agree about x0 and noise", (path, t) => {
    const level = pathLevel(path, t, "data");
    const { a, c, rates } = level;
    const [x0, eps] = [0.7, -1.3];
    const x = a * x0 + c * eps;
    const outputs = {
      eps,
      x0,
      v: a * eps - c * x0,
      score: -eps / c,
      velocity: rates.a * x0 + rates.c * eps,
    };
    for (const name of names) {
      const reading = predictions[name](level);
      expect(reading.x0[0] * x + reading.x0[2] * outputs[name]).toBeCloseTo(x0, 8);
      expect(reading.eps[0] * x + reading.eps[2] * outputs[name]).toBeCloseTo(eps, 8);
    }
  });

  it("of a velocity are regular at both ends", () => {
    for (const path of pathNames)
      for (const t of [0, 1]) {
        const { x0, eps } = predictions.velocity(pathLevel(path, t));
        expect([...x0, ...eps].every(Number.isFinite)).toBe(true);
      }
  });
});

describe("diffusion forms", () => {
  it.each(diffusionForms)("%s is nowhere negative and scales", (form) => {
    for (const path of pathNames)
      for (const t of times) {
        const level = pathLevel(path, t);
        expect(diffusionAt(form, level)).toBeGreaterThanOrEqual(0);
        if (form === "decreasing") continue;
        expect(diffusionAt(form, level, 0.3)).toBeCloseTo(0.3 * diffusionAt(form, level), 12);
      }
  });

  it("sbdm refuses to start at pure noise", () => {
    const levels = pathLevels("linear", { points: 5, to: 0.04 });
    expect(() => samplerOf("flow-sde", { diffusion: "sbdm" }).plan(levels)).toThrow(
      /expected a finite diffusion, got Infinity at t = 1; start at a lower t/,
    );
  });
});

describe("times in use", () => {
  it("stay away from singular ends only", () => {
    const range = (path: PathName, prediction: "velocity" | "score") =>
      timeRange(path, prediction, defaultEpsilons(path, prediction).train);
    expect(range("linear", "velocity")).toEqual({ low: 0, high: 1 });
    expect(range("gvp", "score")).toEqual({ low: 1e-3, high: 1 - 1e-3 });
    expect(range("vp", "velocity")).toEqual({ low: 1e-5, high: 1 });
  });

  it("end at the last step", () => {
    const range = stochasticTimeRange("linear", "score", 1e-3, {
      diffusion: "sigma",
      lastStep: 0.04,
    });
    expect(range).toEqual({ low: 0.04, high: 1 - 1e-3 });
  });
});

describe("transport loss", () => {
  const path = "gvp";
  const levels = [0.2, 0.6].map((t) => pathLevel(path, t));
  const x0 = [0.5, -0.2, 1.5, 0.1];
  const noise = [1.1, 0.3, -0.7, -2];
  const outputs = {
    velocity: [0, 1].flatMap((b) =>
      [0, 1].map((i) => {
        const { rates } = levels[b]!;
        return rates.a * x0[2 * b + i]! + rates.c * noise[2 * b + i]!;
      }),
    ),
    eps: noise,
    score: noise.map((n, i) => -n / levels[Math.floor(i / 2)]!.c),
  };

  it.each(["velocity", "eps", "score"] as const)("of %s is 0 at the truth", async (prediction) => {
    for (const offset of [0, 0.5]) {
      const weight = "likelihood";
      const table = transportTable({ prediction, weight }, levels);
      const found = await evaluate(
        (_, x) => {
          const coefficients = transportCoefficients(x["table"]!, 2);
          const predicted = x["output"]!.add(offset);
          const given = { predicted, x0: x["x0"]!, noise: x["noise"]!, coefficients };
          const { perSample, loss } = transportLoss(prediction, given);
          return {
            perSample,
            loss,
            xt: interpolate(given.x0, given.noise, coefficients),
            velocity: pathVelocity(given.x0, given.noise, coefficients),
          };
        },
        {
          table: f64([2, transportColumns.length], table),
          x0: f64([2, 2], x0),
          noise: f64([2, 2], noise),
          output: f64([2, 2], outputs[prediction]),
        },
      );
      const expected = levels.map((level) => {
        const weights = {
          velocity: 1,
          eps: forwardVariance(level) / level.c ** 2,
          score: forwardVariance(level),
        };
        return offset ** 2 * weights[prediction];
      });
      found["perSample"]!.forEach((value, b) => expect(value).toBeCloseTo(expected[b]!, 5));
      expect(found["loss"]![0]).toBeCloseTo((expected[0]! + expected[1]!) / 2, 5);
      expect(found["xt"]![3]).toBeCloseTo(levels[1]!.a * x0[3]! + levels[1]!.c * noise[3]!, 6);
      expect(found["velocity"]![0]).toBeCloseTo(outputs.velocity[0]!, 6);
    }
  });
});

describe("noise levels", () => {
  it("follow Karras's grid", () => {
    const expected = [80, 42.415189319, 21.108676736, 9.7232013553, 4.066123603, 1.5017419791, 0.469979058, 0.11663856353, 0.020435334553, 0.002, 0]; // prettier-ignore
    karrasSigmas(10, { min: 0.002, max: 80 }).forEach((sigma, i) =>
      expect(Math.abs(sigma - expected[i]!)).toBeLessThan(1e-9 * Math.max(1, expected[i]!)),
    );
  });

  it("fall from the highest to the lowest, then 0", () => {
    const range = { min: 0.03, max: 10 };
    const grids = [exponentialSigmas(6, range), polyexponentialSigmas(6, range, 0.7), karrasSigmas(6, range, 3)]; // prettier-ignore
    for (const grid of grids) {
      expect([grid[0], grid[5], grid[6]]).toEqual([expect.closeTo(10, 9), expect.closeTo(0.03, 9), 0]); // prettier-ignore
      grid.slice(1).forEach((sigma, i) => expect(sigma).toBeLessThan(grid[i]!));
    }
    const [a, b] = exponentialSigmas(6, range);
    expect(b! / a!).toBeCloseTo((0.03 / 10) ** (1 / 5), 12);
  });

  it("of the continuous VP process are those of its path", () => {
    const ratio = ({ a, c }: { a: number; c: number }): number => c / a;
    vpSigmas(5)
      .slice(0, -1)
      .forEach((sigma, i) => {
        const t = 1 + (i / 4) * (1e-3 - 1);
        expect(sigma / ratio(pathLevel("vp", t))).toBeCloseTo(1, 10);
      });
  });

  it.each([0, 0.4, 1, 3])("ancestral steps with eta %d keep the noise of the target", (eta) => {
    const { down, up } = ancestralStep(5, 2, eta);
    expect(Math.hypot(down, up)).toBeCloseTo(2, 12);
    expect(up > 0).toBe(eta > 0);
  });

  it("of discrete timesteps go to time and back", () => {
    const sigmas = new DiscreteSigmas(Array.from({ length: 50 }, (_, i) => 0.9 ** (i + 1)));
    for (const time of [0, 0.25, 7, 33.9, 49])
      expect(sigmas.timeOf(sigmas.sigmaOf(time))).toBeCloseTo(time, 9);
    expect(sigmas.nearestTime(sigmas.sigmaOf(7.4))).toBe(7);
    expect(sigmas.timeOf(1e9)).toBe(49);
    expect(sigmas.timeOf(1e-9)).toBe(0);
    const { a, c } = sigmas.level(2);
    expect([c / a, Math.hypot(a, c)]).toEqual([expect.closeTo(2, 12), expect.closeTo(1, 12)]);
    expect([sigmas.level(0), sigmas.level(Infinity)]).toEqual([
      { time: 0, a: 1, b: 0, c: 0 },
      { time: 49, a: 0, b: 0, c: 1 },
    ]);
    expect(sigmas.spread(3)).toEqual([
      expect.closeTo(sigmas.sigmas[49]!, 9),
      expect.closeTo(sigmas.sigmaOf(24.5), 9),
      expect.closeTo(sigmas.sigmas[0]!, 9),
      0,
    ]);
  });

  it("refuse impossible grids", () => {
    expect(() => karrasSigmas(0, { min: 1, max: 2 })).toThrow(
      /expected steps to be at least 1, got 0/,
    );
    expect(() => karrasSigmas(5, { min: 3, max: 2 })).toThrow(
      /expected 0 < min <= max, got 3 and 2/,
    );
  });
});

describe("the line of a chain", () => {
  const chain = respacedChain(chainOf({ timesteps: 100 }), [0, 20, 40, 99]);

  it.each([1, 2] as const)("goes through its levels, formulation %i", (formulation) => {
    const line = chainLine(chain, formulation);
    for (let i = 0; i < chain.timesteps; ++i) {
      const { time, a, b, c } = chainLevel(chain, i, formulation);
      for (const found of [line.ofRatio(c / a), line.ofTime(time)]) {
        const expected = { time: expect.closeTo(time, 7), a: expect.closeTo(a, 9), b, c: expect.closeTo(c, 9) }; // prettier-ignore
        expect(found).toMatchObject(expected);
      }
    }
  });

  it("lies between them in between", () => {
    const line = chainLine(chain);
    const { time, a, c } = line.ofTime(30);
    const [low, high] = [chainLevel(chain, 1), chainLevel(chain, 2)];
    expect(time).toBeCloseTo(30, 12);
    expect((c / a) ** 2).toBeCloseTo((low.c / low.a) * (high.c / high.a), 12);
    expect(line.ofRatio(c / a).time).toBeCloseTo(30, 9);
  });
});

describe("options of samplers", () => {
  it("are checked by name", () => {
    expect(() => samplerOf("eular")).toThrow(/got "eular"; did you mean "euler"\?/);
    expect(() => samplerOf("heun", { chrun: 1 })).toThrow(/did you mean "churn"\?/);
    expect(() => samplerOf("lms", { order: 9 })).toThrow(/expected order from 1 to 8, got 9/);
    expect(() => samplerOf("dpm-2").plan([{ time: 2, a: 1, b: 0, c: 2 }, { time: 1, a: 1, b: 0, c: 1 }])).toThrow(/pass the process's line/); // prettier-ignore
    expect(() => samplerOf("flow-ode").plan([{ time: 2, a: 1, b: 0, c: 2 }, { time: 1, a: 1, b: 0, c: 1 }])).toThrow(/expected levels with rates/); // prettier-ignore
  });
});
